#!/bin/busybox sh
# Applies what udhcpc was offered.
case $1 in
bound | renew)
	ip addr add "$ip/${mask:-24}" dev "$interface"
	ip link set "$interface" up
	[ -n "$router" ] && ip route add default via "${router%% *}"
	[ -n "$dns" ] && echo "nameserver ${dns%% *}" >/etc/resolv.conf
	[ -n "$hostname" ] && hostname "$hostname"
	;;
deconfig) ip link set "$interface" up ;;
esac
exit 0
