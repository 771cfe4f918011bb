package agentx

import (
	"errors"
	"fmt"
	"sync"

	"github.com/posteo/go-agentx/pdu"
)

// snmpTrapOID.0 names the notification and comes first (RFC 2741, 6.2.10).
// sysUpTime.0 is left to the master.
var snmpTrapOID = []uint32{1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0}

// ErrTooLong is an error of Notify.
var ErrTooLong = errors.New("longer than a master agent takes")

// maxNotify leaves room for the header and the context.
const maxNotify = maxPDU - 4096

// What waits, with a master that is busy or away; then the oldest goes.
const (
	maxQueue      = 1000
	maxQueueBytes = 4 << 20
)

// queue holds notifications, encoded, for the session to send.
type queue struct {
	mu      sync.Mutex
	items   [][]byte
	bytes   int // of items
	dropped int
	wake    func() // nil without a session
}

// Notify has the notification oid with its objects sent to the master. It does
// not wait: an error says that it will not be sent, and no error does not say
// that it was received. Without a session it waits for the next one.
func (a *Agent) Notify(oid []uint32, objects []VarBind) error {
	b := appendVarBind(nil, ours, snmpTrapOID, Value{Type: TypeOID, OID: oid})
	for _, o := range objects {
		b = appendVarBind(b, ours, o.Name, o.Value)
		if len(b) > maxNotify {
			return fmt.Errorf("notify: %w", ErrTooLong)
		}
	}
	a.queue.put(b)
	return nil
}

func (q *queue) put(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, b)
	q.bytes += len(b)
	for len(q.items) > maxQueue || q.bytes > maxQueueBytes {
		q.first()
		q.dropped++
	}
	if len(q.items) == 1 && q.wake != nil {
		q.wake()
	}
}

// first takes the oldest.
func (q *queue) first() []byte {
	b := q.items[0]
	q.items[0] = nil // the array behind items lives on
	q.items, q.bytes = q.items[1:], q.bytes-len(b)
	return b
}

// get returns the next notification, nil when there is none. With the last one
// it says how many were lost in front of it: once for a burst.
func (q *queue) get() (b []byte, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 {
		b = q.first()
	}
	if len(q.items) == 0 {
		dropped, q.dropped = q.dropped, 0
	}
	return b, dropped
}

func (q *queue) open(wake func()) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake = wake
	dropped, q.dropped = q.dropped, 0
	return dropped
}

// close is the end of a session; flying were sent and not answered. Whether the
// master had time for them nobody knows: they are not sent again.
func (q *queue) close(flying int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped += flying
	q.wake = nil
}

func (s *session) sendNotification() {
	b, dropped := s.a.queue.get()
	s.reportDropped(dropped)
	if b != nil {
		s.send(pdu.TypeNotify, b, true)
	}
}

func (s *session) reportDropped(n int) {
	if n > 0 {
		s.a.cfg.Report(Event{Kind: Dropped, Count: n})
	}
}
