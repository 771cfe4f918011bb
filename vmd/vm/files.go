package vm

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
)

// files are the descriptors that a VM process was given, by name
// (vmop.VMStartRequest.Files).
type files map[string]*os.File

// takeFiles takes over the descriptors of m, which names lists in order.
func takeFiles(m *imsg.Msg, names []string) (files, error) {
	if len(names) != len(m.Files) {
		return nil, fmt.Errorf("receive the VM's descriptors: %d came, %d are named", len(m.Files), len(names))
	}
	fs := files{}
	for i, n := range names {
		if fs[n] != nil {
			return nil, fmt.Errorf("receive the VM's descriptors: two are called %q", n)
		}
		fs[n] = m.TakeFile(i)
	}
	return fs, nil
}

// take hands over the descriptor called name; nil if there is none.
func (fs files) take(name string) *os.File {
	f := fs[name]
	delete(fs, name)
	return f
}

// need is take for a descriptor that must be there.
func (fs files) need(name string) (*os.File, error) {
	if f := fs.take(name); f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("descriptor %q: not given", name)
}

// dup returns a copy of a descriptor that stays.
func (fs files) dup(name string) (*os.File, error) {
	f := fs[name]
	if f == nil {
		return nil, nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor %q: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// detach returns f's descriptor as a number that f no longer closes.
func detach(f *os.File) int {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// pollable returns f such that reading and writing wait in the runtime's
// poller and not in a thread. f itself is closed.
func pollable(f *os.File) (*os.File, error) {
	fd := detach(f)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("descriptor %q: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
