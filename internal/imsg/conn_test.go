package imsg

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns two connections that are closed when the test ends.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fa, fb, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = New(fa); err != nil {
		t.Fatal(err)
	}
	if b, err = New(fb); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// rawPair returns a connection and the bare socket at its other end.
func rawPair(t *testing.T) (c *Conn, fd int) {
	t.Helper()
	fa, fb, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if c, err = New(fa); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); fb.Close() })
	return c, int(fb.Fd())
}

// pipeEnd returns the reading end of a pipe that reads io.EOF as soon as no
// copy of w is open any more.
func pipeEnd(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func wantEOF(t *testing.T, r *os.File) {
	t.Helper()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v; want EOF: a copy of the descriptor is still open", n, err)
	}
}

var header = []byte{1, 0, 7, 0, 1, 0, 0, 0, 0, 0, 0, 0}

func TestSendRecv(t *testing.T) {
	a, b := pair(t)
	r, w := pipeEnd(t)
	if err := a.Send(7, 9, outer{N: 5}, w); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(8, 10, nil); err != nil {
		t.Fatal(err)
	}
	m, err := b.Recv()
	if err != nil || m.Type != 7 || m.ID != 9 || len(m.Files) != 1 {
		t.Fatalf("received %+v, %v", m, err)
	}
	var v outer
	if err := Unmarshal(m.Payload, &v); err != nil || v.N != 5 {
		t.Errorf("payload %+v, %v", v, err)
	}
	got := m.TakeFile(0)
	m.Close()
	if _, err := got.Write([]byte("x")); err != nil {
		t.Errorf("the descriptor that was taken: %v", err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	got.Close()
	wantEOF(t, r)
	if m, err = b.Recv(); err != nil || m.Type != 8 || m.ID != 10 || len(m.Payload) != 0 {
		t.Errorf("received %+v, %v", m, err)
	}
}

func TestSentDescriptorIsCloseOnExec(t *testing.T) {
	a, b := pair(t)
	_, w := pipeEnd(t)
	if err := a.Send(1, 1, nil, w); err != nil {
		t.Fatal(err)
	}
	m, err := b.Recv()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	fd, err := descriptor(m.Files[0])
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v; want FD_CLOEXEC", flags, err)
	}
}

func TestUnclaimedDescriptorsAreClosed(t *testing.T) {
	a, b := pair(t)
	r, w := pipeEnd(t)
	if err := a.Send(1, 1, nil, w); err != nil {
		t.Fatal(err)
	}
	m, err := b.Recv()
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	wantEOF(t, r)
}

// What is not a message is refused, and its descriptors do not stay behind.
func TestRecvRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		packet []byte
		files  int
		want   error
	}{
		"garbage":              {[]byte("GET / HTTP/1.0\r\n\r\n"), 1, ErrFormat},
		"half a header":        {header[:5], 1, ErrFormat},
		"empty, a descriptor":  {nil, 1, io.EOF},
		"payload too long":     {append(bytes.Clone(header), make([]byte, MaxPayload+1)...), 1, ErrFormat},
		"too many descriptors": {header, MaxFiles + 1, ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			c, fd := rawPair(t)
			r, w := pipeEnd(t)
			fds := make([]int, tt.files)
			for i := range fds {
				fds[i] = int(w.Fd())
			}
			oob := unix.UnixRights(fds...)
			send := func() error { return unix.Sendmsg(fd, tt.packet, oob, nil, 0) }
			if len(tt.packet) == 0 {
				send = func() error { return sendEmpty(fd, oob) }
			}
			if err := send(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if m, err := c.Recv(); !errors.Is(err, tt.want) {
				t.Fatalf("received %+v, %v; want %v", m, err, tt.want)
			}
			wantEOF(t, r)
		})
	}
}

func TestRecvLargest(t *testing.T) {
	c, fd := rawPair(t)
	if err := unix.Sendmsg(fd, append(bytes.Clone(header), make([]byte, MaxPayload)...), nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Recv(); err != nil || len(m.Payload) != MaxPayload {
		t.Errorf("%d bytes, %v; want %d", len(m.Payload), err, MaxPayload)
	}
}

func TestPayloadIsCallersToKeep(t *testing.T) {
	a, b := pair(t)
	for _, n := range []uint32{1, 2} {
		if err := a.Send(1, 1, outer{N: n}); err != nil {
			t.Fatal(err)
		}
	}
	first, err := b.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Recv(); err != nil {
		t.Fatal(err)
	}
	var v outer
	if err := Unmarshal(first.Payload, &v); err != nil || v.N != 1 {
		t.Errorf("first payload became %+v, %v", v, err)
	}
}

func TestRecvEOF(t *testing.T) {
	a, b := pair(t)
	a.Close()
	if _, err := b.Recv(); err != io.EOF {
		t.Errorf("error %v, want io.EOF itself", err)
	}
}

// A peer may say why it goes and leave; that our own message cannot be written
// any more must not lose it.
func TestLastWordsAreReceived(t *testing.T) {
	fa, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(fa)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fd := int(file.Fd())
	if err := unix.Sendmsg(fd, header, nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(1, 1, nil); err != nil { // which is never read
		t.Fatal(err)
	}
	for b := []byte{0}; ; { // until it has been written
		if _, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK); err == nil {
			break
		}
	}
	file.Close()
	if err := c.Send(1, 1, nil); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Recv(); err != nil || m.Type != 7 {
		t.Errorf("received %+v, %v; want the last words", m, err)
	}
	if m, err := c.Recv(); err != io.EOF {
		t.Errorf("received %+v, %v; want io.EOF", m, err)
	}
}

func TestRecvAfterClose(t *testing.T) {
	a, _ := pair(t)
	a.Close()
	if _, err := a.Recv(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v, want net.ErrClosed", err)
	}
	a.Close() // twice is no harm
}

func TestSendRefuses(t *testing.T) {
	a, _ := pair(t)
	r, w := pipeEnd(t)
	if err := a.Send(1, 1, make([]byte, MaxPayload), w); err == nil {
		t.Error("payload over MaxPayload taken")
	}
	wantEOF(t, r)
	if err := a.Send(1, 1, func() {}); err == nil {
		t.Error("a function was encoded")
	}
	if err := a.Send(1, 1, outer{}); err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
	a.Close()
	r, w = pipeEnd(t)
	if err := a.Send(1, 1, nil, w); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v, want net.ErrClosed", err)
	}
	wantEOF(t, r)
}

// A peer that reads nothing never blocks the sender; at some point it is given up,
// and all that waited for it is closed.
func TestSlowPeer(t *testing.T) {
	for name, payload := range map[string][]byte{"many": nil, "large": make([]byte, 60<<10)} {
		t.Run(name, func(t *testing.T) {
			c, _ := rawPair(t)
			var err error
			n := 0
			for ; err == nil && n < 1<<20; n++ {
				err = c.Send(1, 1, payload)
			}
			if !errors.Is(err, ErrSlow) {
				t.Fatalf("after %d messages: %v, want ErrSlow", n, err)
			}
			if err := c.Send(1, 1, nil); !errors.Is(err, ErrSlow) {
				t.Errorf("Send afterwards: %v, want ErrSlow", err)
			}
			<-c.done
		})
	}
}

func TestSlowPeerDescriptorsAreClosed(t *testing.T) {
	c, fd := rawPair(t)
	r, w := pipeEnd(t)
	for {
		dup, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			break // as many as this process may have are waiting
		}
		if err := c.Send(1, 1, nil, os.NewFile(uintptr(dup), "copy")); err != nil {
			break
		}
		if dup > 900 {
			break
		}
	}
	c.Close()
	<-c.done
	unix.Shutdown(fd, unix.SHUT_RDWR)
	for b := make([]byte, 64); ; { // take what had been sent, and its descriptors, away
		oob := make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, 0)
		if err != nil || n == 0 {
			break
		}
		files, err := parseRights(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		(&Msg{Files: files}).Close()
	}
	w.Close()
	wantEOF(t, r)
}

func TestFlush(t *testing.T) {
	a, b := pair(t)
	r, w := pipeEnd(t)
	const n = 100
	for i := range n {
		if err := a.Send(1, uint64(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Send(1, n, nil, w); err != nil {
		t.Fatal(err)
	}
	a.Flush()
	if err := a.Send(1, 1, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Flush: %v, want net.ErrClosed", err)
	}
	for i := range n + 1 {
		m, err := b.Recv()
		if err != nil || m.ID != uint64(i) {
			t.Fatalf("message %d: %+v, %v", i, m, err)
		}
		m.Close()
	}
	if _, err := b.Recv(); err != io.EOF {
		t.Errorf("then %v, want io.EOF", err)
	}
	wantEOF(t, r)
}

// Flush ends when the peer goes away before it has read everything.
func TestFlushToVanishedPeer(t *testing.T) {
	c, fd := rawPair(t)
	r, w := pipeEnd(t)
	for range 1000 {
		if err := c.Send(1, 1, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Send(1, 1, nil, w); err != nil {
		t.Fatal(err)
	}
	flushed := make(chan struct{})
	go func() { c.Flush(); close(flushed) }()
	unix.Shutdown(fd, unix.SHUT_RDWR)
	<-flushed
	wantEOF(t, r)
}

func TestDialAndPeerCred(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sock, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	server := NewConn(sock)
	defer server.Close()
	cred, groups, err := server.PeerCred()
	if err != nil {
		t.Fatal(err)
	}
	if cred.Uid != uint32(os.Getuid()) || cred.Gid != uint32(os.Getgid()) || cred.Pid != int32(os.Getpid()) {
		t.Errorf("peer is %+v", cred)
	}
	own, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != len(own) {
		t.Errorf("groups %v, want %v", groups, own)
	}
	if _, err := Dial(path + "x"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no socket: %v, want ENOENT", err)
	}
}

func TestNewRefusesWhatIsNoSocket(t *testing.T) {
	r, _ := pipeEnd(t)
	if _, err := New(r); err == nil {
		t.Error("a pipe was taken for a message socket")
	}
}
