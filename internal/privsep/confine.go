package privsep

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"vmd/internal/sandbox"
)

// envUnconfined makes Confine do nothing.
const envUnconfined = "VMD_UNCONFINED"

// CheckBuild fails in a program whose processes could not confine themselves.
func CheckBuild() error {
	if usesCgo {
		return errors.New("vmd was built with cgo; build it with CGO_ENABLED=0")
	}
	return nil
}

// Confine gives up everything that the role's entry in Roles does not name, in
// all threads and for good: file system, limits, user, capabilities, system
// calls. After an error the process must end.
func (p *Process) Confine() error {
	if os.Getenv(envUnconfined) != "" {
		return nil
	}
	if err := CheckBuild(); err != nil {
		return fmt.Errorf("confine %s: %w", p.Name, err)
	}
	uid, gid, err := p.ids()
	if err != nil {
		return err
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"change the root directory", func() error { return changeRoot(p.Role.Root) }},
		{"set limits", func() error { return setLimits(p.Role) }},
		{"change user", func() error { return changeUser(uid, gid, p.Role.Caps) }},
		{"renounce new privileges", renounce},
		{"install the system call filter", func() error { return sandbox.Apply(p.Role.Promises...) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("confine %s: %s: %w", p.Name, s.what, err)
		}
	}
	return nil
}

func (p *Process) ids() (uid, gid int, err error) {
	if p.UID != 0 {
		return int(p.UID), int(p.GID), nil
	}
	u, err := user.Lookup(User)
	if err != nil {
		return 0, 0, fmt.Errorf("confine %s: user %s: %w", p.Name, User, err)
	}
	group := u.Gid
	if p.Role.Group != "" {
		g, err := user.LookupGroup(p.Role.Group)
		if err != nil {
			return 0, 0, fmt.Errorf("confine %s: group %s: %w", p.Name, p.Role.Group, err)
		}
		group = g.Gid
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(group)
	if err := errors.Join(err1, err2); err != nil || uid == 0 {
		return 0, 0, fmt.Errorf("confine %s: user %s has uid %q and gid %q", p.Name, User, u.Uid, group)
	}
	return uid, gid, nil
}

func setLimits(r Role) error {
	limit := func(what int, n uint64) error {
		var l unix.Rlimit
		if err := unix.Prlimit(0, what, nil, &l); err != nil {
			return err
		}
		n = min(n, l.Max)
		return unix.Prlimit(0, what, &unix.Rlimit{Cur: n, Max: n}, nil)
	}
	// No core: a VM process's holds the guest's memory.
	if err := limit(unix.RLIMIT_CORE, 0); err != nil {
		return err
	}
	if r.Files != 0 {
		if err := limit(unix.RLIMIT_NOFILE, r.Files); err != nil {
			return err
		}
	}
	if r.Locked != 0 {
		return limit(unix.RLIMIT_MEMLOCK, r.Locked)
	}
	return nil
}

// changeUser leaves the process with uid, gid, no supplementary groups and
// nothing but caps. Order matters: the bounding set and the ids need
// capabilities that go last.
func changeUser(uid, gid int, caps []cap.Value) error {
	keep := make(map[cap.Value]bool, len(caps))
	for _, c := range caps {
		keep[c] = true
	}
	var drop []cap.Value
	for c := cap.Value(0); c < cap.MaxBits(); c++ {
		if !keep[c] {
			drop = append(drop, c)
		}
	}
	if err := cap.DropBound(drop...); err != nil {
		return fmt.Errorf("bounding set: %w", err)
	}
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("ambient set: %w", err)
	}
	if err := setThreads(unix.PR_SET_KEEPCAPS, 1); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("gid %d: %w", gid, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("uid %d: %w", uid, err)
	}
	return keepCaps(caps)
}

// keepCaps makes caps all that the process has: permitted, effective, and
// inheritable for what it spawns.
func keepCaps(caps []cap.Value) error {
	set := cap.NewSet()
	if len(caps) > 0 {
		for _, f := range []cap.Flag{cap.Permitted, cap.Effective, cap.Inheritable} {
			if err := set.SetFlag(f, true, caps...); err != nil {
				return err
			}
		}
	}
	if err := set.SetProc(); err != nil {
		return fmt.Errorf("capabilities %s: %w", capNames(caps), err)
	}
	return nil
}

// renounce makes sure that no program this process could run brings privileges
// back, and that no other process may look into it.
func renounce() error {
	if err := setThreads(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// setThreads sets a prctl option that each thread has for itself.
func setThreads(option, value uintptr) error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, option, value, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
