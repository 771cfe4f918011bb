package agentx

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posteo/go-agentx/pdu"
)

var subtree = []uint32{1, 3, 6, 1, 4, 1, 9999}

func under(arcs ...uint32) []uint32 { return append(slices.Clone(subtree), arcs...) }

// toy is a table of instances under subtree, column by column.
type toy struct {
	names  [][]uint32
	values []Value
	views  int

	sets    []string // what was done to Sets, in order
	refuse  uint16   // what Test answers
	failing bool     // Commit and Undo fail
}

func newToy(columns, rows uint32) *toy {
	t := &toy{}
	for c := uint32(1); c <= columns; c++ {
		for r := uint32(1); r <= rows; r++ {
			t.names = append(t.names, under(c, r))
			t.values = append(t.values, Value{Type: TypeInteger, Number: uint64(c*1000 + r)})
		}
	}
	return t
}

func (t *toy) View() View { t.views++; return t }

func (t *toy) Get(name []uint32) Value {
	i, ok := slices.BinarySearchFunc(t.names, name, slices.Compare[[]uint32])
	switch {
	case ok:
		return t.values[i]
	case len(name) > len(subtree) && slices.ContainsFunc(t.names, func(n []uint32) bool { return n[len(subtree)] == name[len(subtree)] }):
		return Value{Type: TypeNoSuchInstance}
	}
	return Value{Type: TypeNoSuchObject}
}

func (t *toy) Next(dst, start []uint32, include bool, end []uint32) ([]uint32, Value) {
	i, found := slices.BinarySearchFunc(t.names, start, slices.Compare[[]uint32])
	if found && !include {
		i++
	}
	if i >= len(t.names) || len(end) > 0 && slices.Compare(t.names[i], end) >= 0 {
		return dst[:0], Value{Type: TypeEndOfMIBView}
	}
	return append(dst[:0], t.names[i]...), t.values[i]
}

func (t *toy) Test(binds []VarBind) (Set, uint16, int) {
	t.sets = append(t.sets, "test")
	if t.refuse != 0 {
		return nil, t.refuse, len(binds)
	}
	return t, 0, 0
}

func (t *toy) Commit() error { return t.did("commit") }
func (t *toy) Undo() error   { return t.did("undo") }

func (t *toy) did(what string) error {
	t.sets = append(t.sets, what)
	if t.failing {
		return errors.New("refused")
	}
	return nil
}

// fakeMaster is the other end of an Agent's connections: strict as OpenBSD's
// snmpd, and able to do what no master should.
type fakeMaster struct {
	t      *testing.T
	agent  *Agent
	toy    *toy
	events []Event
	refuse atomic.Bool // Dial fails

	mu    sync.Mutex
	dials []time.Time

	conns   chan net.Conn
	conn    net.Conn
	out     chan []byte
	order   pdu.Flags // of what it sends
	session uint32
	packet  uint32
	tx      uint32
	started time.Time // the zero of its sysUpTime
	caps    pdu.Error // its answer to AddAgentCaps
	reg     pdu.Error // and to Register
}

// withMaster runs f in a bubble of fake time with an Agent under way.
func withMaster(t *testing.T, change func(*Config), f func(*fakeMaster)) {
	t.Helper()
	startMaster(t, false, change, f)
}

// startMaster is withMaster with one that cannot be reached at first (away).
func startMaster(t *testing.T, away bool, change func(*Config), f func(*fakeMaster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMaster{t: t, toy: newToy(3, 4), conns: make(chan net.Conn, 1), session: 77, started: time.Now()}
		m.refuse.Store(away)
		cfg := Config{
			Dial: m.dial, Handler: m.toy, Subtree: subtree, Description: "test",
			Capabilities: "a MIB", Jitter: func() float64 { return 0 },
			Report: func(e Event) { m.events = append(m.events, e) },
		}
		if change != nil {
			change(&cfg)
		}
		m.agent = New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.agent.Run(ctx) }()
		f(m)
		if m.conn != nil {
			m.hangUp()
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run returns %v", err)
		}
	})
}

func (m *fakeMaster) dial(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	m.dials = append(m.dials, time.Now())
	m.mu.Unlock()
	if m.refuse.Load() {
		return nil, errors.New("no such file")
	}
	here, there := net.Pipe()
	select {
	case m.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *fakeMaster) dialled() []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.dials)
}

// accept waits for a connection and does not answer it.
func (m *fakeMaster) accept() {
	m.conn = <-m.conns
	m.out = make(chan []byte, 100)
	go func(c net.Conn, out chan []byte) {
		for b := range out {
			c.Write(b)
		}
	}(m.conn, m.out)
}

func (m *fakeMaster) hangUp() {
	m.conn.Close()
	close(m.out)
	m.conn = nil
}

// join accepts a connection and answers until the subtree is registered.
func (m *fakeMaster) join() {
	m.t.Helper()
	m.accept()
	h, _ := m.expect(pdu.TypeOpen)
	m.answer(h, 0)
	h, _ = m.expect(pdu.TypeRegister)
	caps, _ := m.expect(pdu.TypeAddAgentCaps)
	m.answer(h, m.reg)
	if m.reg == 0 {
		m.answer(caps, m.caps)
	}
	synctest.Wait()
}

// read returns the next PDU of the agent.
func (m *fakeMaster) read() (pdu.Header, []byte, error) {
	head := make([]byte, pdu.HeaderSize)
	if _, err := io.ReadFull(m.conn, head); err != nil {
		return pdu.Header{}, nil, err
	}
	h, err := parseHeader(head)
	if err != nil {
		return h, nil, err
	}
	payload := make([]byte, h.PayloadLength)
	_, err = io.ReadFull(m.conn, payload)
	return h, payload, err
}

func (m *fakeMaster) expect(kind pdu.Type) (pdu.Header, []byte) {
	m.t.Helper()
	h, payload, err := m.read()
	if err != nil {
		m.t.Fatalf("waiting for %s: %v", kindName(kind), err)
	}
	if h.Type != kind {
		m.t.Fatalf("got %s, want %s", kindName(h.Type), kindName(kind))
	}
	return h, payload
}

// expectEnd wants the agent to have closed the connection.
func (m *fakeMaster) expectEnd() {
	m.t.Helper()
	if h, _, err := m.read(); !errors.Is(err, io.EOF) {
		m.t.Fatalf("got %s and %v, want the connection closed", kindName(h.Type), err)
	}
	close(m.out)
	m.conn = nil
}

func (m *fakeMaster) send(b []byte) { m.out <- b }

// answer responds to a request of the agent as net-snmp does, echoing a variable.
func (m *fakeMaster) answer(h pdu.Header, code pdu.Error) {
	o := orderOf(m.order)
	h.Type, h.Flags = pdu.TypeResponse, m.order
	if h.SessionID == 0 {
		h.SessionID = m.session
	}
	b := appendHeader(nil, o, h)
	b = o.AppendUint32(b, uint32(time.Since(m.started)/(10*time.Millisecond)))
	b = o.AppendUint16(b, uint16(code))
	b = o.AppendUint16(b, 0)
	b = appendVarBind(b, o, subtree, Value{Type: TypeNull})
	setLength(b, o, 0)
	m.send(b)
}

// pduOf builds a request of the master.
func (m *fakeMaster) pduOf(kind pdu.Type, context string, body []byte) []byte {
	m.packet++
	m.tx++
	h := pdu.Header{Type: kind, Flags: m.order, SessionID: m.session, TransactionID: m.tx, PacketID: m.packet}
	o := orderOf(m.order)
	if context != "" {
		h.Flags |= pdu.FlagNonDefaultContext
	}
	b := appendHeader(nil, o, h)
	if context != "" {
		b = appendText(b, o, context)
	}
	b = append(b, body...)
	setLength(b, o, 0)
	return b
}

func (m *fakeMaster) ranges(list ...searchRange) (body []byte) {
	o := orderOf(m.order)
	for _, r := range list {
		at := len(body)
		body = appendOID(body, o, r.start)
		if r.include {
			body[at+2] = 1
		}
		body = appendOID(body, o, r.end)
	}
	return body
}

func (m *fakeMaster) binds(list ...VarBind) (body []byte) {
	for _, b := range list {
		body = appendVarBind(body, orderOf(m.order), b.Name, b.Value)
	}
	return body
}

// reply is a Response, read in full.
type reply struct {
	pdu.Header
	code  pdu.Error
	index uint16
	binds []VarBind
}

func (m *fakeMaster) reply() reply {
	m.t.Helper()
	h, payload := m.expect(pdu.TypeResponse)
	if h.Flags != m.order {
		m.t.Errorf("flags %#x in the answer, want %#x", h.Flags, m.order)
	}
	d := decoder{b: payload, order: orderOf(h.Flags)}
	if t := d.uint32(); t != 0 {
		m.t.Errorf("sysUpTime %d in a subagent's response", t)
	}
	r := reply{Header: h, code: pdu.Error(d.uint16()), index: d.uint16()}
	for len(d.b) > 0 {
		r.binds = append(r.binds, d.varBind())
	}
	if d.err != nil {
		m.t.Fatalf("response: %v", d.err)
	}
	if r.code != 0 && (int(r.index) > len(r.binds) && len(r.binds) > 0) {
		m.t.Errorf("error %d at %d of %d variables", r.code, r.index, len(r.binds))
	}
	return r
}

// ask sends a request and returns its answer, whose numbers it checks.
func (m *fakeMaster) ask(kind pdu.Type, body []byte) reply {
	m.t.Helper()
	m.send(m.pduOf(kind, "", body))
	r := m.reply()
	if r.PacketID != m.packet || r.TransactionID != m.tx || r.SessionID != m.session {
		m.t.Errorf("answer to packet %d, transaction %d, session %d; want %d, %d, %d",
			r.PacketID, r.TransactionID, r.SessionID, m.packet, m.tx, m.session)
	}
	return r
}

// next asks a GetNext and makes the checks that cost a session with OpenBSD's
// master: number, order, bound, and the name of an endOfMibView.
func (m *fakeMaster) next(list ...searchRange) reply {
	m.t.Helper()
	r := m.ask(pdu.TypeGetNext, m.ranges(list...))
	if r.code != 0 || len(r.binds) != len(list) {
		m.t.Fatalf("error %d, %d variables for %d ranges", r.code, len(r.binds), len(list))
	}
	for i, b := range r.binds {
		q := list[i]
		c := slices.Compare(b.Name, q.start)
		switch {
		case b.Value.Type == TypeEndOfMIBView:
			if c != 0 {
				m.t.Errorf("endOfMibView is named %v, want %v", b.Name, q.start)
			}
		case c < 0 || c == 0 && !q.include || len(q.end) > 0 && slices.Compare(b.Name, q.end) >= 0:
			m.t.Errorf("%v is not in %+v", b.Name, q)
		}
	}
	return r
}

func (m *fakeMaster) kinds() (k []EventKind) {
	for _, e := range m.events {
		k = append(k, e.Kind)
	}
	return k
}

func (m *fakeMaster) wantEvents(want ...EventKind) {
	m.t.Helper()
	synctest.Wait()
	if got := m.kinds(); !slices.Equal(got, want) {
		m.t.Errorf("events %v, want %v", m.events, want)
	}
}
