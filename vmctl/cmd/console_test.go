package cmd

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
	"vmd/vmctl/client/clienttest"
)

// desk is a person at a terminal who runs vmctl console.
type desk struct {
	t      *testing.T
	vmd    *clienttest.Server
	keys   *os.File // the person's side of the terminal
	tty    *os.File
	before *term.State

	guest  chan net.Conn // the VM's side, once connected
	status chan int
	screen *screen
}

// screen collects what the terminal shows.
type screen struct {
	mu   sync.Mutex
	text []byte
	more *sync.Cond
	end  bool
}

func (s *screen) read(r io.Reader) {
	buf := make([]byte, 1024)
	for {
		n, err := r.Read(buf)
		s.mu.Lock()
		s.text = append(s.text, buf[:n]...)
		s.end = err != nil
		s.more.Broadcast()
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// wait returns when the screen has shown want.
func (s *screen) wait(t *testing.T, want string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !bytes.Contains(s.text, []byte(want)) {
		if s.end {
			t.Fatalf("the terminal showed %q, want %q", s.text, want)
		}
		s.more.Wait()
	}
}

func newDesk(t *testing.T, args ...string) *desk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	t.Setenv(client.SocketVar, path)
	vmd, err := clienttest.New(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vmd.Close)
	vmd.Put(vmop.VM{ID: 1, Name: "web", State: vmop.Running, PID: 5, TTY: "/dev/pts/9", Persistent: true})
	d := &desk{t: t, vmd: vmd, guest: make(chan net.Conn, 1), status: make(chan int, 1), screen: &screen{}}
	d.screen.more = sync.NewCond(&d.screen.mu)
	vmd.OnConsole(func(_ vmop.VM, c net.Conn) { d.guest <- c })
	if d.keys, d.tty, err = pty.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.keys.Close(); d.tty.Close() })
	if d.before, err = term.GetState(int(d.tty.Fd())); err != nil {
		t.Fatal(err)
	}
	go d.screen.read(d.keys)
	go func() { d.status <- Main(append([]string{"console"}, args...), d.tty, d.tty, d.tty) }()
	d.screen.wait(t, "Connected to /dev/pts/9 (speed 115200)\r\n")
	return d
}

func (d *desk) vm() net.Conn {
	d.t.Helper()
	c := <-d.guest
	d.t.Cleanup(func() { c.Close() })
	return c
}

func (d *desk) typed(keys string) {
	d.t.Helper()
	if _, err := d.keys.WriteString(keys); err != nil {
		d.t.Fatal(err)
	}
}

// ended checks vmctl's exit status and that the terminal is as it was.
func (d *desk) ended(last string) {
	d.t.Helper()
	if st := <-d.status; st != 0 {
		d.t.Errorf("exit status %d, want 0", st)
	}
	d.screen.wait(d.t, last)
	after, err := term.GetState(int(d.tty.Fd()))
	if err != nil {
		d.t.Fatal(err)
	}
	if *after != *d.before {
		d.t.Errorf("the terminal is %+v, was %+v", after, d.before)
	}
}

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Errorf("the guest received %q, %v; want %q", b, err, want)
	}
}

const eot = "\r\n[EOT]\r\n" // the newline after [EOT] is a cooked terminal's

func TestConsoleTalks(t *testing.T) {
	d := newDesk(t, "web")
	guest := d.vm()
	io.WriteString(guest, "login: ")
	d.screen.wait(t, "login: ")
	d.typed("root\r\x03") // ^C is the guest's
	wantRead(t, guest, "root\r\x03")
	d.typed("\r~.")
	d.ended(eot)
}

func TestConsoleEndsWithTheVM(t *testing.T) {
	d := newDesk(t, "web")
	d.vm()
	d.vmd.Stopped("web")
	d.ended(eot)
}

func TestConsoleHelpAndTilde(t *testing.T) {
	d := newDesk(t, "web")
	guest := d.vm()
	d.typed("~?")
	d.screen.wait(t, "~#   send a BREAK\r\n")
	d.typed("~~x")
	wantRead(t, guest, "~x")
	d.typed("\r~\x04")
	d.ended(eot)
}

func TestConsoleBreak(t *testing.T) {
	d := newDesk(t, "web")
	d.vm()
	d.typed("~#")
	d.vmd.Await(vmop.Break)
	d.vmd.Answer(vmop.Break, vmop.Result{Code: vmop.ErrPermission})
	d.typed("~#")
	d.screen.wait(t, "\r\n[BREAK: Operation not permitted]\r\n")
	d.typed("~.")
	d.ended(eot)
}

// The session outlives vmd: only BREAK needs it.
func TestConsoleOutlivesDaemon(t *testing.T) {
	d := newDesk(t, "web")
	guest := d.vm()
	d.vmd.Hangup()
	d.typed("x")
	wantRead(t, guest, "x")
	d.typed("\r~.")
	d.ended(eot)
}

// A guest that resets gets another process; the session goes on with that one.
func TestConsoleOutlivesReset(t *testing.T) {
	d := newDesk(t, "web")
	d.vm()
	for _, boot := range []string{"first boot\r\n", "second boot\r\n"} {
		d.vmd.Reset("web")
		guest := d.vm()
		d.screen.wait(t, "\r\n[connected again]\r\n")
		io.WriteString(guest, boot) // once it is shown, what is typed goes there
		d.screen.wait(t, boot)
		d.typed("x")
		wantRead(t, guest, "x")
	}
	d.vmd.Stopped("web")
	d.ended(eot)
}

// Between two processes somebody can still leave.
func TestConsoleLeavesBetweenProcesses(t *testing.T) {
	d := newDesk(t, "web")
	guest := d.vm()
	d.vmd.Put(vmop.VM{ID: 1, Name: "web", State: vmop.Starting})
	guest.Close()
	d.typed("lost\r~.")
	d.ended(eot)
}

// However long a VM takes to start again: vmd knows how that ends.
func TestConsoleWaitsForAStart(t *testing.T) {
	d := newDesk(t, "web")
	d.vm()
	d.vmd.Put(vmop.VM{ID: 1, Name: "web", State: vmop.Starting})
	r := reopening{t: &tool{}, vm: vmop.Ref{ID: 1}, begun: time.Now().Add(-time.Hour)}
	if conn, again := r.try(t.Context()); conn != nil || !again {
		t.Errorf("got %v, %v", conn, again)
	}
	d.typed("~.")
	d.ended(eot)
}

// What comes through a pipe is not lost between two processes.
func TestLineKeepsWrites(t *testing.T) {
	a, b := net.Pipe()
	c, d := net.Pipe()
	next := make(chan net.Conn, 2)
	l := newLine(hungUpConn{a}, false, func() net.Conn { return <-next })
	b.Close()
	go io.Copy(io.Discard, l) // notices the end and waits for the next
	wrote := make(chan error)
	go func() { _, err := l.Write([]byte("uname\n")); wrote <- err }()
	next <- c
	wantRead(t, d, "uname\n")
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	next <- nil
	d.Close()
	if _, err := l.Write([]byte("x")); err == nil {
		t.Error("written to a VM that has stopped")
	}
}

// hungUpConn says what a socket does that has lost its peer.
type hungUpConn struct{ net.Conn }

func (c hungUpConn) Write(b []byte) (int, error) { return 0, unix.EPIPE }

func TestConsoleReadOnly(t *testing.T) {
	d := newDesk(t, "-r", "web")
	guest := d.vm()
	d.typed("rm -rf /\r~?")
	d.screen.wait(t, "~?   this list\r\n")
	io.WriteString(guest, "still here")
	d.screen.wait(t, "still here")
	d.typed("~.")
	d.ended(eot)
	if b, err := io.ReadAll(guest); len(b) != 0 || err != nil {
		t.Errorf("the guest received %q, %v", b, err)
	}
}

func TestConsoleTerminalIsRaw(t *testing.T) {
	d := newDesk(t, "web")
	guest := d.vm()
	d.typed("x")
	wantRead(t, guest, "x") // without a return: it is raw by now
	tio, err := unix.IoctlGetTermios(int(d.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if tio.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Errorf("local flags %#x: not raw", tio.Lflag)
	}
	d.typed("\r~.")
	d.ended(eot)
}

// To be continued changes nothing; to be terminated ends vmctl in order.
func TestConsoleSignal(t *testing.T) {
	d := newDesk(t, "web")
	guest := d.vm()
	d.typed("x")
	wantRead(t, guest, "x") // the session runs
	if err := unix.Kill(unix.Getpid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	d.typed("y")
	wantRead(t, guest, "y")
	if err := unix.Kill(unix.Getpid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.ended("\r\n[SIGTERM]\r\n")
}

// A guest that reads nothing does not keep its user from leaving.
func TestConsoleStuckGuest(t *testing.T) {
	a, b := net.Pipe() // writes wait for a reader
	defer b.Close()
	s := &session{guest: deadlineNow{a}, tty: &terminal{}}
	if !s.send([]byte("x")) {
		t.Error("the session ended")
	}
}

// deadlineNow is a connection on which no patience is long enough.
type deadlineNow struct{ net.Conn }

func (c deadlineNow) SetWriteDeadline(time.Time) error {
	return c.Conn.SetWriteDeadline(time.Unix(1, 0))
}

// A bug in the session is an error with the terminal restored, not a crash.
func TestConsolePanicRestoresTerminal(t *testing.T) {
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer tty.Close()
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer b.Close()
	person, err := openTerminal(tty)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{guest: panics{a}, in: tty, tty: person, out: io.Discard, linger: time.Hour}
	if err := s.run("hello"); err == nil || !strings.Contains(err.Error(), "internal error: on purpose") {
		t.Errorf("error %v", err)
	}
	after, err := term.GetState(int(tty.Fd()))
	if err != nil || *after != *before {
		t.Errorf("the terminal is %+v, %v; was %+v", after, err, before)
	}
}

type panics struct{ net.Conn }

func (panics) Read([]byte) (int, error) { panic("on purpose") }
