package cmd

import (
	"io"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is the person's terminal. The methods of a nil one do nothing.
type terminal struct {
	fd int

	mu    sync.Mutex
	saved *term.State // how it was; nil unless it is raw
}

// openTerminal returns in as a terminal, or nil if it is none.
func openTerminal(in io.Reader) (*terminal, error) {
	f, ok := in.(*os.File)
	if !ok {
		return nil, nil
	}
	// Not f.Fd: it would make reads uninterruptible for good.
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if err := raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		return nil, err
	}
	if !term.IsTerminal(fd) {
		return nil, nil
	}
	return &terminal{fd: fd}, nil
}

// raw makes the terminal pass every key on.
func (t *terminal) raw() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		return nil
	}
	var err error
	t.saved, err = term.MakeRaw(t.fd)
	return err
}

// again makes the terminal raw once more if it should be.
func (t *terminal) again() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		term.MakeRaw(t.fd)
	}
}

// restore makes the terminal what it was before raw.
func (t *terminal) restore() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		term.Restore(t.fd, t.saved)
		t.saved = nil
	}
}

// suspend gives the terminal back to the shell until the shell continues us.
func (t *terminal) suspend() {
	if t == nil {
		return
	}
	t.restore()
	// The signal has stopped this thread, and with it the process, before the
	// system call returns; sent to the process it could reach another thread
	// after we have made the terminal raw again.
	runtime.LockOSThread()
	unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGTSTP)
	runtime.UnlockOSThread()
	t.raw()
}
