package vm

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/hv/machine"
	"vmd/internal/vmop"
)

func TestRingKeepsTheLastOfIt(t *testing.T) {
	r := newRing()
	r.Write(bytes.Repeat([]byte("a"), 10))
	r.Write(bytes.Repeat([]byte("b"), ringSize))
	r.Write([]byte("end"))
	pos := r.start(true)
	var got []byte
	p := make([]byte, 1000)
	for len(got) < ringSize {
		n, next, err := r.next(p, pos)
		if err != nil {
			t.Fatal(err)
		}
		got, pos = append(got, p[:n]...), next
	}
	if want := strings.Repeat("b", ringSize-3) + "end"; string(got) != want {
		t.Errorf("got %d bytes ending in %q, want %d ending in %q", len(got), got[len(got)-5:], ringSize, "bbend")
	}
	r.close()
	if _, _, err := r.next(p, pos); err != io.EOF {
		t.Errorf("after close: got %v, want %v", err, io.EOF)
	}
}

func TestRingSkipsWhatAReaderMissed(t *testing.T) {
	r := newRing()
	pos := r.start(false)
	r.Write(bytes.Repeat([]byte("x"), ringSize+5))
	n, next, err := r.next(make([]byte, 10), pos)
	if n != 10 || err != nil || next != 15 {
		t.Errorf("got %d bytes to position %d, %v; want 10 to 15", n, next, err)
	}
}

func TestRingWriteDoesNotAllocate(t *testing.T) {
	r := newRing()
	p := []byte("x")
	if n := testing.AllocsPerRun(1000, func() { r.Write(p) }); n != 0 {
		t.Errorf("%v allocations per byte", n)
	}
}

// viewer attaches to c and returns the far end.
func viewer(t *testing.T, c *console, readOnly, replay bool) *os.File {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { far.Close() })
	far.SetDeadline(time.Now().Add(20 * time.Second))
	c.attach(os.NewFile(uintptr(fds[0]), "near"), readOnly, replay)
	return far
}

func readN(t *testing.T, f *os.File, n int) string {
	t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(f, p); err != nil {
		t.Fatalf("got %q, %v", p, err)
	}
	return string(p)
}

func TestViewersSeeTheSameAndReplay(t *testing.T) {
	c := newConsole()
	c.out.Write([]byte("boot "))
	a := viewer(t, c, false, true)
	b := viewer(t, c, false, true)
	late := viewer(t, c, false, false)
	c.out.Write([]byte("login:"))
	for _, f := range []*os.File{a, b} {
		if got := readN(t, f, 11); got != "boot login:" {
			t.Errorf("got %q", got)
		}
	}
	if got := readN(t, late, 6); got != "login:" {
		t.Errorf("without replay: got %q", got)
	}
	select {
	case <-c.finish():
	case <-time.After(20 * time.Second):
		t.Fatal("viewers that have read everything hold up the end")
	}
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: got %v, want %v", err, io.EOF)
	}
}

func TestInputWaitsForTheGuest(t *testing.T) {
	c := newConsole()
	typed := make(chan byte, 100)
	full := false
	c.type_ = func(p []byte) int { // a FIFO of one byte
		if full = !full; !full {
			return 0
		}
		typed <- p[0]
		return 1
	}
	w := viewer(t, c, false, true)
	ro := viewer(t, c, true, true)
	ro.Write([]byte("no"))
	w.Write([]byte("yes"))
	var got []byte
	for len(got) < 3 {
		select {
		case b := <-typed:
			got = append(got, b)
		case <-time.After(20 * time.Second):
			t.Fatalf("got %q", got)
		default:
			c.ready()
		}
	}
	if string(got) != "yes" {
		t.Errorf("guest read %q, want %q", got, "yes")
	}
}

func TestTooManyViewers(t *testing.T) {
	c := newConsole()
	for range maxViewers {
		viewer(t, c, true, true)
	}
	if _, err := viewer(t, c, true, true).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one too many: got %v, want %v", err, io.EOF)
	}
}

// A guest that says nothing does not find out that a viewer has gone by
// writing to it; viewers piled up until there was no room.
func TestViewersOfASilentGuestGo(t *testing.T) {
	c := newConsole()
	c.type_ = func(p []byte) int { return len(p) }
	for i := range 3 * maxViewers {
		f := viewer(t, c, false, true)
		if i%2 == 0 { // as vmctl does at the end of its input
			raw, _ := f.SyscallConn()
			raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
		}
		f.Close()
	}
	last := viewer(t, c, true, true)
	c.out.Write([]byte("hello"))
	if got := readN(t, last, 5); got != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestWhatAnEndMeans(t *testing.T) {
	tests := []struct {
		cause machine.Cause
		s     shutdown
		want  vmop.EventKind
	}{
		{machine.PowerOff, shutdown{}, vmop.EventPoweroff},
		{machine.PowerOff, shutdown{asked: true}, vmop.EventPoweroff},
		{machine.Reset, shutdown{}, vmop.EventReset},
		{machine.Reset, shutdown{asked: true}, vmop.EventPoweroff},
		{machine.TripleFault, shutdown{}, vmop.EventReset},
		{machine.TripleFault, shutdown{asked: true}, vmop.EventPoweroff},
		{machine.Killed, shutdown{forced: true}, vmop.EventKilled},
		{machine.Killed, shutdown{went: true}, vmop.EventPoweroff},
		{machine.Killed, shutdown{went: true, forced: true}, vmop.EventKilled},
		{machine.Reset, shutdown{went: true}, vmop.EventReset},
		{machine.Error, shutdown{}, vmop.EventCrashed},
		{machine.Error, shutdown{asked: true}, vmop.EventCrashed},
	}
	for _, tt := range tests {
		if got := tt.s.result(tt.cause); got != tt.want {
			t.Errorf("%v, %+v: got %d, want %d", tt.cause, tt.s, got, tt.want)
		}
	}
}
