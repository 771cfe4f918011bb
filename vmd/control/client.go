package control

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// client is one connection. The loop owns it, but for what read uses.
type client struct {
	id      uint64
	conn    *imsg.Conn
	uid     uint32
	user    *user
	pending map[uint64]struct{} // ids of requests that parent has not answered
	asked   bool                // parent knows of it

	consoles int // that it has asked for
	records  int // messages of lists that it was sent

	ended     chan struct{} // closed when control ends, for read
	forgotten chan struct{} // closed when nobody but read has the connection,
	forget    func()        // which does that
}

// join makes a client of a new connection, or turns it away.
func (s *server) join(conn *imsg.Conn) {
	cred, _, err := conn.PeerCred()
	if err != nil {
		s.noisy.Warn().Err(err).Msg("client without credentials")
		conn.Close()
		return
	}
	u := s.user(cred.Uid)
	if full := s.full(cred.Uid, u); full != "" {
		s.noisy.Warn().Uint32("uid", cred.Uid).Str("why", full).Msg("client turned away")
		go turnAway(conn, full)
		return
	}
	conn.CountIn(&u.unread)
	s.next++
	forgotten := make(chan struct{})
	c := &client{
		id:      s.next,
		conn:    conn,
		uid:     cred.Uid,
		user:    u,
		pending: make(map[uint64]struct{}),
		ended:   s.ended,

		forgotten: forgotten,
		forget:    sync.OnceFunc(func() { close(forgotten) }),
	}
	s.clients[c.id] = c
	u.conns++
	go s.read(c, u.purse.spend(1, s.now(), &s.limits))
}

// full says why a user may not connect once more, or "".
func (s *server) full(uid uint32, u *user) string {
	switch {
	case uid == 0:
		if len(s.clients) >= s.limits.rootConns {
			return "too many clients"
		}
	case len(s.clients) >= s.limits.conns:
		return "too many clients"
	case u.conns >= s.limits.perUser:
		return "too many clients of one user"
	}
	return ""
}

// turnAway tells a client why it cannot stay.
func turnAway(conn *imsg.Conn, why string) {
	conn.Send(uint16(vmop.Answer), 0, vmop.Result{Code: vmop.ErrBusy, Detail: why})
	conn.Flush()
}

// read passes what c sends to the loop, one message at a time, and waits after
// each for as long as the loop says.
func (s *server) read(c *client, delay time.Duration) {
	next := make(chan time.Duration, 1)
	for {
		if !c.sleep(delay) {
			return
		}
		m, err := c.conn.Recv()
		if err != nil {
			s.bury(c, err)
			return
		}
		// Descriptors are closed here and by nobody else. To close one may wait
		// for whoever serves its file system, and a client can be that (FUSE):
		// then it keeps waiting itself, and counts as a connection.
		sent := make(chan struct{})
		s.loop.Post(func() { next <- s.request(c, m, sync.OnceFunc(func() { close(sent) })) })
		select {
		case delay = <-next:
		case <-c.ended:
			go func() { <-sent; m.Close() }()
			return
		}
		<-sent
		m.Close()
	}
}

// bury ends c's connection, once nobody else has it. To close it may take as long
// as to close a descriptor: what c sent and nobody received goes with it. So it
// is done here, and c counts until it has been.
func (s *server) bury(c *client, why error) {
	s.loop.Post(func() { s.leave(c, why) })
	select {
	case <-c.forgotten:
	case <-c.ended:
	}
	c.conn.Close()
	s.loop.Post(func() { s.left(c) })
}

// sleep waits for d. It returns false if c has ended.
func (c *client) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ended:
		return false
	}
}

// request handles a message of c and returns how long to leave c waiting. It
// calls sent when the descriptors in m are on their way to parent, or will not be.
func (s *server) request(c *client, m imsg.Msg, sent func()) time.Duration {
	typ := vmop.Type(m.Type)
	delay := c.user.purse.spend(max(requests[typ].cost, 1), s.now(), &s.limits)
	code, detail := check(&m, c.uid)
	if code == vmop.OK {
		code, detail = s.room(c, &m)
	}
	if code == vmop.OK {
		s.forward(c, &m, sent)
		return delay
	}
	sent()
	s.noisy.Warn().Uint32("uid", c.uid).Uint16("type", m.Type).Stringer("code", code).Msg("denied request")
	c.refuse(m.ID, code, detail)
	return delay
}

// room says whether there is room for one more request, and if not, why.
func (s *server) room(c *client, m *imsg.Msg) (code vmop.Code, detail string) {
	_, twice := c.pending[m.ID]
	switch {
	case twice || m.ID == 0:
		return vmop.ErrInvalid, "request id is zero or in use"
	case len(c.pending) >= s.limits.inFlight:
		return vmop.ErrBusy, "too many requests wait for an answer"
	case s.parent.Queued() >= s.limits.backlog:
		return vmop.ErrBusy, "vmd is busy"
	case len(m.Files) > 0 && c.user.busy:
		return vmop.ErrBusy, "vmd is still busy with the files that you gave it before"
	case vmop.Type(m.Type) != vmop.Console:
	case c.consoles >= s.limits.consoles || c.uid != 0 && c.user.consoles >= s.limits.userConsoles:
		return vmop.ErrBusy, "too many consoles on this connection, or on all of yours: make another"
	default:
		c.consoles++
		c.user.consoles++
	}
	return vmop.OK, ""
}

// refuse answers a request that parent does not get to see.
func (c *client) refuse(id uint64, code vmop.Code, detail string) {
	c.conn.Send(uint16(vmop.Answer), id, vmop.Result{Code: code, Detail: detail})
}

// leave tells parent that c has left. Who has asked nothing leaves unnoticed:
// coming and going costs parent nothing.
func (s *server) leave(c *client, why error) {
	if !errors.Is(why, io.EOF) && !errors.Is(why, net.ErrClosed) {
		s.noisy.Warn().Err(why).Uint32("uid", c.uid).Msg("client disconnected")
	}
	c.conn.Hangup()
	if !c.asked || s.parent.Send(uint16(vmop.ClientGone), 0, vmop.ClientID{Client: c.id}) != nil {
		c.forget()
	}
}

// left forgets c, whose connection is closed.
func (s *server) left(c *client) {
	delete(s.clients, c.id)
	c.user.conns--
	c.user.consoles -= c.consoles
	if s.listener != nil {
		s.listener.room()
	}
}
