package control

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/testenv"
	"vmd/internal/vmop"
)

// rig is a control with a parent that the test plays.
type rig struct {
	t        testing.TB
	parent   *imsg.Conn
	path     string
	listener *os.File
	ended    chan error

	joined uint64     // the last client that control told of,
	peer   unix.Ucred // and its user
}

// fast are limits that no test meets by accident.
func fast() limits {
	l := defaultLimits
	l.rate, l.burst = 1e9, 1e9
	return l
}

func newRig(t testing.TB, l limits) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, path: filepath.Join(dir, "s")}
	sock, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: r.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	sock.SetUnlinkOnClose(false)
	defer sock.Close()
	if r.listener, err = sock.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.listener.Close() })
	for p, mode := range map[string]os.FileMode{dir: 0o755, r.path: 0o666} {
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	r.start(l)
	return r
}

// start runs a control and sends it the listening socket.
func (r *rig) start(l limits) {
	r.t.Helper()
	fa, fb, err := imsg.Pair()
	if err != nil {
		r.t.Fatal(err)
	}
	parent, err := imsg.New(fa)
	if err != nil {
		r.t.Fatal(err)
	}
	theirs, err := imsg.New(fb)
	if err != nil {
		r.t.Fatal(err)
	}
	s := newServer(&privsep.Process{Parent: theirs, Loop: privsep.NewLoop(), Log: zerolog.Nop()}, l, time.Now)
	ended := make(chan error, 1)
	go func() { ended <- s.run() }()
	r.parent, r.ended = parent, ended
	r.t.Cleanup(func() {
		parent.Close()
		<-ended
		ended <- nil
	})
	dup, err := unix.FcntlInt(r.listener.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := parent.Send(uint16(vmop.ControlSetup), 0, vmop.ControlConfig{}, os.NewFile(uintptr(dup), "listener")); err != nil {
		r.t.Fatal(err)
	}
}

// stop ends the control as a parent that goes away does.
func (r *rig) stop() {
	r.t.Helper()
	r.parent.Close()
	if err := <-r.ended; err != nil {
		r.t.Errorf("control ended with %v", err)
	}
	r.ended <- nil
}

// dial connects as the user who runs the test.
func (r *rig) dial() *imsg.Conn {
	r.t.Helper()
	c, err := imsg.Dial(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// dialAs connects as another user, which takes root.
func (r *rig) dialAs(uid int) *imsg.Conn {
	r.t.Helper()
	if os.Getuid() != 0 {
		r.t.Skip("only root can be somebody else")
	}
	var c *imsg.Conn
	err := testenv.AsUser(uint32(uid), func() (err error) {
		c, err = imsg.Dial(r.path)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// request waits for a request to arrive at parent.
func (r *rig) request() (imsg.Msg, vmop.Envelope) {
	r.t.Helper()
	m, err := r.parent.Recv()
	if err == nil && vmop.Type(m.Type) == vmop.ClientHere {
		r.here(m)
		m, err = r.parent.Recv()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	if vmop.Type(m.Type) != vmop.ClientRequest {
		r.t.Fatalf("parent got message type %d, want ClientRequest", m.Type)
	}
	var e vmop.Envelope
	if err := imsg.Unmarshal(m.Payload, &e); err != nil {
		r.t.Fatal(err)
	}
	return m, e
}

// here looks at a client of which control tells.
func (r *rig) here(m imsg.Msg) {
	r.t.Helper()
	defer m.Close()
	var id vmop.ClientID
	if err := imsg.Unmarshal(m.Payload, &id); err != nil || len(m.Files) != 1 {
		r.t.Fatalf("client %+v with %d descriptors: %v", id, len(m.Files), err)
	}
	cred, _, err := imsg.PeerCred(m.Files[0])
	if err != nil {
		r.t.Fatal(err)
	}
	r.joined, r.peer = id.Client, *cred
}

// reply sends an answer for e.
func (r *rig) reply(e vmop.Envelope, id uint64, typ vmop.Type, v any, files ...*os.File) {
	r.t.Helper()
	b, err := imsg.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.parent.Send(uint16(vmop.ClientAnswer), id, vmop.Envelope{Client: e.Client, Type: typ, Body: b}, files...); err != nil {
		r.t.Fatal(err)
	}
}

// serve answers every request with OK and the client's number as ID, until the
// connection ends.
func (r *rig) serve() {
	parent := r.parent
	go func() {
		for {
			m, err := parent.Recv()
			if err != nil {
				return
			}
			if vmop.Type(m.Type) == vmop.ClientGone {
				parent.Send(m.Type, 0, imsg.Raw(m.Payload))
			}
			var e vmop.Envelope
			if vmop.Type(m.Type) == vmop.ClientRequest && imsg.Unmarshal(m.Payload, &e) == nil {
				b, _ := imsg.Marshal(vmop.Result{Name: "served"})
				parent.Send(uint16(vmop.ClientAnswer), m.ID, vmop.Envelope{Client: e.Client, Type: vmop.Answer, Body: b})
			}
			m.Close()
		}
	}()
}

func send(t testing.TB, c *imsg.Conn, typ vmop.Type, id uint64, v any, files ...*os.File) {
	t.Helper()
	if err := c.Send(uint16(typ), id, v, files...); err != nil {
		t.Fatal(err)
	}
}

// result waits for the Result of request id.
func result(t testing.TB, c *imsg.Conn, id uint64) vmop.Result {
	t.Helper()
	m, err := c.Recv()
	if err != nil {
		t.Fatalf("request %d: %v", id, err)
	}
	defer m.Close()
	if vmop.Type(m.Type) != vmop.Answer || m.ID != id {
		t.Fatalf("got type %d id %d, want the Answer to %d", m.Type, m.ID, id)
	}
	var res vmop.Result
	if err := imsg.Unmarshal(m.Payload, &res); err != nil {
		t.Fatal(err)
	}
	return res
}

// wantGone checks that control has ended the connection.
func wantGone(t testing.TB, c *imsg.Conn) {
	t.Helper()
	m, err := c.Recv()
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("received %+v, %v; want the end of the connection", m, err)
	}
}
