package agentx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/posteo/go-agentx/pdu"
)

// phase is how far the session has come.
type phase uint8

const (
	opening phase = iota // Open is sent
	joining              // the session is open, Register is sent
	up                   // the subtree is ours
)

// session is one connection with its one session. net-snmp sends every request
// of a connection with the session that was opened last on it, so two sessions
// never share a connection.
type session struct {
	a     *Agent
	conn  net.Conn
	alarm alarm
	phase phase
	id    uint32

	in   []byte    // read and not handled
	half time.Time // since when in begins with a PDU that is not whole; zero without one
	out  []byte    // to be written

	pending    []pending // requests of ours
	nextPacket uint32
	heard      time.Time // when the master last said anything
	bad        int       // malformed PDUs in a row

	req   request
	name  []uint32
	views viewCache
	sets  sets
}

// pending is a request of ours without an answer so far.
type pending struct {
	packet   uint32
	kind     pdu.Type
	optional bool // a refusal is reported and no more
	deadline time.Time
}

const (
	readSize  = 8 << 10
	maxBadRow = 3
)

// session connects, serves until the connection is of no more use, and says why
// it is not.
func (a *Agent) session(ctx context.Context) error {
	dialCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	conn, err := a.cfg.Dial(dialCtx)
	cancel()
	if err != nil {
		return fmt.Errorf("connect to the master agent: %w", err)
	}
	defer conn.Close()
	s := &session{a: a, conn: conn, heard: time.Now()}
	s.alarm.conn = conn
	stop := context.AfterFunc(ctx, s.alarm.ring)
	defer stop()
	err = s.run(ctx)
	flying := 0
	if s.waiting(pdu.TypeNotify) {
		flying = 1
	}
	a.queue.close(flying)
	s.sets.lost()
	if ctx.Err() != nil {
		s.bye(pdu.ReasonShutdown)
	}
	return err
}

func (s *session) run(ctx context.Context) error {
	body, err := openBody(s.a.cfg.Description)
	if err != nil {
		return fmt.Errorf("encode open: %w", err)
	}
	s.send(pdu.TypeOpen, body, false)
	for ctx.Err() == nil {
		now := time.Now()
		if err := s.due(now); err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
		if !s.alarm.set(s.wake()) {
			continue
		}
		if err := s.read(); err != nil {
			return err
		}
		if err := s.handleAll(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// due does what the time demands: gives up on requests, pings, sends the next
// notification.
func (s *session) due(now time.Time) error {
	if !s.half.IsZero() && !now.Before(s.half.Add(halfTimeout)) {
		return fmt.Errorf("%d octets of a pdu from the master agent, and no more within %v", len(s.in), halfTimeout)
	}
	for i := 0; i < len(s.pending); {
		p := s.pending[i]
		if now.Before(p.deadline) {
			i++
			continue
		}
		s.pending = append(s.pending[:i], s.pending[i+1:]...)
		if p.kind != pdu.TypeNotify {
			return fmt.Errorf("no answer to %s within %v", kindName(p.kind), requestTimeout)
		}
		// The master may not like this notification, or may hang: ask.
		s.a.cfg.Report(Event{Kind: Dropped, Count: 1})
		s.heard = now.Add(-pingAfter)
	}
	if s.phase != up {
		return nil
	}
	if !s.waiting(pdu.TypePing) && now.Sub(s.heard) >= pingAfter {
		s.views = viewCache{} // nobody asks: let old snapshots go
		s.send(pdu.TypePing, nil, true)
	}
	if !s.waiting(pdu.TypeNotify) && !s.waiting(pdu.TypePing) { // a master that hangs would lose it
		s.sendNotification()
	}
	return nil
}

// wake returns when due has something to do next.
func (s *session) wake() time.Time {
	next := s.heard.Add(pingAfter)
	if s.phase != up || s.waiting(pdu.TypePing) {
		next = s.heard.Add(pingAfter + requestTimeout)
	}
	if end := s.half.Add(halfTimeout); !s.half.IsZero() && end.Before(next) {
		next = end
	}
	for _, p := range s.pending {
		if p.deadline.Before(next) {
			next = p.deadline
		}
	}
	return next
}

func (s *session) waiting(kind pdu.Type) bool {
	for _, p := range s.pending {
		if p.kind == kind {
			return true
		}
	}
	return false
}

// send queues a request of ours for the next flush. The context goes in front of
// its body where the PDU's type has one.
func (s *session) send(kind pdu.Type, body []byte, withContext bool) {
	s.nextPacket++
	h := pdu.Header{Type: kind, SessionID: s.id, PacketID: s.nextPacket}
	from := len(s.out)
	if withContext && s.a.cfg.Context != "" {
		h.Flags = pdu.FlagNonDefaultContext
	}
	s.out = appendHeader(s.out, ours, h)
	if h.Flags != 0 {
		s.out = appendText(s.out, ours, s.a.cfg.Context)
	}
	s.out = append(s.out, body...)
	setLength(s.out, ours, from)
	if kind != pdu.TypeClose {
		s.pending = append(s.pending, pending{packet: s.nextPacket, kind: kind, deadline: time.Now().Add(requestTimeout)})
	}
}

func (s *session) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("write to the master agent: %w", err)
	}
	_, err := s.conn.Write(s.out)
	if err != nil {
		return fmt.Errorf("write to the master agent: %w", err)
	}
	s.out = s.out[:0]
	if cap(s.out) > 4*maxPDU {
		s.out = nil
	}
	return nil
}

// read takes what there is, at most what the buffer holds: a peer's word about
// lengths makes nothing larger, only octets that have come do.
func (s *session) read() error {
	if cap(s.in)-len(s.in) < readSize/2 {
		grown := make([]byte, len(s.in), 2*len(s.in)+readSize)
		copy(grown, s.in)
		s.in = grown
	}
	n, err := s.conn.Read(s.in[len(s.in):cap(s.in)])
	s.in = s.in[:len(s.in)+n]
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("read from the master agent: %w", err)
	}
	if n > 0 {
		s.heard = time.Now()
	}
	return nil
}

// handleAll handles every complete PDU that was read; their answers go out in
// one write.
func (s *session) handleAll() error {
	b := s.in
	for len(b) >= pdu.HeaderSize {
		h, err := parseHeader(b)
		if err != nil {
			return err
		}
		end := pdu.HeaderSize + int(h.PayloadLength)
		if len(b) < end {
			break
		}
		if err := s.handle(h, b[pdu.HeaderSize:end]); err != nil {
			return err
		}
		b = b[end:]
		if len(s.out) > maxPDU {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	switch {
	case len(b) == 0:
		s.half = time.Time{}
	case len(b) < len(s.in) || s.half.IsZero():
		s.half = s.heard
	}
	rest := copy(s.in, b)
	s.in = s.in[:rest]
	if rest == 0 && cap(s.in) > 4*readSize {
		s.in = nil
	}
	return nil
}

// bye sends a Close without waiting for the answer, which nobody needs.
func (s *session) bye(why pdu.Reason) {
	body, err := closeBody(why)
	if err != nil {
		return
	}
	s.send(pdu.TypeClose, body, false)
	_ = s.flush()
}

// alarm is the read deadline of a connection, which other goroutines may bring
// forward to wake the one that reads.
type alarm struct {
	conn net.Conn

	mu   sync.Mutex
	rung bool
	at   time.Time // the deadline that is set
}

var longAgo = time.Unix(1, 0)

// ring makes the present or next read return at once.
func (a *alarm) ring() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rung = true
	_ = a.conn.SetReadDeadline(longAgo)
}

// set makes the next read return at t or a little before. It is false when ring
// was called since: look around before you read. The deadline is only moved when
// it is too late or has passed, not for every PDU.
func (a *alarm) set(t time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rung {
		a.rung, a.at = false, time.Time{}
		return false
	}
	if a.at.IsZero() || t.Before(a.at) || !a.at.After(time.Now()) {
		a.at = t
		_ = a.conn.SetReadDeadline(t)
	}
	return true
}
