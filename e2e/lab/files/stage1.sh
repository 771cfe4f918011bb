#!/bin/busybox sh
# Stage 1 of the lab machine, in the initramfs: the root is an overlay of the
# read-only image (vda) with a tmpfs, filled with the run's own files (vdb, a
# tar archive). switch_root and not chroot: kernel autoload starts modprobe in
# the root of process 1, and a chrooted process gets no user namespace.
bb=/bin/busybox
for m in $($bb cat /modules); do
	$bb insmod /$m || echo "lab: module $m did not load"
done
$bb mount -t devtmpfs dev /dev
$bb mount -t ext4 -o ro /dev/vda /lower
$bb mount -t tmpfs -o size=2g tmpfs /over
$bb mkdir /over/upper /over/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/over/upper,workdir=/over/work overlay /root
$bb tar -x -f /dev/vdb -C /root
$bb umount /dev
exec $bb switch_root /root /lab/init
