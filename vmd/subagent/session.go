package subagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"vmd/agentx"
	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/mib"
)

const (
	description  = "vmd"
	capabilities = "The MIB module for virtual machines (VM-MIB, RFC 7666)"
)

// session is an agentx.Agent at work.
type session struct {
	agent *agentx.Agent
	stop  context.CancelFunc
	done  chan struct{} // closed when it has left the master
}

// stopSession ends the session, if there is one, and returns what is closed when
// it has ended.
func (s *server) stopSession() (done <-chan struct{}) {
	if s.session == nil {
		return nil
	}
	done = s.session.done
	s.session.stop()
	s.session = nil
	return done
}

// restartSession does what the configuration now says. The new session begins
// when the old one has left: two would claim the same subtree.
func (s *server) restartSession() {
	before := s.stopSession()
	s.window.clear()
	if !s.config.Enabled {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &session{stop: stop, done: make(chan struct{})}
	n.agent = agentx.New(agentx.Config{
		Dial:         s.dial,
		Handler:      handler{s.store, func() { s.loop.Post(s.keepSwitches) }},
		Subtree:      mib.Root(),
		More:         more(s.config),
		Context:      s.config.Context,
		Description:  description,
		Capabilities: capabilities,
		MasterUp:     s.masterUp(),
		Report: func(e agentx.Event) {
			now := counters.Monotonic()
			s.loop.Post(func() { s.report(e, now) })
		},
	})
	s.session = n
	go func() {
		defer close(n.done)
		if before != nil {
			<-before
		}
		_ = n.agent.Run(ctx) // ctx ended
	}()
}

// more is what the session registers besides VM-MIB.
func more(c vmop.SNMPConfig) (subtrees [][]uint32) {
	if c.VMInfo {
		subtrees = append(subtrees, mib.VMInfoRoot())
	}
	return subtrees
}

// report says what happened to the session, at a time of CLOCK_MONOTONIC.
func (s *server) report(e agentx.Event, at int64) {
	switch e.Kind {
	case agentx.Up:
		s.log.Info().Str("path", s.config.Path).Msg("registered with the master agent")
		s.masterStarted(at-int64(e.MasterUp), e.Restarted)
	case agentx.Down:
		s.log.Warn().Err(e.Err).Str("path", s.config.Path).Msg("no session with the master agent")
	case agentx.CapsRefused:
		s.log.Debug().Err(e.Err).Msg("master agent lists no capabilities")
	case agentx.Refused:
		s.log.Warn().Err(e.Err).Msg("master agent has another owner for the table of vminfo")
	case agentx.BadPDU:
		s.noisy.Warn().Err(e.Err).Msg("master agent breaks the protocol")
	case agentx.Dropped:
		s.noisy.Warn().Err(e.Err).Int("count", e.Count).Msg("notifications lost")
	}
}

// dials are the connections that parent was asked for.
type dials struct {
	next    uint64
	waiting map[uint64]chan<- dialled
}

type dialled struct {
	conn net.Conn
	err  error
}

// dial has parent connect to the master. It is called on the session's
// goroutine.
func (s *server) dial(ctx context.Context) (net.Conn, error) {
	answer := make(chan dialled, 1)
	var id uint64
	s.loop.Post(func() {
		s.dials.next++
		id = s.dials.next
		if s.dials.waiting == nil {
			s.dials.waiting = make(map[uint64]chan<- dialled)
		}
		s.dials.waiting[id] = answer
		if err := s.parent.Send(uint16(vmop.SNMPDial), id, nil); err != nil {
			s.dials.give(id, dialled{err: err})
		}
	})
	select {
	case d := <-answer:
		return d.conn, d.err
	case <-ctx.Done():
		s.loop.Post(func() { s.dials.forget(id, answer) })
		return nil, fmt.Errorf("ask parent for it: %w", ctx.Err())
	}
}

// answer gives the descriptor in m to whoever asked for it with m's id.
func (d *dials) answer(m *imsg.Msg, detail string) {
	if d.waiting[m.ID] == nil {
		return // not an answer, or one that is too late: m's files are closed
	}
	f := m.TakeFile(0)
	if f == nil {
		if detail == "" {
			detail = "parent has no connection"
		}
		d.give(m.ID, dialled{err: errors.New(detail)})
		return
	}
	conn, err := connOf(f)
	d.give(m.ID, dialled{conn, err})
}

func connOf(f *os.File) (net.Conn, error) {
	defer f.Close()
	return net.FileConn(f)
}

func (d *dials) give(id uint64, what dialled) {
	if answer := d.waiting[id]; answer != nil {
		delete(d.waiting, id)
		answer <- what
	}
}

// forget closes the connection that came when nobody waited any more.
func (d *dials) forget(id uint64, answer <-chan dialled) {
	delete(d.waiting, id)
	select {
	case late := <-answer:
		if late.conn != nil {
			late.conn.Close()
		}
	default:
	}
}

// handler is the store as package agentx wants it. It calls changed when a SET
// was carried out or taken back.
type handler struct {
	store   *mib.Store
	changed func()
}

func (h handler) View() agentx.View { return view{h.store.View()} }

func (h handler) Test(binds []agentx.VarBind) (agentx.Set, uint16, int) {
	list := make([]mib.VarBind, len(binds))
	for i, b := range binds {
		list[i] = mib.VarBind{Name: b.Name, Value: mib.Value(b.Value)}
	}
	t, err := h.store.Test(list)
	if err != nil {
		return nil, err.Code, err.Index
	}
	return set{t, h.changed}, 0, 0
}

type view struct{ mib.View }

func (v view) Get(name []uint32) agentx.Value { return agentx.Value(v.View.Get(name)) }

func (v view) Next(dst, start []uint32, include bool, end []uint32) ([]uint32, agentx.Value) {
	name, val := v.View.Next(dst, start, include, end)
	return name, agentx.Value(val)
}

type set struct {
	*mib.Set
	changed func()
}

func (t set) Commit() error { t.Set.Commit(); t.changed(); return nil }
func (t set) Undo() error   { t.Set.Undo(); t.changed(); return nil }
