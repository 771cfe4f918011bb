#!/bin/busybox sh
# Process 1 of a test guest. Words of the kernel's command line:
#
#	name=NAME            printed in the line "guest ready NAME"
#	ip=ADDR/LEN[,GW]     address of eth0; ip1= is eth1, and so on
#	ip=dhcp
#	modules=no           load no modules: only boot and talk
#
# Then it reads lines from the console. A line whose first word is a command
# below runs, and ends with "status N"; every other line L is answered with
# "echo: L".
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
echo "guest init"

net() { # interface, address
	case $2 in
	dhcp) udhcpc -q -n -t 10 -T 1 -i "$1" -s /etc/udhcpc.sh >/dev/null 2>&1 ;;
	*)
		ip addr add "${2%,*}" dev "$1"
		ip link set "$1" up
		case $2 in *,*) ip route add default via "${2#*,}" ;; esac
		;;
	esac
	echo "guest net $1 $(ip -o -4 addr show dev "$1" | awk '{print $4}')"
}

command() {
	case $1 in
	poweroff) poweroff -f; sleep 60 ;;
	reboot) reboot -f; sleep 60 ;;
	halt) halt -f; sleep 60 ;;
	panic) echo c >/proc/sysrq-trigger ;;
	spin) while :; do :; done & ;;
	fill) yes "$3" | tr -d '\n' | dd of="$2" bs=1M count="$4" iflag=fullblock conv=fsync 2>/dev/null ;;
	sum) dd if="$2" bs=1M count="$3" 2>/dev/null | sha256sum | cut -c1-64 ;;
	run) shift; eval "$*" ;;
	*) return 127 ;;
	esac
}

name=guest modules=yes
for word in $(cat /proc/cmdline); do
	case $word in
	name=*) name=${word#*=} ;;
	modules=*) modules=${word#*=} ;;
	esac
done
hostname "$name"
ip link set lo up
if [ "$modules" = yes ]; then
	for m in $(cat /modules); do insmod "/$m"; done
	acpid -c /etc/acpi -l /dev/null
	for word in $(cat /proc/cmdline); do
		case $word in
		ip=*) net eth0 "${word#*=}" ;;
		ip[1-9]=*) n=${word%%=*}; net "eth${n#ip}" "${word#*=}" ;;
		esac
	done
fi
stty -echo
echo "guest ready $name"
while read -r line; do
	set -f
	set -- $line
	set +f
	case $1 in
	poweroff | reboot | halt | panic | spin | fill | sum | run)
		command "$@"
		echo "status $?"
		;;
	*) echo "echo: $line" ;;
	esac
done
# The console ended: nobody is left to talk to.
poweroff -f
