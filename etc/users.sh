#!/bin/sh
# Makes what sysusers.d/vmd.conf describes where there is no systemd-sysusers,
# and gives _vmd a range of user ids for its guests. Doing it twice changes
# nothing.
set -eu
conf=${1:?usage: users.sh sysusers.d/vmd.conf}

ensure_group() {
	grep -q "^$1:" /etc/group || groupadd --system "$1"
}

ensure_user() {
	grep -q "^$1:" /etc/passwd && return
	ensure_group "$1"
	useradd --system --gid "$1" --home-dir /var/empty --no-create-home \
		--shell /usr/sbin/nologin "$1"
}

# ensure_range START FILE: 65536 ids that nobody else has.
ensure_range() {
	[ -e "$2" ] && grep -q '^_vmd:' "$2" || echo "_vmd:$1:65536" >>"$2"
}

# behind_all prints the id behind every range that is given away.
behind_all() {
	cat /etc/subuid /etc/subgid 2>/dev/null |
		awk -F: 'BEGIN { top = 200000 } $2 + $3 > top { top = $2 + $3 } END { print top }'
}

if command -v systemd-sysusers >/dev/null 2>&1; then
	# A relative name is one of its own folders.
	systemd-sysusers "$(realpath "$conf")"
else
	ensure_user _vmd
	ensure_user _agentx
	ensure_group vmd
fi
start=$(behind_all)
ensure_range "$start" /etc/subuid
ensure_range "$start" /etc/subgid
