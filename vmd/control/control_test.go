package control

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

func TestForward(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	send(t, c, vmop.Stop, 42, vmop.StopRequest{VM: vmop.Ref{Name: "web"}, Force: true})
	m, e := r.request()
	var stop vmop.StopRequest
	if err := imsg.Unmarshal(e.Body, &stop); err != nil || stop.VM.Name != "web" || !stop.Force {
		t.Errorf("parent got %+v, %v", stop, err)
	}
	if m.ID != 42 || e.Type != vmop.Stop || e.Client == 0 {
		t.Errorf("id %d, envelope %+v", m.ID, e)
	}
	if r.joined != e.Client || r.peer.Uid != uint32(os.Getuid()) || r.peer.Pid != int32(os.Getpid()) {
		t.Errorf("client %d, and before it %d, peer %+v", e.Client, r.joined, r.peer)
	}
	r.reply(e, 42, vmop.Answer, vmop.Result{ID: 3, Name: "web"})
	if res := result(t, c, 42); res.Code != vmop.OK || res.ID != 3 || res.Name != "web" {
		t.Errorf("answer %+v", res)
	}
}

func TestForwardWithoutPayload(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	if os.Getuid() != 0 {
		t.Skip("reload is root's")
	}
	send(t, c, vmop.Reload, 1, nil)
	if _, e := r.request(); e.Type != vmop.Reload || len(e.Body) != 0 {
		t.Errorf("parent got %+v", e)
	}
}

func TestDescriptorsBothWays(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	kernel, err := os.Open("control_test.go")
	if err != nil {
		t.Fatal(err)
	}
	send(t, c, vmop.Start, 1, vmop.StartRequest{VM: vmop.Ref{Name: "a"}, Files: []string{"kernel"}}, kernel)
	m, e := r.request()
	if len(m.Files) != 1 {
		t.Fatalf("%d descriptors arrived at parent, want 1", len(m.Files))
	}
	head := make([]byte, 15)
	if _, err := io.ReadFull(m.Files[0], head); err != nil || string(head) != "package control" {
		t.Errorf("the descriptor is another file: %q, %v", head, err)
	}
	m.Close()
	r.reply(e, 1, vmop.Answer, vmop.Result{})
	result(t, c, 1)

	send(t, c, vmop.Console, 2, vmop.ConsoleRequest{VM: vmop.Ref{Name: "a"}})
	_, e = r.request()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	r.reply(e, 2, vmop.Answer, vmop.Result{}, pw)
	m, err = c.Recv()
	if err != nil || len(m.Files) != 1 {
		t.Fatalf("client got %+v, %v; want a descriptor", m, err)
	}
	m.Files[0].Write([]byte("x"))
	m.Close()
	if b, err := io.ReadAll(pr); err != nil || string(b) != "x" {
		t.Errorf("through the descriptor: %q, %v", b, err)
	}
}

func TestRecordsThenResult(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	send(t, c, vmop.List, 5, vmop.ListRequest{})
	_, e := r.request()
	for range 3 {
		r.reply(e, 5, vmop.Records, vmop.VMList{VMs: []vmop.VM{{ID: 1}, {ID: 2}}})
	}
	r.reply(e, 5, vmop.Answer, vmop.Result{})
	for range 3 {
		m, err := c.Recv()
		var l vmop.VMList
		if err != nil || vmop.Type(m.Type) != vmop.Records || imsg.Unmarshal(m.Payload, &l) != nil || len(l.VMs) != 2 {
			t.Fatalf("got %+v, %v; want Records", m, err)
		}
	}
	result(t, c, 5)
}

// Answers reach the client that asked, whatever the order and the ids.
func TestAnswersAreRouted(t *testing.T) {
	r := newRig(t, fast())
	a, b := r.dial(), r.dial()
	send(t, a, vmop.Pause, 1, vmop.VMRequest{VM: vmop.Ref{Name: "a"}})
	_, ea := r.request()
	send(t, b, vmop.Pause, 1, vmop.VMRequest{VM: vmop.Ref{Name: "b"}})
	_, eb := r.request()
	if ea.Client == eb.Client {
		t.Fatalf("two clients have number %d", ea.Client)
	}
	r.reply(eb, 1, vmop.Answer, vmop.Result{Name: "b"})
	r.reply(ea, 1, vmop.Answer, vmop.Result{Name: "a"})
	if res := result(t, a, 1); res.Name != "a" {
		t.Errorf("a was answered %+v", res)
	}
	if res := result(t, b, 1); res.Name != "b" {
		t.Errorf("b was answered %+v", res)
	}
}

func TestClientGone(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	send(t, c, vmop.Wait, 1, vmop.WaitRequest{VM: vmop.Ref{ID: 1}})
	_, e := r.request()
	c.Close()
	m, err := r.parent.Recv()
	var id vmop.ClientID
	if err != nil || vmop.Type(m.Type) != vmop.ClientGone || imsg.Unmarshal(m.Payload, &id) != nil || id.Client != e.Client {
		t.Fatalf("parent got %+v, %v; want ClientGone of %d", m, err, e.Client)
	}
	// An answer that comes too late is nobody's, and its descriptor is closed.
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	r.reply(e, 1, vmop.Answer, vmop.Result{}, pw)
	if n, err := pr.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v; want EOF", n, err)
	}
	r.serve()
	c = r.dial()
	send(t, c, vmop.List, 1, vmop.ListRequest{})
	result(t, c, 1)
}

// Parent hears of everybody who leaves, if it ever heard of them at all.
func TestClientGoneAfterItsAnswer(t *testing.T) {
	r := newRig(t, fast())
	r.dial().Close() // has asked nothing
	c := r.dial()
	send(t, c, vmop.List, 1, vmop.ListRequest{})
	_, e := r.request()
	r.reply(e, 1, vmop.Answer, vmop.Result{})
	result(t, c, 1)
	c.Close()
	m, err := r.parent.Recv()
	var id vmop.ClientID
	if err != nil || vmop.Type(m.Type) != vmop.ClientGone || imsg.Unmarshal(m.Payload, &id) != nil || id.Client != e.Client {
		t.Fatalf("parent got %+v, %v; want ClientGone of %d", m, err, e.Client)
	}
}

func TestClientRefused(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	send(t, c, vmop.Wait, 1, vmop.WaitRequest{})
	_, e := r.request()
	if err := r.parent.Send(uint16(vmop.ClientRefused), 0, vmop.ClientID{Client: e.Client}); err != nil {
		t.Fatal(err)
	}
	wantGone(t, c)
}

func TestMessagesOfParentThatAreNone(t *testing.T) {
	r := newRig(t, fast())
	for typ, v := range map[vmop.Type]any{
		vmop.ClientAnswer:  "x",
		vmop.ControlSetup:  "x",
		vmop.ClientRefused: "x",
		vmop.VMStart:       nil,
	} {
		if err := r.parent.Send(uint16(typ), 0, v); err != nil {
			t.Fatal(err)
		}
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	// No listening socket: the one from before is kept.
	if err := r.parent.Send(uint16(vmop.ControlSetup), 0, vmop.ControlConfig{Verbose: true}, pw); err != nil {
		t.Fatal(err)
	}
	r.serve()
	c := r.dial()
	send(t, c, vmop.List, 1, vmop.ListRequest{})
	result(t, c, 1)
}

func TestRefusedRequests(t *testing.T) {
	r := newRig(t, fast())
	r.serve()
	c := r.dial()
	file := func() *os.File {
		f, err := os.Open(".")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	files := func(n int) []*os.File {
		var fs []*os.File
		for range n {
			fs = append(fs, file())
		}
		return fs
	}
	for i, tt := range []struct {
		name  string
		typ   vmop.Type
		v     any
		files []*os.File
		want  vmop.Code
	}{
		{"type 0", 0, nil, nil, vmop.ErrUnsupported},
		{"answer as a request", vmop.Answer, vmop.Result{}, nil, vmop.ErrUnsupported},
		{"message of another role", vmop.VMStop, vmop.VMStopRequest{ID: 1}, nil, vmop.ErrUnsupported},
		{"no payload", vmop.Stop, nil, nil, vmop.ErrInvalid},
		{"wrong payload", vmop.Stop, "web", nil, vmop.ErrInvalid},
		{"unknown field", vmop.Pause, vmop.StopRequest{Force: true}, nil, vmop.ErrInvalid},
		{"long payload", vmop.Load, vmop.LoadRequest{Path: string(bytes.Repeat([]byte("x"), vmop.MaxRequest))}, nil, vmop.ErrInvalid},
		{"descriptor with stop", vmop.Stop, vmop.StopRequest{}, files(1), vmop.ErrInvalid},
		{"descriptor without a name", vmop.Start, vmop.StartRequest{}, files(1), vmop.ErrInvalid},
		{"name without a descriptor", vmop.Start, vmop.StartRequest{Files: []string{"kernel"}}, nil, vmop.ErrInvalid},
		{"eight descriptors", vmop.Start, vmop.StartRequest{Files: make([]string, 8)}, files(8), vmop.ErrInvalid},
		{"payload with reload", vmop.Reload, vmop.LoadRequest{}, nil, vmop.ErrInvalid},
	} {
		id := uint64(i + 1)
		send(t, c, tt.typ, id, tt.v, tt.files...)
		want := tt.want
		if os.Getuid() != 0 && requests[tt.typ].who == rootOnly {
			want = vmop.ErrPermission
		}
		if res := result(t, c, id); res.Code != want || res.Detail == "" {
			t.Errorf("%s: answered %+v, want %v", tt.name, res, want)
		}
	}
	send(t, c, vmop.List, 0, vmop.ListRequest{})
	if res := result(t, c, 0); res.Code != vmop.ErrInvalid {
		t.Errorf("request id 0: %+v", res)
	}
	send(t, c, vmop.List, 99, vmop.ListRequest{})
	if res := result(t, c, 99); res.Name != "served" {
		t.Errorf("the connection did not survive: %+v", res)
	}
}

func TestRootOnly(t *testing.T) {
	for typ, r := range requests {
		m := imsg.Msg{Type: uint16(typ)}
		if r.body != nil {
			m.Payload, _ = imsg.Marshal(r.body())
		}
		if code, why := check(&m, 0); code != vmop.OK {
			t.Errorf("type %d, root: %v %s", typ, code, why)
		}
		want := vmop.OK
		switch typ {
		case vmop.Log, vmop.Load, vmop.Reload, vmop.Reset, vmop.Send, vmop.Receive:
			want = vmop.ErrPermission
		}
		if code, why := check(&m, 1000); code != want {
			t.Errorf("type %d, user: %v %s, want %v", typ, code, why, want)
		}
	}
}

func TestRequestsOfAnotherUser(t *testing.T) {
	r := newRig(t, fast())
	c := r.dialAs(12345)
	send(t, c, vmop.Reload, 1, nil)
	if res := result(t, c, 1); res.Code != vmop.ErrPermission {
		t.Errorf("reload: %+v, want permission", res)
	}
	send(t, c, vmop.List, 2, vmop.ListRequest{})
	if _, e := r.request(); r.joined != e.Client || r.peer.Uid != 12345 || r.peer.Gid != 12345 {
		t.Errorf("peer %+v, want 12345", r.peer)
	}
}

func TestSameIDTwice(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	send(t, c, vmop.Wait, 7, vmop.WaitRequest{})
	_, e := r.request()
	send(t, c, vmop.List, 7, vmop.ListRequest{})
	if res := result(t, c, 7); res.Code != vmop.ErrInvalid {
		t.Errorf("second request 7: %+v, want invalid", res)
	}
	r.reply(e, 7, vmop.Answer, vmop.Result{Name: "first"})
	if res := result(t, c, 7); res.Name != "first" {
		t.Errorf("first request 7: %+v", res)
	}
	send(t, c, vmop.List, 7, vmop.ListRequest{}) // answered, so free again
	if _, e := r.request(); e.Type != vmop.List {
		t.Errorf("parent got %+v", e)
	}
}

func TestInFlightLimit(t *testing.T) {
	l := fast()
	l.inFlight = 3
	r := newRig(t, l)
	c := r.dial()
	var first vmop.Envelope
	for id := uint64(1); id <= 3; id++ {
		send(t, c, vmop.Wait, id, vmop.WaitRequest{})
		_, first = r.request()
	}
	send(t, c, vmop.Wait, 4, vmop.WaitRequest{})
	if res := result(t, c, 4); res.Code != vmop.ErrBusy {
		t.Errorf("fourth request: %+v, want busy", res)
	}
	r.reply(first, 2, vmop.Answer, vmop.Result{})
	result(t, c, 2)
	send(t, c, vmop.Wait, 4, vmop.WaitRequest{})
	if m, _ := r.request(); m.ID != 4 {
		t.Errorf("parent got request %d, want 4", m.ID)
	}
}

func TestConnectionLimits(t *testing.T) {
	l := fast()
	l.perUser, l.conns, l.rootConns = 2, 3, 4
	r := newRig(t, l)
	r.serve()
	served := func(c *imsg.Conn) {
		t.Helper()
		send(t, c, vmop.List, 1, vmop.ListRequest{})
		result(t, c, 1)
	}
	turnedAway := func(c *imsg.Conn) {
		t.Helper()
		if res := result(t, c, 0); res.Code != vmop.ErrBusy {
			t.Errorf("one too many was answered %+v", res)
		}
		wantGone(t, c)
	}
	a := r.dialAs(1001)
	served(a)
	served(r.dialAs(1001))
	turnedAway(r.dialAs(1001))
	served(r.dialAs(1002))
	turnedAway(r.dialAs(1003)) // three clients are there
	root := r.dial()
	served(root)         // root is let in
	turnedAway(r.dial()) // but not without end

	// Who leaves makes room, as soon as control has noticed.
	root.Close()
	a.Close()
	for {
		c := r.dialAs(1001)
		if err := c.Send(uint16(vmop.List), 1, vmop.ListRequest{}); err != nil {
			continue // turned away: control has not seen a leave yet
		}
		if m, err := c.Recv(); err == nil && m.ID == 1 {
			break
		}
		c.Close()
	}
}

func TestGarbageDisturbsNobodyElse(t *testing.T) {
	r := newRig(t, fast())
	r.serve()
	good := r.dial()
	for i, packet := range [][]byte{
		[]byte("GET / HTTP/1.0\r\n\r\n"),
		{1, 0, 1},
		{9, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0},
		append([]byte{1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 100<<10)...),
	} {
		sock, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sock.Write(packet); err != nil {
			t.Fatal(err)
		}
		bad := imsg.NewConn(sock)
		wantGone(t, bad)
		bad.Close()
		send(t, good, vmop.List, uint64(i+1), vmop.ListRequest{})
		result(t, good, uint64(i+1))
	}
	for range 50 { // closes at once
		r.dial().Close()
	}
	send(t, good, vmop.List, 100, vmop.ListRequest{})
	result(t, good, 100)
}

// A client with ten thousand requests is read slowly; another one is not.
func TestFloodDisturbsNobodyElse(t *testing.T) {
	r := newRig(t, defaultLimits)
	r.serve()
	sock, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		packet := []byte{1, 0, byte(vmop.List), 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xa1, 1, 0xa0}
		for i := range 10000 {
			packet[4], packet[5] = byte(i), byte(i>>8)|0x80
			if _, err := sock.Write(packet); err != nil {
				return
			}
		}
	}()
	go io.Copy(io.Discard, sock)
	for id := range uint64(20) {
		c := r.dial()
		send(t, c, vmop.List, id+1, vmop.ListRequest{})
		result(t, c, id+1)
		c.Close()
	}
	sock.Close()
	<-stop
}

// A client that reads nothing is cut off when too much waits for it.
func TestSlowReader(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	send(t, c, vmop.List, 1, vmop.ListRequest{})
	_, e := r.request()
	detail := string(bytes.Repeat([]byte("x"), 60<<10))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if m, err := r.parent.Recv(); err != nil || vmop.Type(m.Type) != vmop.ClientGone {
			t.Errorf("parent got %+v, %v; want ClientGone", m, err)
		}
	}()
	for sent := 0; ; sent++ {
		select {
		case <-gone:
		default:
			if r.parent.Queued() < 100 {
				r.reply(e, 1, vmop.Records, vmop.Result{Detail: detail})
			}
			continue
		}
		break
	}
	r.serve()
	other := r.dial()
	send(t, other, vmop.List, 1, vmop.ListRequest{})
	result(t, other, 1)
}

// A new control takes the same socket over; clients only have to connect again.
func TestRestart(t *testing.T) {
	r := newRig(t, fast())
	c := r.dial()
	send(t, c, vmop.Wait, 1, vmop.WaitRequest{})
	r.request()
	r.stop()
	wantGone(t, c)
	waiting := r.dial() // before there is a control
	r.start(fast())
	r.serve()
	send(t, waiting, vmop.List, 1, vmop.ListRequest{})
	result(t, waiting, 1)
}

func TestNewListenerRefuses(t *testing.T) {
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pw.Close()
	if _, err := newListener(pr); err == nil {
		t.Error("a pipe was taken for the control socket")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: t.TempDir() + "/s"}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := newListener(os.NewFile(uintptr(fd), "stream")); err == nil {
		t.Error("a stream socket was taken for the control socket")
	}
}
