package virtiotest

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// patience bounds every wait of a test. It is never reached unless something is
// broken.
const patience = 20_000 // ms

// event is an eventfd that a test waits on.
type event struct {
	t   testing.TB
	fd  int
	pfd [1]unix.PollFd
	buf [8]byte
}

func newEvent(t testing.TB) event {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatalf("make an eventfd: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return event{t: t, fd: fd, pfd: [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}}
}

var one = [8]byte{1}

// ring is what KVM does for a doorbell. It does not allocate.
func ring(fd int) {
	for {
		if _, err := unix.Write(fd, one[:]); err != unix.EINTR {
			return
		}
	}
}

// wait returns when the event has happened since the last wait, and fails the
// test if it never does.
func (e *event) wait(what string) {
	for !e.poll(patience) {
		e.t.Fatalf("%s: nothing came", what)
	}
	_, _ = unix.Read(e.fd, e.buf[:]) // only takes back the count
}

// poll says whether the event happened within some milliseconds.
func (e *event) poll(ms int) bool {
	for {
		n, err := unix.Poll(e.pfd[:], ms)
		if err == unix.EINTR {
			continue
		}
		return n == 1
	}
}

// MSI is a message-signalled interrupt of a Host.
type MSI struct {
	event

	mu     sync.Mutex
	addr   uint64
	data   uint32
	routes int
}

// Route implements pci.MSI.
func (m *MSI) Route(addr uint64, data uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addr, m.data = addr, data
	m.routes++
	return nil
}

// Message is what was routed last, and how often that was done.
func (m *MSI) Message() (addr uint64, data uint32, routes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addr, m.data, m.routes
}

// FD implements pci.MSI.
func (m *MSI) FD() int { return m.fd }

// Signal implements pci.MSI.
func (m *MSI) Signal() { ring(m.fd) }

// Pending says whether a message has been sent that nobody has waited for.
func (m *MSI) Pending() bool { return m.poll(0) }

// Line is an interrupt line of a Host.
type Line struct {
	event

	mu   sync.Mutex
	high bool
}

// Set implements pci.Line. A rising edge is an event.
func (l *Line) Set(high bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if high && !l.high {
		ring(l.fd)
	}
	l.high = high
}

// High says whether the line is up.
func (l *Line) High() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.high
}
