#!/bin/busybox sh
# Process 1 of the lab machine. Runs /lab/run and hands its output, the files
# it left in /results and its exit status to the host, over virtio ports: the
# kernel's messages on the serial line never mix with them.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,mode=755 dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
mount -t securityfs securityfs /sys/kernel/security
ln -s /proc/self/fd /dev/fd
# An image that somebody other than root has built belongs to him.
chown root:root / /etc /etc/* /usr /usr/* /var /var/* /root /home
for user in alice bob carol; do
	mkdir -p /home/$user && chown $user:$user /home/$user
done
hostname lab
ip link set lo up
echo 1 >/proc/sys/kernel/printk
modprobe -a kvm-amd tun vhost_net
chmod 666 /dev/net/tun
chgrp kvm /dev/kvm && chmod 660 /dev/kvm

if [ -e /lab/shell ]; then
	setsid cttyhack sh -l </dev/ttyS0 >/dev/ttyS0 2>&1
	status=0
else
	sh /lab/run </dev/null >/dev/vport0p1 2>&1
	status=$?
fi
[ -d /results ] && tar -c -C /results . >/dev/vport0p2
echo "$status" >/dev/vport0p3
sync
reboot -f
