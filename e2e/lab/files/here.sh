#!/bin/sh
# Runs a command on a host with a real KVM as if it were the lab machine: in
# mount and network namespaces of its own, with empty places for a vmd's
# sockets and state, and the users that tests speak of.
#
#	unshare --mount --net sh here.sh FOLDER GROUP COMMAND...
#
# FOLDER holds passwd, group, subuid and subgid to be used before the host's.
# GROUP is the name of a control group that is to hold all of it.
set -eu
extra=$1
group=/sys/fs/cgroup/$2
shift 2
mount --make-rprivate /
mkdir -p /var/lib/vmd
mount -t tmpfs -o mode=755 tmpfs /var/lib/vmd
mount -t tmpfs -o mode=755 tmpfs /run
# Terminals of its own, so that their numbers are nobody else's.
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
[ -L /dev/ptmx ] || mount --bind /dev/pts/ptmx /dev/ptmx
mount -t sysfs sysfs /sys 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null || true
# Another vmd of this host has control groups of the same names as ours, below
# the group that it was started in. A host may have no groups, or none for us.
for c in cpu memory io pids; do
	echo +$c >/sys/fs/cgroup/cgroup.subtree_control
done 2>/dev/null || true
if [ -e /sys/fs/cgroup/cgroup.procs ] && mkdir -p "$group/tests" && echo $$ >"$group/tests/cgroup.procs"; then
	export VMD_TEST_GROUP="$group"
fi 2>/dev/null
for name in passwd group subuid subgid; do
	own=$extra/own-$name
	cp "$extra/$name" "$own"
	# Who is in both is as the tests say.
	if [ -e /etc/$name ]; then
		while IFS= read -r line; do
			grep -q "^${line%%:*}:" "$extra/$name" || printf '%s\n' "$line" >>"$own"
		done </etc/$name
	fi
	chmod 644 "$own"
	[ -e /etc/$name ] || touch /etc/$name
	mount --bind "$own" /etc/$name
done
ip link set lo up
exec "$@"
