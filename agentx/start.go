package agentx

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/posteo/go-agentx/pdu"
)

// refusal is an error that the master answered a request of ours with.
type refusal struct {
	kind pdu.Type
	code pdu.Error
}

func (r *refusal) Error() string {
	return fmt.Sprintf("master agent answers %s with %s (%d)", kindName(r.kind), errorName(r.code), uint16(r.code))
}

// lasting says whether trying again soon is of no use: a master that does not
// know our context (OpenBSD's knows none) will not learn it.
func lasting(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.code == pdu.ErrorUnsupportedContext
}

func kindName(k pdu.Type) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "Type"))
}

func errorName(e pdu.Error) string {
	name := strings.TrimPrefix(e.String(), "Error")
	if strings.HasPrefix(name, "Unknown (") {
		return "an error of its own"
	}
	return name
}

var errClosed = errors.New("master agent closed the session")

// answer handles a Response, which is matched by packetID alone: the master
// numbers its own requests in a space of its own.
func (s *session) answer(h pdu.Header, payload []byte) error {
	r, err := parseResponse(h, payload)
	if err != nil {
		return s.malformed(h, err)
	}
	s.bad = 0
	for i, p := range s.pending {
		if p.packet != h.PacketID {
			continue
		}
		if s.phase != opening && h.SessionID != s.id {
			return nil
		}
		s.pending = append(s.pending[:i], s.pending[i+1:]...)
		return s.answered(p, h, r)
	}
	return nil // late, or a second one
}

func (s *session) answered(p pending, h pdu.Header, r response) error {
	var refused error
	if r.code != pdu.ErrorNone {
		refused = &refusal{p.kind, r.code}
	}
	if p.optional {
		if refused != nil {
			s.a.cfg.Report(Event{Kind: Refused, Err: refused})
		}
		return nil
	}
	switch p.kind {
	case pdu.TypeOpen:
		if refused != nil {
			return refused
		}
		s.id = h.SessionID
		s.join()
	case pdu.TypeAddAgentCaps:
		if refused != nil {
			s.a.cfg.Report(Event{Kind: CapsRefused, Err: refused})
		}
	case pdu.TypeRegister:
		if refused != nil {
			s.bye(pdu.ReasonOther)
			return refused
		}
		s.phase = up
		s.a.down = false
		s.a.cfg.Report(Event{
			Kind: Up, Restarted: s.a.master.restarted(r.upTime, s.heard), MasterUp: time.Duration(r.upTime) * tick,
		})
		s.reportDropped(s.a.queue.open(s.alarm.ring))
	case pdu.TypePing:
		return refused
	case pdu.TypeNotify:
		if refused != nil {
			s.a.cfg.Report(Event{Kind: Dropped, Err: refused, Count: 1})
		}
	}
	if s.phase == up {
		s.a.master = masterClock{r.upTime, s.heard}
	}
	return nil
}

// join registers our subtree, and an entry in sysORTable: the one way for a
// manager to learn that the MIB is there. The entry comes after the subtree, so
// that its failure cannot matter.
func (s *session) join() {
	s.phase = joining
	cfg := &s.a.cfg
	if body, err := registerBody(cfg.Subtree); err == nil {
		s.send(pdu.TypeRegister, body, true)
	}
	for _, subtree := range cfg.More {
		if body, err := registerBody(subtree); err == nil {
			s.send(pdu.TypeRegister, body, true)
			s.pending[len(s.pending)-1].optional = true
		}
	}
	if cfg.Capabilities != "" {
		s.send(pdu.TypeAddAgentCaps, capsBody(cfg.Subtree, cfg.Capabilities), true)
	}
}
