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

// Errors of Notify.
var (
	ErrNoSession = errors.New("no session with a master agent")
	ErrTooLong   = errors.New("longer than a master agent takes")
)

// maxNotify leaves room for the header and the context.
const maxNotify = maxPDU - 4096

// maxQueue is how many notifications wait; then the oldest goes.
const maxQueue = 1000

// queue holds notifications, encoded, for the session to send.
type queue struct {
	mu      sync.Mutex
	items   [][]byte
	dropped int
	wake    func() // nil without a session
}

// Notify has the notification oid with its objects sent to the master. It does
// not wait: an error says that it will not be sent, and no error does not say
// that it was received. Notifications that wait when a session ends are gone.
func (a *Agent) Notify(oid []uint32, objects []VarBind) error {
	b := appendVarBind(nil, ours, snmpTrapOID, Value{Type: TypeOID, OID: oid})
	for _, o := range objects {
		b = appendVarBind(b, ours, o.Name, o.Value)
		if len(b) > maxNotify {
			return fmt.Errorf("notify: %w", ErrTooLong)
		}
	}
	return a.queue.put(b)
}

func (q *queue) put(b []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.wake == nil {
		q.dropped++
		return ErrNoSession
	}
	if len(q.items) >= maxQueue {
		q.items = q.items[1:]
		q.dropped++
	}
	q.items = append(q.items, b)
	if len(q.items) == 1 {
		q.wake()
	}
	return nil
}

// get returns the next notification, nil when there is none. With the last one
// it says how many were lost in front of it: once for a burst.
func (q *queue) get() (b []byte, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 {
		b, q.items = q.items[0], q.items[1:]
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

// close drops what waits; flying more have been sent and not answered.
func (q *queue) close(flying int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped += len(q.items) + flying
	q.items, q.wake = nil, nil
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
