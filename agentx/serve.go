package agentx

import (
	"errors"
	"fmt"
	"time"

	"github.com/posteo/go-agentx/pdu"
)

const (
	errGen       uint16 = 5        // genErr
	bulkResponse        = 32 << 10 // where a GetBulk ends that could go on
)

// handle deals with one PDU. An error ends the session.
func (s *session) handle(h pdu.Header, payload []byte) error {
	switch h.Type {
	case pdu.TypeResponse:
		return s.answer(h, payload)
	case pdu.TypeGet, pdu.TypeGetNext, pdu.TypeGetBulk,
		pdu.TypeTestSet, pdu.TypeCommitSet, pdu.TypeUndoSet, pdu.TypeCleanupSet:
		return s.request(h, payload)
	case pdu.TypeClose:
		return s.closed(h, payload)
	}
	return s.malformed(h, fmt.Errorf("pdu type %d is not for a subagent", h.Type))
}

func (s *session) closed(h pdu.Header, payload []byte) error {
	if s.phase == opening || h.SessionID != s.id {
		s.reply(h, uint16(pdu.ErrorNotOpen), 0)
		return nil
	}
	why := pdu.ReasonOther
	if len(payload) > 0 {
		why = pdu.Reason(payload[0])
	}
	s.reply(h, 0, 0)
	_ = s.flush() // it asks for an answer; whether it still reads one is its affair
	return fmt.Errorf("%w, reason %d", errClosed, why)
}

// malformed answers what cannot be understood. A Response is never answered
// (RFC 2741, 7.1). A peer that keeps talking nonsense is left.
func (s *session) malformed(h pdu.Header, why error) error {
	why = fmt.Errorf("%s from the master agent: %w", kindName(h.Type), why)
	s.bad++
	s.a.cfg.Report(Event{Kind: BadPDU, Err: why})
	if h.Type != pdu.TypeResponse && h.Type != pdu.TypeCleanupSet {
		s.reply(h, uint16(pdu.ErrorParse), 0)
	}
	if s.bad >= maxBadRow {
		s.bye(pdu.ReasonParseError)
		return why
	}
	return nil
}

// reply queues an answer without variables.
func (s *session) reply(h pdu.Header, code uint16, index int) {
	from := len(s.out)
	s.out = beginResponse(s.out, h)
	endResponse(s.out, h, from, code, index)
}

func (s *session) request(h pdu.Header, payload []byte) error {
	if err := s.req.decode(h, payload); err != nil {
		return s.malformed(h, err)
	}
	s.bad = 0
	silent := h.Type == pdu.TypeCleanupSet
	switch {
	case s.phase == opening || h.SessionID != s.id:
		if !silent {
			s.reply(h, uint16(pdu.ErrorNotOpen), 0)
		}
		return nil
	case hasContext(h.Type) && s.req.context != s.a.cfg.Context:
		s.reply(h, uint16(pdu.ErrorUnsupportedContext), 0)
		return nil
	}
	now := time.Now()
	switch h.Type {
	case pdu.TypeGet, pdu.TypeGetNext, pdu.TypeGetBulk:
		s.readRequest(h, s.views.get(h.TransactionID, now, s.a.cfg.Handler))
	default:
		if code, index := s.set(h, now); !silent {
			s.reply(h, code, index)
		}
	}
	return nil
}

// hasContext: the later PDUs of a SET have no context (RFC 2741, 6.1.1).
func hasContext(k pdu.Type) bool {
	return k == pdu.TypeGet || k == pdu.TypeGetNext || k == pdu.TypeGetBulk || k == pdu.TypeTestSet
}

var errTooLong = errors.New("response too long")

// readRequest answers with exactly one variable for each range, in order. A
// master that gets another number waits for ever (net-snmp 5.9).
func (s *session) readRequest(h pdu.Header, v View) {
	from := len(s.out)
	s.out = beginResponse(s.out, h)
	var err error
	at := 0
	switch h.Type {
	case pdu.TypeGet:
		at, err = s.get(h, from, v)
	case pdu.TypeGetNext:
		at, err = s.getNext(h, from, v, s.req.ranges)
	default:
		at, err = s.getBulk(h, from, v)
	}
	if err == nil {
		endResponse(s.out, h, from, 0, 0)
		return
	}
	// OpenBSD's master wants the names back with an error; where there is no
	// room for them nothing but an empty list is left (RFC 2741, 7.2.3).
	s.out = beginResponse(s.out[:from], h)
	for _, r := range s.req.ranges {
		s.out = appendVarBind(s.out, orderOf(h.Flags), r.start, Value{Type: TypeNull})
	}
	if len(s.out)-from > maxPDU {
		s.out = beginResponse(s.out[:from], h)
	}
	endResponse(s.out, h, from, errGen, at)
}

// add appends one variable to the response at from.
func (s *session) add(h pdu.Header, from int, name []uint32, v Value) error {
	s.out = appendVarBind(s.out, orderOf(h.Flags), name, v)
	if len(s.out)-from > maxPDU {
		return errTooLong
	}
	return nil
}

func (s *session) get(h pdu.Header, from int, v View) (at int, err error) {
	for i, r := range s.req.ranges {
		if err := s.add(h, from, r.start, v.Get(r.start)); err != nil {
			return i + 1, err
		}
	}
	return 0, nil
}

func (s *session) getNext(h pdu.Header, from int, v View, ranges []searchRange) (at int, err error) {
	for i, r := range ranges {
		name, val := v.Next(s.name[:0], r.start, r.include, r.end)
		s.name = name
		if val.Type == TypeEndOfMIBView {
			name = r.start // unchanged: OpenBSD's master closes the session otherwise
		}
		if err := s.add(h, from, name, val); err != nil {
			return i + 1, err
		}
	}
	return 0, nil
}

// getBulk is RFC 2741, 7.2.3.3. The masters that are known turn a GETBULK into
// GetNexts, so this one does not try to be fast.
func (s *session) getBulk(h pdu.Header, from int, v View) (at int, err error) {
	once := min(s.req.nonRepeaters, len(s.req.ranges))
	if at, err := s.getNext(h, from, v, s.req.ranges[:once]); err != nil {
		return at, err
	}
	repeat := append([]searchRange(nil), s.req.ranges[once:]...)
	for range s.req.repetitions {
		end := len(s.out)
		live := false
		for i := range repeat {
			r := &repeat[i]
			name, val := v.Next(nil, r.start, r.include, r.end)
			if val.Type != TypeEndOfMIBView {
				r.start, r.include = name, false
				live = true
			}
			s.out = appendVarBind(s.out, orderOf(h.Flags), r.start, val)
		}
		switch size := len(s.out) - from; {
		case size > bulkResponse && end > from+pdu.HeaderSize+8:
			s.out = s.out[:end] // this round was one too many
			return 0, nil
		case size > maxPDU:
			return once + 1, errTooLong
		}
		if !live {
			break
		}
	}
	return 0, nil
}

// viewCache keeps the View of the latest transactions: the PDUs that a master
// makes of one request have the transactionID in common (RFC 2741, 6.1), and
// are to be answered from one state.
type viewCache struct {
	entries [16]viewEntry
	next    int
}

type viewEntry struct {
	transaction uint32
	view        View
	until       time.Time
}

// viewLife is longer than a request takes, and short enough for a master that
// uses a number again.
const viewLife = 5 * time.Second

func (c *viewCache) get(transaction uint32, now time.Time, from Handler) View {
	for i := range c.entries {
		e := &c.entries[i]
		if e.view != nil && e.transaction == transaction && now.Before(e.until) {
			return e.view
		}
	}
	e := viewEntry{transaction, from.View(), now.Add(viewLife)}
	c.entries[c.next] = e
	c.next = (c.next + 1) % len(c.entries)
	return e.view
}
