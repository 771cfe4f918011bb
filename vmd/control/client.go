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
	peer    vmop.Peer
	user    *user
	pending map[uint64]struct{} // ids of requests that parent has not answered
	asked   bool                // parent knows of it

	ended   chan struct{} // closed by end, for read
	endOnce sync.Once
}

// join makes a client of a new connection, or turns it away.
func (s *server) join(conn *imsg.Conn) {
	cred, groups, err := conn.PeerCred()
	if err != nil {
		s.noisy.Warn().Err(err).Msg("client without credentials")
		conn.Close()
		return
	}
	u := s.users[cred.Uid]
	if u == nil {
		u = &user{}
	}
	if full := s.full(cred.Uid, u); full != "" {
		s.noisy.Warn().Uint32("uid", cred.Uid).Str("why", full).Msg("client turned away")
		go turnAway(conn, full)
		return
	}
	if len(groups) > s.limits.groups {
		groups = groups[:s.limits.groups]
	}
	s.next++
	c := &client{
		id:      s.next,
		conn:    conn,
		peer:    vmop.Peer{UID: cred.Uid, GID: cred.Gid, Groups: groups, PID: cred.Pid},
		user:    u,
		pending: make(map[uint64]struct{}),
		ended:   make(chan struct{}),
	}
	s.clients[c.id] = c
	s.users[cred.Uid] = u
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
			s.loop.Post(func() { s.leave(c, err) })
			return
		}
		s.loop.Post(func() { next <- s.request(c, m) })
		select {
		case delay = <-next:
		case <-c.ended:
			return
		}
	}
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

// request handles a message of c and returns how long to leave c waiting.
func (s *server) request(c *client, m imsg.Msg) time.Duration {
	// Closing a descriptor may wait for whoever serves its file system, and a
	// client can be that (FUSE): never on the loop.
	defer func() {
		if len(m.Files) > 0 {
			go m.Close()
		}
	}()
	typ := vmop.Type(m.Type)
	delay := c.user.purse.spend(max(requests[typ].cost, 1), s.now(), &s.limits)
	code, detail := check(&m, &c.peer)
	_, twice := c.pending[m.ID]
	switch {
	case code != vmop.OK:
	case twice || m.ID == 0:
		code, detail = vmop.ErrInvalid, "request id is zero or in use"
	case len(c.pending) >= s.limits.inFlight:
		code, detail = vmop.ErrBusy, "too many requests wait for an answer"
	case s.parent.Queued() >= s.limits.backlog:
		code, detail = vmop.ErrBusy, "vmd is busy"
	default:
		s.forward(c, &m)
		return delay
	}
	s.noisy.Warn().Uint32("uid", c.peer.UID).Uint16("type", m.Type).Stringer("code", code).Msg("denied request")
	c.refuse(m.ID, code, detail)
	return delay
}

// refuse answers a request that parent does not get to see.
func (c *client) refuse(id uint64, code vmop.Code, detail string) {
	c.conn.Send(uint16(vmop.Answer), id, vmop.Result{Code: code, Detail: detail})
}

// leave forgets c and tells parent.
func (s *server) leave(c *client, why error) {
	c.end()
	if s.clients[c.id] == nil {
		return
	}
	if !errors.Is(why, io.EOF) && !errors.Is(why, net.ErrClosed) {
		s.noisy.Warn().Err(why).Uint32("uid", c.peer.UID).Msg("client disconnected")
	}
	delete(s.clients, c.id)
	c.user.conns--
	// Who has asked nothing leaves unnoticed: coming and going costs parent
	// nothing.
	if c.asked {
		s.parent.Send(uint16(vmop.ClientGone), 0, vmop.ClientID{Client: c.id})
	}
	if s.listener != nil {
		s.listener.room()
	}
}

// end closes c's connection. read stops.
func (c *client) end() {
	c.endOnce.Do(func() {
		c.conn.Close()
		close(c.ended)
	})
}
