package testenv

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of a test's own.
type Namespace struct {
	f *os.File
}

// NetNS needs namespaces (T1). It moves the test into a fresh network
// namespace with its loopback interface up, for as long as the test lives.
//
// A namespace belongs to a thread: the goroutine of t is locked to its own,
// which ends with the goroutine, so nothing has to be put back. Programs that
// the test starts and sockets that it opens are in the namespace. Other
// goroutines and subtests are not: they call Namespace.Do, or a subtest calls
// NetNS itself.
func NetNS(t testing.TB) *Namespace {
	t.Helper()
	Root(t)
	runtime.LockOSThread() // never unlocked: see above
	ns, err := newNamespace()
	if err != nil {
		missing(t, []string{"T1"}, "needs network namespaces: %v", err)
	}
	t.Cleanup(func() { ns.f.Close() })
	return ns
}

// NewNamespace needs namespaces (T1) and returns a fresh one, loopback up,
// without moving the test: a second machine on the network, used through Do.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	Root(t)
	var ns *Namespace
	err := onThread(func() (err error) {
		ns, err = newNamespace()
		return err
	})
	if err != nil {
		missing(t, []string{"T1"}, "needs network namespaces: %v", err)
	}
	t.Cleanup(func() { ns.f.Close() })
	return ns
}

// Do runs f in the namespace, on a thread of its own, and waits for it. It
// can be called from any goroutine. f must not call t.FailNow or t.Skip.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends afterwards, because f leaves it in
// another namespace, or another user's.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// newNamespace moves the calling thread into a new namespace.
func newNamespace() (*Namespace, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("unshare network: %w", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return nil, err
	}
	if err := loopbackUp(); err != nil {
		f.Close()
		return nil, err
	}
	return &Namespace{f: f}, nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket to set lo up: %w", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
