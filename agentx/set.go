package agentx

import (
	"time"

	"github.com/posteo/go-agentx/pdu"
)

const (
	errCommitFailed uint16 = 14
	errUndoFailed   uint16 = 15

	maxSets = 8
	setLife = 30 * time.Second // a master that is lost never cleans up
)

// setPhase is where a SET is:
//
//	TestSet ──ok──▶ tested ──CommitSet──▶ committed ──CleanupSet──▶ gone
//	   └─error─▶ failed                └─error─▶ committed ──UndoSet──▶ gone
type setPhase uint8

const (
	failed setPhase = iota
	tested
	committed
)

// transaction is the state of one SET, with the last answer for a master that
// repeats its question (same packetID).
type transaction struct {
	id     uint32
	phase  setPhase
	set    Set
	until  time.Time
	packet uint32
	kind   pdu.Type
	code   uint16
	index  int
}

// sets are the SETs that are under way. RFC 2741 promises one at a time.
type sets []*transaction

func (l sets) find(id uint32) *transaction {
	for _, t := range l {
		if t.id == id {
			return t
		}
	}
	return nil
}

func (l *sets) forget(id uint32) {
	for i, t := range *l {
		if t.id == id {
			*l = append((*l)[:i], (*l)[i+1:]...)
			return
		}
	}
}

// expire forgets what is old, and the oldest when there are too many.
func (l *sets) expire(now time.Time) {
	for len(*l) > 0 && (len(*l) >= maxSets || now.After((*l)[0].until)) {
		*l = (*l)[1:]
	}
}

// lost takes back what a master has committed and not confirmed.
func (l *sets) lost() {
	for _, t := range *l {
		if t.phase == committed {
			_ = t.set.Undo()
		}
	}
	*l = nil
}

// set carries out one step of a SET and returns the answer.
func (s *session) set(h pdu.Header, now time.Time) (code uint16, index int) {
	t := s.sets.find(h.TransactionID)
	if t != nil && t.packet == h.PacketID && t.kind == h.Type {
		return t.code, t.index
	}
	switch h.Type {
	case pdu.TypeTestSet:
		s.sets.forget(h.TransactionID)
		s.sets.expire(now)
		t = &transaction{id: h.TransactionID, until: now.Add(setLife)}
		s.sets = append(s.sets, t)
		t.set, code, index = s.a.cfg.Handler.Test(s.req.binds)
		if code == 0 {
			t.phase = tested
		}
	case pdu.TypeCommitSet:
		if t == nil || t.phase != tested {
			return errCommitFailed, 0
		}
		t.phase = committed
		if err := t.set.Commit(); err != nil {
			code = errCommitFailed
		}
	case pdu.TypeUndoSet:
		s.sets.forget(h.TransactionID)
		if t != nil && t.phase == committed && t.set.Undo() != nil {
			return errUndoFailed, 0
		}
		return 0, 0
	default: // CleanupSet
		s.sets.forget(h.TransactionID)
		return 0, 0
	}
	t.packet, t.kind, t.code, t.index = h.PacketID, h.Type, code, index
	return code, index
}
