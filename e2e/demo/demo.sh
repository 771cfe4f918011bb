#!/bin/sh
# The main job of vmd, shown. Runs as root in the lab machine, or beside it
# (e2e/lab, Here); e2e/demo starts it. Every command is printed before it runs,
# and each claim is checked: the demo ends with 0 only if all were true.
set -eu
programs=${VMD_TEST_PROGRAMS:-/usr/sbin}
guests=$VMD_TEST_GUESTS
PATH=$programs:$PATH:/usr/sbin:/sbin
vmtable=.1.3.6.1.2.1.236.1.4.1
dir=$(mktemp -d)
chmod 755 "$dir"

say() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
fail() {
	printf 'demo: %s\n' "$*"
	tail -n 40 "$dir/vmd.log"
	exit 1
}

# as USER COMMAND...: with that user's uid and groups.
as() {
	user=$1
	shift
	printf '%s$ %s\n' "$user" "$*"
	su -s /bin/sh "$user" -c "PATH=$PATH; $*"
}

# await SECONDS WHAT COMMAND...: until the command is true.
await() {
	left=$1 what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || fail "waited in vain for $what"
		sleep 1
	done
}

state() { vmctl status "$1" | awk -v name="$1" '$NF == name { print $(NF - 1) }'; }
is() { [ "$(state "$1")" = "$2" ]; }
row() { snmpwalk -v2c -c public -On -Oq 127.0.0.1 "$vmtable.$1"; }
mib() {
	for column in '2 vmName' '5 vmAdminState' '6 vmOperState' '9 vmCurCpuNumber' '13 vmCurMem' '17 vmCpuTime'; do
		printf '%-15s %s\n' "${column#* }" "$(row "${column%% *}" | awk '{ print $2 }' | tr '\n' '\t')"
	done
}

finish() {
	status=$?
	if [ -n "${vmd:-}" ]; then
		kill "$vmd" 2>/dev/null && wait "$vmd" || true
	fi
	[ -z "${snmpd:-}" ] || kill "$snmpd" 2>/dev/null || true
	rm -rf "$dir"
	exit "$status"
}
trap finish EXIT

say "vm.conf: two guests, one started every three seconds, each with its owner"
cat >"$dir/vm.conf" <<CONF
agentx
staggered start parallel 1 delay 3

vm "web" {
	memory 192M
	boot "$guests/vmlinux"
	initrd "$guests/initrd"
	cmdline "console=ttyS0 quiet name=web"
	owner alice
}

vm "db" {
	memory 192M
	boot "$guests/bzImage"
	initrd "$guests/initrd"
	cmdline "console=ttyS0 quiet name=db"
	owner bob
}
CONF
show cat "$dir/vm.conf"
show vmd -n -f "$dir/vm.conf"

say "the distribution's snmpd as AgentX master, and vmd"
mkdir -p /var/agentx
cat >"$dir/snmpd.conf" <<CONF
agentAddress udp:127.0.0.1:161
master agentx
agentXSocket unix:/var/agentx/master
rocommunity public 127.0.0.1
CONF
MIBS='' SNMP_PERSISTENT_DIR=$dir/state snmpd -f -Lf "$dir/snmpd.log" -C -c "$dir/snmpd.conf" &
snmpd=$!
vmd -d -f "$dir/vm.conf" >"$dir/vmd.log" 2>&1 &
vmd=$!
await 60 "vmd" vmctl status
show vmctl status
await 60 "web to run" is web running
await 60 "db to run" is db running

say "alice is not root: she lists the guests, and reads the console of hers"
as alice vmctl status
await 90 "web's userland" sh -c 'echo "are you there" | timeout 5 vmctl console web | grep -q "echo: are you there"'
as alice 'echo "hello from alice" | timeout 5 vmctl console web | grep "echo: hello"' || fail "web did not answer"

say "the vmMIB (RFC 7666) through snmpd"
export MIBS=''
await 30 "both rows" sh -c "snmpwalk -v2c -c public -On 127.0.0.1 $vmtable.2 | grep -c STRING | grep -qx 2"
show mib

say "she stops web, and only web: db is not hers"
as alice vmctl stop -w web
as alice vmctl stop db && fail "alice stopped db"
is web stopped || fail "web is $(state web)"
show vmctl status
show mib
row 6 | grep -q ' 11$' || fail "no row is shutdown(11)"

say "and starts it again"
as alice vmctl start web
await 60 "web to run" is web running
await 90 "web's userland" sh -c 'echo "again" | timeout 5 vmctl console web | grep -q "echo: again"'
show vmctl status
show mib

say "vmd ends, and its guests with it"
show kill -TERM "$vmd"
wait "$vmd" || fail "vmd ended with status $?"
vmd=
printf '\ndemo: all of it was so\n'
