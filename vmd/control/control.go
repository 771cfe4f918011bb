// Package control listens on the control socket. It reads bytes from any local
// user who may open it, so it holds nothing worth stealing and decides only who
// may ask; what is done about a request, parent decides.
//
//	user   _vmd      root   empty
//	holds  the listening socket, one socket per client, one socket to parent
//	trusts parent; not the clients
//
// It keeps one client from getting in the way of another (limits.go), passes on
// what they ask, each under a number for its connection, and carries the answers
// back. Who is at the other end of a connection parent asks the kernel itself.
package control

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"

	"vmd/internal/imsg"
	"vmd/internal/logging"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// Run is the role: it returns when parent has gone away.
func Run(p *privsep.Process) error {
	if err := p.Confine(); err != nil {
		return err
	}
	return newServer(p, defaultLimits, time.Now).run()
}

// server is the state of the role. The loop owns it.
type server struct {
	loop   *privsep.Loop
	parent *imsg.Conn
	log    zerolog.Logger
	// noisy is log for what a client can cause as often as it likes.
	noisy  zerolog.Logger
	limits limits
	now    func() time.Time

	listener *listener // nil until ControlSetup brings one
	clients  map[uint64]*client
	users    map[uint32]*user
	next     uint64        // the next client's number
	ended    chan struct{} // closed when the loop has ended
}

func newServer(p *privsep.Process, l limits, now func() time.Time) *server {
	s := &server{
		loop:    p.Loop,
		parent:  p.Parent,
		limits:  l,
		now:     now,
		clients: make(map[uint64]*client),
		users:   make(map[uint32]*user),
		ended:   make(chan struct{}),
		// Not from 1: parent may still hold answers for clients of a control
		// that crashed, and they must not reach ours.
		next: rand.Uint64() >> 1,
	}
	s.setLog(p.Log)
	return s
}

func (s *server) setLog(log zerolog.Logger) {
	s.log = log
	s.noisy = logging.Sampled(log)
}

func (s *server) run() error {
	err := s.loop.Serve(s.parent, s.fromParent)
	if s.listener != nil {
		s.listener.close()
	}
	for _, c := range s.clients {
		c.conn.Hangup()
	}
	close(s.ended)
	return err
}

// fromParent handles a message from parent.
func (s *server) fromParent(m imsg.Msg) {
	var err error
	switch vmop.Type(m.Type) {
	case vmop.ControlSetup:
		err = s.setup(&m)
	case vmop.ClientAnswer:
		err = s.answer(&m)
	case vmop.ClientRefused:
		var id vmop.ClientID
		if err = imsg.Unmarshal(m.Payload, &id); err == nil {
			if c := s.clients[id.Client]; c != nil {
				c.conn.Hangup()
			}
		}
	case vmop.ClientGone:
		var id vmop.ClientID
		if err = imsg.Unmarshal(m.Payload, &id); err == nil {
			if c := s.clients[id.Client]; c != nil {
				c.forget()
			}
		}
	case vmop.UserBusy:
		var u vmop.UserFiles
		if err = imsg.Unmarshal(m.Payload, &u); err == nil {
			s.user(u.UID).busy = u.Busy
		}
	case vmop.SetLog:
		var r vmop.LogRequest
		if err = imsg.Unmarshal(m.Payload, &r); err == nil {
			s.setLog(s.log.Level(logging.Level(r.Verbose)))
		}
	default:
		err = errors.New("unknown message")
	}
	if err != nil {
		s.log.Error().Err(err).Uint16("type", m.Type).Msg("bad message from parent")
	}
}

// user is what is known of a user, who may have no client.
func (s *server) user(uid uint32) *user {
	u := s.users[uid]
	if u == nil {
		u = &user{}
		s.users[uid] = u
	}
	return u
}

// setup takes the configuration and, the first time, the listening socket.
func (s *server) setup(m *imsg.Msg) error {
	var cfg vmop.ControlConfig
	if err := imsg.Unmarshal(m.Payload, &cfg); err != nil {
		return err
	}
	s.setLog(s.log.Level(logging.Level(cfg.Verbose)))
	f := m.TakeFile(0)
	if f == nil {
		return nil
	}
	l, err := newListener(f)
	if err != nil {
		return err
	}
	if s.listener != nil {
		s.listener.close()
	}
	s.listener = l
	go s.accept(l)
	return nil
}

// answer carries one of parent's answers to the client it is for.
func (s *server) answer(m *imsg.Msg) error {
	var e vmop.Envelope
	if err := imsg.Unmarshal(m.Payload, &e); err != nil {
		return err
	}
	c := s.clients[e.Client]
	if c == nil {
		return nil // it has left; the loop closes the descriptors
	}
	if e.Type == vmop.Answer {
		delete(c.pending, m.ID)
	} else if c.records++; c.records%recordsPerPoint == 0 {
		c.user.purse.spend(1, s.now(), &s.limits)
	}
	err := imsg.ErrSlow
	if c.user.unread.Load() > s.limits.unread {
		c.conn.Hangup()
	} else {
		err = c.conn.Send(uint16(e.Type), m.ID, body(e.Body), m.TakeFiles()...)
	}
	if errors.Is(err, imsg.ErrSlow) {
		s.noisy.Warn().Err(err).Uint32("uid", c.uid).Msg("client disconnected")
	}
	return nil // it is the client's own loss, and its reader notices
}

// body is raw as imsg.Conn.Send wants it: nil for no payload.
func body(raw imsg.Raw) any {
	if len(raw) == 0 {
		return nil
	}
	return raw
}

// forward sends request m of c to parent, and calls sent when m's descriptors are
// not needed here any more.
func (s *server) forward(c *client, m *imsg.Msg, sent func()) {
	err := s.introduce(c)
	if err == nil {
		err = s.parent.Lend(uint16(vmop.ClientRequest), m.ID, vmop.Envelope{
			Client: c.id,
			Type:   vmop.Type(m.Type),
			Body:   m.Payload,
		}, sent, m.Files...)
	}
	if err != nil {
		sent()
		c.refuse(m.ID, vmop.ErrUnavailable, "vmd is not ready")
		return
	}
	c.pending[m.ID] = struct{}{}
}

// introduce shows parent the connection of c before it asks something.
func (s *server) introduce(c *client) error {
	if c.asked {
		return nil
	}
	f, err := c.conn.File()
	if err == nil {
		err = s.parent.Send(uint16(vmop.ClientHere), 0, vmop.ClientID{Client: c.id}, f)
	}
	c.asked = err == nil
	return err
}
