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

# ensure_range FILE: 65536 ids behind the highest range that is given away.
ensure_range() {
	[ -e "$1" ] && grep -q '^_vmd:' "$1" && return
	start=$(awk -F: 'BEGIN { top = 200000 }
		$2 + $3 > top { top = $2 + $3 }
		END { print top }' "$1" 2>/dev/null || echo 200000)
	echo "_vmd:$start:65536" >>"$1"
}

if command -v systemd-sysusers >/dev/null 2>&1; then
	systemd-sysusers "$conf"
else
	ensure_user _vmd
	ensure_user _agentx
	ensure_group vmd
fi
ensure_range /etc/subuid
ensure_range /etc/subgid
