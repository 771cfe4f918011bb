package cmd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/hv/state"
	"vmd/internal/vmop"
	"vmd/vmctl/client"
	"vmd/vmctl/client/clienttest"
)

// mover is a vmd that has the VM web, whose guest is a few bytes, and takes in
// what it gets.
type mover struct {
	t      *testing.T
	server *clienttest.Server
	said   chan string // words that came back to a Send, "" for the end
	stream chan []byte // what came with a Receive
	refuse string      // what a receiving vmd says instead of running a guest
	silent bool        // a receiving vmd says nothing in the end
}

func newMover(t *testing.T) *mover {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := clienttest.New(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	t.Setenv(client.SocketVar, path)
	m := &mover{t: t, server: s, said: make(chan string, 4), stream: make(chan []byte, 1)}
	s.Put(vmop.VM{ID: 3, Name: "web", State: vmop.Running, PID: 42, MemoryBytes: 8 << 20})
	s.OnStream(func(body any, c net.Conn) vmop.Result {
		if r, ok := body.(*vmop.ReceiveRequest); ok {
			return m.receive(r, c)
		}
		return m.send(c)
	})
	return m
}

var webGuest = vmop.Guest{Name: "web", UUID: [16]byte{1}, MemoryBytes: 8 << 20, CPUs: 1, Kernel: "/k"}

// ballast is what makes a stream longer than a pipe.
var ballast = bytes.Repeat([]byte("guest"), 40_000)

// send plays the side of vmd.
func (m *mover) send(c net.Conn) vmop.Result {
	w := state.NewWriter(c)
	w.Put(state.Definition, webGuest)
	w.Section(state.Console, ballast)
	w.Section(state.End, nil)
	failed := vmop.Result{Code: vmop.ErrSend, Detail: "it came to nothing", ID: 3, Name: "web"}
	if w.Flush() != nil || m.word(c) != vmop.WordLoaded {
		return failed
	}
	w.Section(state.Go, nil)
	if w.Flush() != nil || m.word(c) != vmop.WordRuns {
		return failed
	}
	return vmop.Result{ID: 3, Name: "web", Pause: uint64(42 * time.Millisecond)}
}

func (m *mover) word(c net.Conn) string {
	b := make([]byte, vmop.WordLen)
	if _, err := io.ReadFull(c, b); err != nil {
		b = nil
	}
	m.said <- string(b)
	return string(b)
}

func (m *mover) receive(q *vmop.ReceiveRequest, c net.Conn) vmop.Result {
	var got bytes.Buffer
	r := state.NewReader(io.TeeReader(c, &got))
	for {
		t, _, err := r.Next()
		switch {
		case err != nil:
			return vmop.Result{Code: vmop.ErrStream, Detail: err.Error()}
		case t == state.End:
			io.WriteString(c, vmop.WordLoaded)
		case t == state.Go && m.silent:
			return vmop.Result{Code: vmop.ErrHypervisor}
		case t == state.Go && m.refuse != "":
			io.WriteString(c, m.refuse)
			return vmop.Result{Code: vmop.ErrDiskLocked}
		case t == state.Go:
			m.stream <- got.Bytes()
			io.WriteString(c, vmop.WordRuns)
			return vmop.Result{ID: 9, Name: q.Name, TTY: "/dev/pts/9"}
		}
	}
}

// ran is a run of vmctl.
type ran struct {
	status int
	stderr string
}

// vmctl runs vmctl with files, as a shell does; it closes them.
func vmctl(in, out *os.File, args ...string) <-chan ran {
	done := make(chan ran, 1)
	go func() {
		var errw bytes.Buffer
		r := ran{status: Main(args, in, out, &errw)}
		r.stderr = errw.String()
		in.Close()
		out.Close()
		done <- r
	}()
	return done
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func (m *mover) want(r ran, status int, text ...string) {
	m.t.Helper()
	for _, s := range text {
		if !strings.Contains(r.stderr, s) {
			m.t.Errorf("said %q, want %q in it", r.stderr, s)
		}
	}
	if r.status != status {
		m.t.Errorf("status %d, want %d; it said %q", r.status, status, r.stderr)
	}
}

func (m *mover) words(want ...string) {
	m.t.Helper()
	for _, w := range want {
		if got := <-m.said; got != w {
			m.t.Errorf("vmd heard %q, want %q", got, w)
		}
	}
}

func null(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSendThroughPipe(t *testing.T) {
	m := newMover(t)
	r, w := pipe(t)
	sent := vmctl(null(t), w, "send", "web")
	received := vmctl(r, null(t), "receive", "copy")
	m.want(<-sent, 0, "vmctl: sent vm web successfully, 0 MiB in ", " s, guest paused for 42 ms\n")
	m.want(<-received, 0, "vmctl: started vm 9 successfully, tty /dev/pts/9\n")
	m.words(vmop.WordLoaded, vmop.WordRuns)
	if got := <-m.stream; !bytes.Contains(got, ballast) {
		t.Error("the stream was changed on its way")
	}
	var asked *vmop.ReceiveRequest
	for _, q := range m.server.Requests() {
		if b, ok := q.Body.(*vmop.ReceiveRequest); ok {
			asked = b
		}
	}
	if asked == nil || asked.Name != "copy" || asked.Guest.UUID != webGuest.UUID || asked.Guest.Kernel != "/k" {
		t.Errorf("asked for %+v", asked)
	}
}

func TestSendToFile(t *testing.T) {
	m := newMover(t)
	path := filepath.Join(t.TempDir(), "web.vm")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	m.want(<-vmctl(null(t), f, "send", "web"), 0, "sent vm web successfully")
	m.words(vmop.WordLoaded, vmop.WordRuns)
	if f, err = os.Open(path); err != nil {
		t.Fatal(err)
	}
	m.want(<-vmctl(f, null(t), "receive", "web"), 0, "started vm 9")
}

func TestSendConfirmed(t *testing.T) {
	m := newMover(t)
	r, w := pipe(t)
	back, forth := pipe(t)
	sent := vmctl(back, w, "send", "--confirm", "web")
	received := vmctl(r, forth, "receive", "--confirm", "web")
	m.want(<-sent, 0, "sent vm web successfully")
	m.want(<-received, 0, "started vm 9")
	m.words(vmop.WordLoaded, vmop.WordRuns)
}

// The receiver cannot run the guest after all: the sender hears of it.
func TestSendConfirmedRefused(t *testing.T) {
	m := newMover(t)
	m.refuse = vmop.WordFailed
	r, w := pipe(t)
	back, forth := pipe(t)
	sent := vmctl(back, w, "send", "--confirm", "web")
	received := vmctl(r, forth, "receive", "--confirm", "web")
	m.want(<-sent, 1, "send vm command failed: ", "vmctl: vm web is running here\n")
	m.want(<-received, 1, "could not open disk image(s)")
	m.words(vmop.WordLoaded, vmop.WordFailed)
}

// The receiver has Go and says nothing: nobody knows, and vmd is not told
// otherwise.
func TestSendConfirmedSilence(t *testing.T) {
	m := newMover(t)
	m.silent = true
	r, w := pipe(t)
	back, forth := pipe(t)
	sent := vmctl(back, w, "send", "--confirm", "web")
	received := vmctl(r, forth, "receive", "--confirm", "web")
	m.want(<-sent, 1, "send vm command failed: the receiver ended without a word")
	m.want(<-received, 1)
	m.words(vmop.WordLoaded, "")
}

// What comes back is not from a vmctl: a shell's greeting, for one.
func TestSendConfirmedGarbage(t *testing.T) {
	m := newMover(t)
	r, w := pipe(t)
	back, forth := pipe(t)
	go io.Copy(io.Discard, r)
	io.WriteString(forth, "Last login: today\n")
	m.want(<-vmctl(back, w, "send", "--confirm", "web"), 1, `says "Last log", which is no confirmation`)
	m.words(vmop.WordFailed)
}

// A reader that ends early has not got the guest.
func TestSendReaderGone(t *testing.T) {
	for _, n := range []int64{0, 100, 100_000, int64(len(ballast)) + 50} {
		m := newMover(t)
		r, w := pipe(t)
		sent := vmctl(null(t), w, "send", "web")
		io.CopyN(io.Discard, r, n)
		r.Close()
		m.want(<-sent, 1, "send vm command failed: ", "roken pipe", "vmctl: vm web is running here\n")
		if len(m.said) > 0 {
			m.words(vmop.WordFailed)
		}
	}
}

// The reader has everything but the last word.
func TestSendReaderGoneAtTheEnd(t *testing.T) {
	m := newMover(t)
	r, w := pipe(t)
	sent := vmctl(null(t), w, "send", "web")
	rd := state.NewReader(oneByte{r})
	for tag := state.Tag(0); tag != state.End; {
		var err error
		if tag, _, err = rd.Next(); err != nil {
			t.Fatal(err)
		}
	}
	m.words(vmop.WordLoaded)
	r.Close()
	m.want(<-sent, 1, "roken pipe")
	m.words(vmop.WordFailed)
}

// oneByte reads no further than it has to.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

func TestSendRefusals(t *testing.T) {
	for _, c := range []struct {
		code vmop.Code
		want string
	}{
		{vmop.ErrPermission, "vmctl: send vm command failed: Operation not permitted\n"},
		{vmop.ErrNotRunning, "vmctl: send vm command failed: No such file or directory\n"},
		{vmop.ErrNotFound, "vmctl: send vm command failed: No such file or directory\n"},
	} {
		m := newMover(t)
		m.server.Answer(vmop.Send, vmop.Result{Code: c.code})
		m.want(<-vmctl(null(t), file(t), "send", "web"), 1, c.want)
	}
	m := newMover(t)
	m.server.Silent(vmop.Send)
	m.want(<-vmctl(null(t), file(t), "send", "web"), 1, "vmctl: pipe closed\nvmctl: "+goneHint+"\n")
}

// What goes to /dev/null is lost, and so would be the guest.
func TestSendNowhere(t *testing.T) {
	m := newMover(t)
	m.want(<-vmctl(null(t), null(t), "send", "web"), 1, "vmctl: a VM cannot be kept on a device")
	if asked := m.server.Requests(); len(asked) > 0 {
		t.Errorf("vmd was asked %v", asked)
	}
}

func file(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// FuzzReadGuest: whatever comes, it is a guest or a message.
func FuzzReadGuest(f *testing.F) {
	var b bytes.Buffer
	w := state.NewWriter(&b)
	w.Put(state.Definition, webGuest)
	w.Flush()
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:20])
	f.Add([]byte("vmdstate"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := readGuest(bytes.NewReader(in)); err != nil && err.Error() == "" {
			t.Error("an error without a word")
		}
	})
}

func TestMoveArguments(t *testing.T) {
	m := newMover(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"send"}, "usage:\tvmctl [-v] send [--confirm] [--with-disks] [--max-pause ms] id\n"},
		{[]string{"send", "-x"}, "vmctl: invalid id: -x\n"},
		{[]string{"send", "--max-pause", "0", "web"}, "vmctl: invalid pause: 0\n"},
		{[]string{"send", "--max-pause", "soon", "web"}, "vmctl: invalid pause: soon\n"},
		{[]string{"receive"}, "usage:\tvmctl [-v] receive [--confirm] [-d path] name\n"},
		{[]string{"receive", "7"}, "vmctl: invalid vm name\nvmctl: invalid id: 7\n"},
		{[]string{"receive", "a b"}, "vmctl: invalid VM name\n"},
		{[]string{"receive", "web"}, "vmctl: the input ends before there is a VM\n"},
		{[]string{"receive", "-d", "/no/where/x", "web"}, "vmctl: invalid disk path: /no/where/x: No such file or directory\n"},
	} {
		m.want(<-vmctl(null(t), null(t), c.args...), 1, c.want)
	}
	if asked := m.server.Requests(); len(asked) > 0 {
		t.Errorf("vmd was asked %v", asked)
	}
}

func TestReceiveWhatIsNoVM(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"#!/bin/sh\necho hello, world\n", "vmctl: the input is no VM: "},
		{"vmdstate\x09\x00\x00\x00", "vmctl: the stream is from another release: "},
		{"vmdstate\x01\x00\x00\x00\x01", "vmctl: the input ends before there is a VM"},
	} {
		m := newMover(t)
		r, w := pipe(t)
		io.WriteString(w, c.in)
		w.Close()
		m.want(<-vmctl(r, null(t), "receive", "web"), 1, c.want)
	}
}

// The paths of disks are made absolute; their directories exist, they need not.
func TestReceivePaths(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	got, err := receivePaths([]string{"a.img", filepath.Join(dir, "link", "b.img")})
	if err != nil || len(got) != 2 || got[0] != filepath.Join(dir, "a.img") || got[1] != filepath.Join(dir, "b.img") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDrainedFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, w := range []io.Writer{f, null(t), io.Discard} {
		if err := drained(w, true); err != nil && !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%T: %v", w, err)
		}
	}
}

// TestDrained: whether the reader has got everything, as far as its end of a pipe
// or a socket tells.
func TestDrained(t *testing.T) {
	socket := func(t *testing.T) (r, w *os.File) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		r, w = os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	for kind, open := range map[string]func(*testing.T) (r, w *os.File){"pipe": pipe, "socket": socket} {
		for _, c := range []struct {
			name string
			read int // of 10 bytes
			gone bool
			more bool
			want error
		}{
			{"read", 10, false, true, nil},
			{"read, and gone", 10, true, false, nil},
			{"read, and gone too early", 10, true, true, unix.EPIPE},
			{"gone without having read", 0, true, false, unix.EPIPE},
			{"gone in the middle", 5, true, false, unix.EPIPE},
		} {
			t.Run(kind+"/"+c.name, func(t *testing.T) {
				r, w := open(t)
				if _, err := w.Write(make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(r, make([]byte, c.read)); err != nil {
					t.Fatal(err)
				}
				if c.gone {
					r.Close()
				}
				if err := drained(w, c.more); err != c.want {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		}
	}
	// It waits for a slow one.
	r, w := pipe(t)
	w.Write([]byte("x"))
	time.AfterFunc(5*drainPause, func() { r.Read(make([]byte, 1)) })
	if err := drained(w, true); err != nil {
		t.Error(err)
	}
}

func TestWithRate(t *testing.T) {
	if got := withRate("[#]", 64<<20, 2*time.Second); got != "[#], 32.0M/s" {
		t.Errorf("got %q", got)
	}
	if got := withRate("[#]", 1, 0); got != "[#]" {
		t.Errorf("got %q", got)
	}
}
