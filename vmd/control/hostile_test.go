package control

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/testenv"
	"vmd/internal/vmop"
)

// A client that asks for consoles and never reads would keep all descriptors on
// their way that the kernel grants this process.
func TestConsolesWithoutEnd(t *testing.T) {
	l := fast()
	l.consoles, l.userConsoles = 2, 3
	r := newRig(t, l)
	r.serve()
	ask := func(c *imsg.Conn, id uint64, want vmop.Code) {
		t.Helper()
		send(t, c, vmop.Console, id, vmop.ConsoleRequest{VM: vmop.Ref{Name: "x"}})
		if res := result(t, c, id); res.Code != want {
			t.Errorf("console %d: %+v, want %v", id, res, want)
		}
	}
	a, b := r.dialAs(1001), r.dialAs(1001)
	ask(a, 1, vmop.OK)
	ask(a, 2, vmop.OK)
	ask(a, 3, vmop.ErrBusy) // on this connection
	ask(b, 1, vmop.OK)
	ask(b, 2, vmop.ErrBusy) // of this user
	ask(r.dialAs(1002), 1, vmop.OK)
	root := r.dial()
	ask(root, 1, vmop.OK)
	a.Close()
	for id := uint64(3); ; id++ { // until control has seen it leave
		send(t, b, vmop.Console, id, vmop.ConsoleRequest{VM: vmop.Ref{Name: "x"}})
		if result(t, b, id).Code == vmop.OK {
			break
		}
	}
}

// Who has given parent descriptors that it does not get rid of may give no more,
// but ask what needs none.
func TestBusyUser(t *testing.T) {
	r := newRig(t, fast())
	r.serve()
	c := r.dialAs(1001)
	start := func(id uint64, want vmop.Code) {
		t.Helper()
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		send(t, c, vmop.Start, id, vmop.StartRequest{Files: []string{"kernel"}}, f)
		if res := result(t, c, id); res.Code != want {
			t.Errorf("start %d: %+v, want %v", id, res, want)
		}
	}
	busy := func(b bool) {
		t.Helper()
		if err := r.parent.Send(uint16(vmop.UserBusy), 0, vmop.UserFiles{UID: 1001, Busy: b}); err != nil {
			t.Fatal(err)
		}
		r.listed(r.dialAs(1002)) // what parent said before is known by now
	}
	start(1, vmop.OK)
	busy(true)
	start(2, vmop.ErrBusy)
	r.listed(c)
	busy(false)
	start(3, vmop.OK)
}

// listed has a request of c answered, whose number no other is to have.
func (r *rig) listed(c *imsg.Conn) {
	r.t.Helper()
	send(r.t, c, vmop.List, 1<<40, vmop.ListRequest{})
	result(r.t, c, 1<<40)
}

// A user who reads nothing has no more waiting on many connections than on one.
func TestSlowReaderWithManyConnections(t *testing.T) {
	l := fast()
	l.unread = 1 << 20
	r := newRig(t, l)
	const conns = 4
	var who []vmop.Envelope
	for range conns {
		c := r.dial()
		send(t, c, vmop.List, 1, vmop.ListRequest{})
		_, e := r.request()
		who = append(who, e)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if m, err := r.parent.Recv(); err != nil || vmop.Type(m.Type) != vmop.ClientGone {
			t.Errorf("parent got %+v, %v; want ClientGone", m, err)
		}
	}()
	detail := string(bytes.Repeat([]byte("x"), 60<<10))
	// As much as fits into what waits, and the sockets: not on one of them is
	// what a single connection may have.
	for range 8 << 20 / len(detail) / conns {
		for _, e := range who {
			r.reply(e, 1, vmop.Records, vmop.Result{Detail: detail})
		}
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("nobody was disconnected")
	}
	r.serve()
	other := r.dialAs(1001)
	r.listed(other)
}

// A descriptor that takes for ever to be closed keeps only waiting who sent it.
func TestDescriptorThatDoesNotClose(t *testing.T) {
	r := newRig(t, fast())
	r.stop() // so that ours is closed before that of the next
	sock, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := sock.File()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	f, release := testenv.SlowFile(t)
	defer release()
	payload, err := imsg.Marshal(vmop.StartRequest{})
	if err != nil {
		t.Fatal(err)
	}
	packet := append([]byte{1, 0, byte(vmop.Start), 0, 1, 0, 0, 0, 0, 0, 0, 0}, payload...)
	if err := unix.Sendmsg(int(raw.Fd()), packet, unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r.start(fast())
	r.serve()
	c := imsg.NewConn(sock)
	defer c.Close()
	if res := result(t, c, 1); res.Code != vmop.ErrInvalid {
		t.Errorf("answered %+v", res)
	}
	send(t, c, vmop.List, 1<<40, vmop.ListRequest{})
	r.listed(r.dial())
	release()
	result(t, c, 1<<40)
}

// Who asks for long lists pays for their length.
func TestLongListsCost(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newServer(&privsep.Process{Loop: privsep.NewLoop(), Log: zerolog.Nop()}, defaultLimits, func() time.Time { return now })
	ours, theirs, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	conn, err := imsg.New(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{id: 5, conn: conn, user: s.user(1001)}
	s.clients[5] = c
	c.user.purse.spend(5, now, &s.limits)
	before := c.user.purse.points
	for range 8 * recordsPerPoint {
		b, err := imsg.Marshal(vmop.Envelope{Client: 5, Type: vmop.Records})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.answer(&imsg.Msg{ID: 1, Payload: b}); err != nil {
			t.Fatal(err)
		}
	}
	if paid := before - c.user.purse.points; paid != 8 {
		t.Errorf("paid %v points, want 8", paid)
	}
}

// What a client sent and nobody received goes with its connection, and with it a
// descriptor that takes for ever to be closed.
func TestConnectionThatDoesNotClose(t *testing.T) {
	for _, asks := range []bool{false, true} {
		r := newRig(t, fast())
		r.stop()
		sock, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		f, release := testenv.SlowFile(t)
		defer release()
		if asks { // then parent has a copy of the connection, too
			if _, err := sock.Write([]byte{1, 0, byte(vmop.List), 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xa1, 1, 0xa0}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := sock.Write([]byte("what is no message")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := sock.WriteMsgUnix(make([]byte, 12), unix.UnixRights(int(f.Fd())), nil); err != nil {
			t.Fatal(err)
		}
		f.Close()
		r.start(fast())
		r.serve()
		io.Copy(io.Discard, sock) // until control has hung up
		r.listed(r.dialAs(1001))
		r.listed(r.dial())
		release()
	}
}
