package parent

import (
	"bufio"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// ids are the users that processes run as.
type ids struct {
	uid, gid uint32 // _vmd
	// Each VM gets a uid and a gid of its own from these, if there are any.
	uids, gids subRange
}

// lookupIDs finds the users that must exist, and the range for VMs.
func lookupIDs(p *paths) (ids, error) {
	var r ids
	u, err := user.Lookup(privsep.User)
	if err != nil {
		return r, fmt.Errorf("user %s does not exist: make install, or the package, creates it: %w", privsep.User, err)
	}
	if _, err := user.LookupGroup(privsep.GroupSNMP); err != nil {
		return r, fmt.Errorf("group %s does not exist: make install, or the package, creates it: %w", privsep.GroupSNMP, err)
	}
	if r.uid, err = parseID(u.Uid); err == nil {
		r.gid, err = parseID(u.Gid)
	}
	if err != nil || r.uid == 0 {
		return r, fmt.Errorf("user %s has uid %q and gid %q", privsep.User, u.Uid, u.Gid)
	}
	r.uids, r.gids = readSubRange(p.subuid), readSubRange(p.subgid)
	return r, nil
}

// vm is what the process of VM id runs as.
func (r *ids) vm(id uint32) (uid, gid uint32) {
	uid, gid = r.uid, r.gid
	if r.uids.size > 0 {
		uid = r.uids.base + id%r.uids.size
	}
	if r.gids.size > 0 {
		gid = r.gids.base + id%r.gids.size
	}
	return uid, gid
}

// ours reports whether a process of ours can run as uid.
func (r *ids) ours(uid uint32) bool {
	return uid == r.uid || uid == uint32(os.Geteuid()) || uid >= r.uids.base && uid-r.uids.base < r.uids.size
}

// subRange is a line of subuid(5).
type subRange struct{ base, size uint32 }

// readSubRange returns the range of _vmd in the file, which may be missing.
func readSubRange(file string) subRange {
	f, err := os.Open(file)
	if err != nil {
		return subRange{}
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		p := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(p) != 3 || p[0] != privsep.User {
			continue
		}
		base, err1 := strconv.ParseUint(p[1], 10, 32)
		size, err2 := strconv.ParseUint(p[2], 10, 32)
		if err1 == nil && err2 == nil && base > 0 && size > 0 && base+size <= 1<<32-1 {
			return subRange{uint32(base), uint32(size)}
		}
	}
	return subRange{}
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// groupCache answers which groups a user is in as the user database has it, as
// OpenBSD's vmd does, and reads that again only when it has changed. Those that
// the peer's process has are what the database had when it logged in.
type groupCache struct {
	stamp  [2]time.Time
	groups map[uint32][]uint32
}

// maxUsers is how many users are remembered: there are as many as control makes
// up, if it was taken over.
const maxUsers = 4096

// fill sets the groups of peer. A user that the database does not know has
// those that the kernel reported.
func (c *groupCache) fill(peer *vmop.Peer) {
	var stamp [2]time.Time
	for i, f := range []string{"/etc/passwd", "/etc/group"} {
		if st, err := os.Stat(f); err == nil {
			stamp[i] = st.ModTime()
		}
	}
	if c.groups == nil || c.stamp != stamp || len(c.groups) >= maxUsers {
		c.groups, c.stamp = map[uint32][]uint32{}, stamp
	}
	groups, ok := c.groups[peer.UID]
	if !ok {
		groups = groupsOf(peer.UID)
		c.groups[peer.UID] = groups
	}
	if groups != nil {
		peer.Groups = groups
	} else if !slices.Contains(peer.Groups, peer.GID) {
		peer.Groups = append(peer.Groups, peer.GID)
	}
}

func groupsOf(uid uint32) []uint32 {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return nil
	}
	names, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var groups []uint32
	for _, s := range names {
		if g, err := parseID(s); err == nil {
			groups = append(groups, g)
		}
	}
	return groups
}
