package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// FS is where Load finds files. Names are as written, relative ones as the
// process finds them.
type FS interface {
	Open(name string) (io.ReadCloser, error)
	Stat(name string) (fs.FileInfo, error)
	// Realpath returns the absolute path of an existing file, with symbolic
	// links resolved.
	Realpath(name string) (string, error)
}

// ErrUnknown is what Users return for a name that is in no database.
var ErrUnknown = errors.New("unknown")

// Users is where Load looks up owners.
type Users interface {
	User(name string) (uid uint32, err error)
	Group(name string) (gid uint32, err error)
}

// hostFS is the file system of the process.
type hostFS struct{}

// Open does not wait for the writer of a FIFO.
func (hostFS) Open(name string) (io.ReadCloser, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func (hostFS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (hostFS) Realpath(name string) (string, error) { return Realpath(name) }

// hostUsers is /etc/passwd and /etc/group: a static binary has no NSS.
type hostUsers struct{}

func (hostUsers) User(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		return 0, ErrUnknown
	}
	if err != nil {
		return 0, err
	}
	return parseID(u.Uid)
}

func (hostUsers) Group(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if errors.As(err, new(user.UnknownGroupError)) {
		return 0, ErrUnknown
	}
	if err != nil {
		return 0, err
	}
	return parseID(g.Gid)
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// cachedUsers asks for each name once: a file may name the same owner ten
// thousand times.
type cachedUsers struct {
	users         Users
	byUser, byGrp map[string]idResult
}

type idResult struct {
	id  uint32
	err error
}

func newCachedUsers(u Users) *cachedUsers {
	return &cachedUsers{users: u, byUser: map[string]idResult{}, byGrp: map[string]idResult{}}
}

func (c *cachedUsers) User(name string) (uint32, error) {
	return cached(c.byUser, name, c.users.User)
}

func (c *cachedUsers) Group(name string) (uint32, error) {
	return cached(c.byGrp, name, c.users.Group)
}

func cached(m map[string]idResult, name string, ask func(string) (uint32, error)) (uint32, error) {
	r, ok := m[name]
	if !ok {
		r.id, r.err = ask(name)
		m[name] = r
	}
	return r.id, r.err
}
