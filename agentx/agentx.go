// Package agentx is an AgentX subagent (RFC 2741): it holds a session with a
// master agent such as net-snmp's snmpd or OpenBSD's, answers what the master
// asks about one subtree, and hands it notifications.
//
// One goroutine, that of Agent.Run, owns everything of a session. It reads,
// answers from memory and writes, because a master turns a GETBULK into one
// round trip after the other, and the time of each is the speed of a walk. Other
// goroutines (Notify, the end of a context) wake it by moving its read deadline.
//
// PDU types, flags and error numbers, and the requests a session begins with, are
// those of go-agentx. Requests of the master are decoded and answered by code of
// this package: the library knows one byte order only, reads integers of a
// VarBind from the wrong place, indexes without checks, and cannot say what
// TestSet, GetBulk and contexts need. None of its types leave this package.
package agentx

import (
	"context"
	"math/rand/v2"
	"net"
	"time"
)

// Types of a Value (RFC 2741, 5.4).
const (
	TypeInteger        uint16 = 2
	TypeOctetString    uint16 = 4
	TypeNull           uint16 = 5
	TypeOID            uint16 = 6
	TypeIPAddress      uint16 = 64
	TypeCounter32      uint16 = 65
	TypeGauge32        uint16 = 66
	TypeTimeTicks      uint16 = 67
	TypeOpaque         uint16 = 68
	TypeCounter64      uint16 = 70
	TypeNoSuchObject   uint16 = 128
	TypeNoSuchInstance uint16 = 129
	TypeEndOfMIBView   uint16 = 130
)

// Value is the value of one variable. A package that has a value type with the
// same fields, as mib has, can convert it without knowing this one.
type Value struct {
	Type   uint16
	Number uint64   // Integer (as its 32 bits), Counter32, Gauge32, TimeTicks, Counter64
	Text   string   // OctetString, IPAddress, Opaque
	OID    []uint32 // ObjectIdentifier
}

// VarBind is a named value.
type VarBind struct {
	Name  []uint32
	Value Value
}

// Handler knows the variables. Its methods are called on Run's goroutine and
// must not block.
type Handler interface {
	// View returns the state that all PDUs of one request are answered from.
	View() View

	// Test checks a SET without changing anything. code is 0 or an error of
	// RFC 3416 for the variable index, counted from 1. The names and the list
	// are only valid during the call.
	Test(binds []VarBind) (set Set, code uint16, index int)
}

// View reads variables. Next returns the first instance after start (at or after
// it with include) and before end, which is empty for no bound; its name is built
// in dst. Without such an instance the type is TypeEndOfMIBView. Get returns
// TypeNoSuchObject or TypeNoSuchInstance for a name without a value.
type View interface {
	Get(name []uint32) Value
	Next(dst, start []uint32, include bool, end []uint32) ([]uint32, Value)
}

// Set is a SET that Test found good. An error of Commit becomes commitFailed and
// is followed by Undo; a Set that is neither committed nor undone is dropped.
type Set interface {
	Commit() error
	Undo() error
}

// Config says whom to talk to, and as what.
type Config struct {
	// Dial connects to the master. Its context ends after 5 seconds.
	Dial func(context.Context) (net.Conn, error)

	Handler     Handler
	Subtree     []uint32   // what is registered
	More        [][]uint32 // registered as well, if the master lets us: see Refused
	Context     string     // SNMP context; empty for the default one
	Description string     // of the session; at most 255 octets, no NUL

	// Capabilities is shown in the master's sysORTable as the description of
	// Subtree. Empty: no entry.
	Capabilities string

	// MasterUp is how long the master that an earlier Agent has last talked to
	// has been up by now, if it is still the same run of it: Restarted says
	// whether it is. 0: not known.
	MasterUp time.Duration

	// Report is told what an operator may want to know, on Run's goroutine.
	// May be nil.
	Report func(Event)

	// Jitter returns a number in [0,1); nil stands for a random one.
	Jitter func() float64
}

// EventKind says what an Event is about.
type EventKind uint8

const (
	// Up: the subtree is registered. Restarted is set when the master is not
	// the run of it that the last session was with; MasterUp is how long it
	// has been up.
	Up EventKind = iota + 1
	// Down: there is no session because of Err. Reported once, not for every
	// attempt that follows.
	Down
	// CapsRefused: the master has no sysORTable entry for us, because of Err.
	CapsRefused
	// Refused: the master does not let us have a subtree of Config.More,
	// because of Err.
	Refused
	// BadPDU: the master sent something that breaks the protocol.
	BadPDU
	// Dropped: Count notifications were not sent or not answered.
	Dropped
)

// Event is something that happened to a session.
type Event struct {
	Kind      EventKind
	Err       error
	Restarted bool
	MasterUp  time.Duration
	Count     int
}

// Times and limits. net-snmp's own subagents ping every 15 seconds.
const (
	requestTimeout = 5 * time.Second
	writeTimeout   = 5 * time.Second
	halfTimeout    = 5 * time.Second // for the rest of a PDU
	pingAfter      = 15 * time.Second
	firstDelay     = 500 * time.Millisecond
	maxDelay       = 4 * time.Second // with jitter, a master that is back is found within 5 seconds
	slowDelay      = 5 * time.Minute // after an error that will not go away
	settled        = 60 * time.Second
	jitterPart     = 0.2
	priority       = 127 // RFC 2741, 6.2.3: the default
)

// Agent is a subagent. Make one with New, then call Run.
type Agent struct {
	cfg   Config
	queue queue

	// Only Run's goroutine looks at these.
	master masterClock
	down   bool // a Down was reported since the last Up
}

// New returns a subagent that Run has yet to start.
func New(cfg Config) *Agent {
	if cfg.Report == nil {
		cfg.Report = func(Event) {}
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	a := &Agent{cfg: cfg}
	if cfg.MasterUp > 0 {
		a.master = masterClock{uint32(cfg.MasterUp / tick), time.Now()}
	}
	return a
}

// Run keeps a session with the master until ctx ends, whose error it returns. A
// master that is not there, refuses, breaks the protocol or goes away is tried
// again, ever more slowly up to 5 seconds; one whose refusal will not go away,
// after 5 minutes.
func (a *Agent) Run(ctx context.Context) error {
	delay := firstDelay
	for {
		began := time.Now()
		err := a.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !a.down {
			a.down = true
			a.cfg.Report(Event{Kind: Down, Err: err})
		}
		if time.Since(began) >= settled {
			delay = firstDelay
		}
		wait := delay
		if lasting(err) {
			wait = slowDelay
		}
		wait += time.Duration(float64(wait) * jitterPart * a.cfg.Jitter())
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		delay = min(2*delay, maxDelay)
	}
}

// tick is the unit of sysUpTime.
const tick = 10 * time.Millisecond

// masterClock is the sysUpTime that a master last told, and when.
type masterClock struct {
	ticks uint32
	at    time.Time
}

// restarted says whether a master whose sysUpTime is ticks now has started since
// c: it is less than it was, or a second behind what it would be by now.
func (c masterClock) restarted(ticks uint32, now time.Time) bool {
	if c.at.IsZero() {
		return false
	}
	expected := c.ticks + uint32(now.Sub(c.at)/tick)
	// Differences have a sign: sysUpTime wraps after 497 days.
	return int32(c.ticks-ticks) > 0 || int32(expected-ticks) > 100
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
