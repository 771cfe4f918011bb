package agentx

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posteo/go-agentx/pdu"
)

// discard is a connection that takes everything.
type discard struct{ net.Conn }

func (discard) Write(b []byte) (int, error)        { return len(b), nil }
func (discard) SetWriteDeadline(t time.Time) error { return nil }
func (discard) Close() error                       { return nil }

// The first PDUs octet by octet, as RFC 2741 draws them.
func TestFirstPDUs(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.accept()
		h, body := m.expect(pdu.TypeOpen)
		want := []byte{
			0, 0, 0, 0, // timeout, reserved
			0, 0, 0, 0, // id: null
			4, 0, 0, 0, 't', 'e', 's', 't',
		}
		if !bytes.Equal(body, want) || h.SessionID != 0 || h.Flags != 0 {
			m.t.Errorf("open: session %d, flags %#x, % x, want % x", h.SessionID, h.Flags, body, want)
		}
		m.answer(h, 0)
		h, body = m.expect(pdu.TypeRegister)
		want = []byte{
			0, 127, 0, 0, // timeout, priority, range_subid, reserved
			7, 0, 0, 0, // 7 arcs, no prefix
			1, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0x0f, 0x27, 0, 0,
		}
		if !bytes.Equal(body, want) || h.SessionID != m.session {
			m.t.Errorf("register: session %d, % x, want % x", h.SessionID, body, want)
		}
		_, body = m.expect(pdu.TypeAddAgentCaps)
		want = []byte{
			2, 4, 0, 0, // 2 arcs after 1.3.6.1.4
			1, 0, 0, 0, 0x0f, 0x27, 0, 0,
			5, 0, 0, 0, 'a', ' ', 'M', 'I', 'B', 0, 0, 0,
		}
		if !bytes.Equal(body, want) {
			m.t.Errorf("addagentcaps: % x, want % x", body, want)
		}
	})
}

func TestUpAndDown(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		m.wantEvents(Up)
		m.hangUp()
		m.join()
		m.wantEvents(Up, Down, Up)
		if m.events[0].Restarted || m.events[2].Restarted {
			m.t.Error("the master is said to have restarted")
		}
	})
}

func TestMasterRestart(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		m.live(10 * time.Second)
		m.hangUp()
		m.started = time.Now()
		m.join()
		m.wantEvents(Up, Down, Up)
		if !m.events[2].Restarted {
			m.t.Error("a smaller sysUpTime is no restart")
		}
	})
}

// What was known of the master before this Agent tells whether it is another run
// of it.
func TestMasterBeforeThisAgent(t *testing.T) {
	for up, want := range map[time.Duration]bool{time.Hour: false, time.Hour - 10*time.Second: true} {
		withMaster(t, func(c *Config) { c.MasterUp = time.Hour }, func(m *fakeMaster) {
			m.started = time.Now().Add(-up)
			m.join()
			m.wantEvents(Up)
			if e := m.events[0]; e.Restarted != want || e.MasterUp != up {
				m.t.Errorf("a master that is up for %v, not an hour: %+v", up, e)
			}
		})
	}
}

func TestMasterClock(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		was, is uint32
		later   time.Duration
		want    bool
	}{
		{1000, 1100, time.Second, false},
		{1000, 1010, time.Second, false}, // its clock may be read at another moment
		{1000, 999, 0, true},
		{1000, 50, time.Second, true},
		{1000, 5000, time.Minute, true}, // more than before, and less than it has to be
		{1<<32 - 50, 50, time.Second, false},
		{1000, 1 << 31, time.Second, false},
	} {
		if got := (masterClock{c.was, now}).restarted(c.is, now.Add(c.later)); got != c.want {
			t.Errorf("sysUpTime %d, %v later %d: restarted %v, want %v", c.was, c.later, c.is, got, c.want)
		}
	}
	if (masterClock{}).restarted(5, now) {
		t.Error("the first session is said to be after a restart")
	}
}

func TestCapsRefused(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.caps = pdu.ErrorProcessing
		m.join()
		m.next(from(1))
		m.wantEvents(Up, CapsRefused)
	})
}

// A subtree that is somebody else's already costs no session.
func TestMoreSubtrees(t *testing.T) {
	for code, want := range map[pdu.Error][]EventKind{
		0:                              {Up},
		pdu.ErrorDuplicateRegistration: {Up, Refused},
	} {
		more := []uint32{1, 3, 6, 1, 4, 1, 9998}
		withMaster(t, func(c *Config) { c.More = [][]uint32{more} }, func(m *fakeMaster) {
			m.accept()
			h, _ := m.expect(pdu.TypeOpen)
			m.answer(h, 0)
			first, _ := m.expect(pdu.TypeRegister)
			second, body := m.expect(pdu.TypeRegister)
			if want, _ := registerBody(more); !bytes.Equal(body, want) {
				m.t.Errorf("second register: % x, want % x", body, want)
			}
			caps, _ := m.expect(pdu.TypeAddAgentCaps)
			m.answer(first, 0)
			m.answer(second, code)
			m.answer(caps, 0)
			m.next(from(1))
			m.wantEvents(want...)
		})
	}
}

func TestDelays(t *testing.T) {
	startMaster(t, true, nil, func(m *fakeMaster) {
		time.Sleep(25 * time.Second)
		synctest.Wait()
		var got []string
		dials := m.dialled()
		for i, at := range dials[1:] {
			got = append(got, at.Sub(dials[i]).String())
		}
		want := "500ms 1s 2s 4s" + strings.Repeat(" 4s", 4)
		if s := strings.Join(got, " "); s != want {
			m.t.Errorf("delays %q, want %q", s, want)
		}
		m.wantEvents(Down)
		m.refuse.Store(false)
		m.join()
		m.wantEvents(Down, Up)
		// A session that did not last does not make the next attempt quick,
		// one that did does.
		for _, c := range []struct{ lived, want time.Duration }{{time.Second, maxDelay}, {65 * time.Second, firstDelay}} {
			m.live(c.lived)
			synctest.Wait()
			n, since := len(m.dialled()), time.Now()
			m.hangUp()
			m.join()
			if got := m.dialled()[n].Sub(since); got != c.want {
				m.t.Errorf("after a session of %v: %v, want %v", c.lived, got, c.want)
			}
		}
	})
}

// live lets time pass in a session, answering its pings.
func (m *fakeMaster) live(d time.Duration) {
	m.t.Helper()
	end := time.Now().Add(d)
	for {
		m.conn.SetReadDeadline(end)
		h, _, err := m.read()
		if err != nil {
			break
		}
		if h.Type != pdu.TypePing {
			m.t.Fatalf("got %s, want a ping", kindName(h.Type))
		}
		m.answer(h, 0)
	}
	m.conn.SetReadDeadline(time.Time{})
}

func TestJitter(t *testing.T) {
	startMaster(t, true, func(c *Config) { c.Jitter = func() float64 { return 0.5 } }, func(m *fakeMaster) {
		time.Sleep(time.Second)
		synctest.Wait()
		if d := m.dialled()[1].Sub(m.dialled()[0]); d != 550*time.Millisecond {
			m.t.Errorf("first delay %v, want 550ms", d)
		}
	})
}

func TestRegisterRefused(t *testing.T) {
	for code, want := range map[pdu.Error]time.Duration{
		pdu.ErrorDuplicateRegistration: firstDelay,
		pdu.ErrorUnsupportedContext:    slowDelay,
	} {
		withMaster(t, nil, func(m *fakeMaster) {
			m.reg = code
			m.join()
			m.expect(pdu.TypeClose)
			m.expectEnd()
			since := time.Now()
			m.reg = 0
			m.join()
			if d := time.Since(since); d != want {
				m.t.Errorf("%v: next attempt after %v, want %v", code, d, want)
			}
			m.wantEvents(Down, Up)
			if got := fmt.Sprint(m.events[0].Err); !strings.Contains(got, fmt.Sprint(uint16(code))) {
				m.t.Errorf("error is %q", got)
			}
		})
	}
}

func TestOpenRefused(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.accept()
		h, _ := m.expect(pdu.TypeOpen)
		m.answer(h, pdu.ErrorOpenFailed)
		m.expectEnd()
		m.join()
		m.wantEvents(Down, Up)
	})
}

func TestNoAnswerToOpen(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.accept()
		since := time.Now()
		m.expect(pdu.TypeOpen)
		m.expectEnd()
		if d := time.Since(since); d != requestTimeout {
			m.t.Errorf("gave up after %v", d)
		}
	})
}

func TestPing(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		since := time.Now()
		time.Sleep(10 * time.Second)
		m.next(from(1)) // not idle
		h, _ := m.expect(pdu.TypePing)
		if d := time.Since(since); d != 25*time.Second {
			m.t.Errorf("first ping after %v, want 15 seconds after the last word", d)
		}
		// The master's own request may bear the same packetID.
		m.packet = h.PacketID - 1
		m.next(from(1))
		m.answer(h, 0)
		m.expect(pdu.TypePing)
		m.expectEnd() // no answer
		if d := time.Since(since); d != 45*time.Second {
			m.t.Errorf("left a silent master after %v, want 45s", d)
		}
		m.join()
		h, _ = m.expect(pdu.TypePing)
		m.answer(h, pdu.ErrorNotOpen)
		m.expectEnd()
	})
}

// A master that waits for the rest of its own PDU is found by the next ping.
func TestHalfAPDU(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		began := time.Now()
		m.send(appendHeader(nil, ours, pdu.Header{Type: pdu.TypeGet, PayloadLength: maxPayload}))
		synctest.Wait()
		time.Sleep(halfTimeout - 1)
		m.send([]byte{0}) // a little more of it
		m.expectEnd()
		if took := time.Since(began); took != halfTimeout {
			m.t.Errorf("half a PDU is waited for %v", took)
		}
	})
}

// A master that does not read is left, and Notify does not wait for it.
func TestMasterDoesNotRead(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		m.send(m.pduOf(pdu.TypeGetNext, "", m.ranges(from(1))))
		since := time.Now()
		if err := m.agent.Notify(under(0, 1), nil); err != nil {
			m.t.Errorf("notify: %v", err)
		}
		if time.Since(since) != 0 {
			m.t.Error("notify waited")
		}
		time.Sleep(writeTimeout)
		m.wantEvents(Up, Down)
		m.hangUp()
		m.join()
		m.wantEvents(Up, Down, Up, Dropped)
	})
}

// Whatever a master's reason to close (RFC 2741, 6.2.2, and some that it does not
// have), it is answered, and tried again.
func TestCloseByMaster(t *testing.T) {
	for _, reason := range []byte{0, 1, 2, 3, 4, 5, 6, 7, 255} {
		withMaster(t, nil, func(m *fakeMaster) {
			m.join()
			if r := m.ask(pdu.TypeClose, []byte{reason, 0, 0, 0}); r.code != 0 {
				m.t.Errorf("reason %d: error %d", reason, r.code)
			}
			m.expectEnd()
			closed := time.Now()
			m.join()
			if wait := time.Since(closed); wait != firstDelay {
				m.t.Errorf("reason %d: it comes back after %v", reason, wait)
			}
			m.wantEvents(Up, Down, Up)
			if err := m.events[1].Err; !errors.Is(err, errClosed) || !strings.HasSuffix(err.Error(), fmt.Sprintf(" %d", reason)) {
				m.t.Errorf("reason %d: %v", reason, err)
			}
		})
	}
}

// A master that is there again, at whatever moment, is found within 5 seconds: the
// longest delay is below that with the most jitter, and so is the time after which
// an attempt that gets no answer is given up.
func TestBackWithinFiveSeconds(t *testing.T) {
	const most = 5 * time.Second
	if d := maxDelay + time.Duration(float64(maxDelay)*jitterPart); d > most {
		t.Errorf("the longest delay is %v", d)
	}
	for away := 10 * time.Millisecond; away < 40*time.Second; away = away*3/2 + 7*time.Millisecond {
		startMaster(t, true, func(c *Config) { c.Jitter = func() float64 { return 0.999 } }, func(m *fakeMaster) {
			time.Sleep(away)
			m.refuse.Store(false)
			back := time.Now()
			m.join()
			if took := time.Since(back); took > most {
				m.t.Errorf("a master that was away for %v is found after %v", away, took)
			}
		})
	}
}

func TestEndOfContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		withClose(t)
	})
}

func withClose(t *testing.T) {
	m := &fakeMaster{t: t, toy: newToy(1, 1), conns: make(chan net.Conn, 1), session: 5}
	m.agent = New(Config{Dial: m.dial, Handler: m.toy, Subtree: subtree, Capabilities: "x"})
	ctx, cancel := contextWithCancel(t)
	done := make(chan error)
	go func() { done <- m.agent.Run(ctx) }()
	m.join()
	cancel()
	if _, b := m.expect(pdu.TypeClose); pdu.Reason(b[0]) != pdu.ReasonShutdown {
		t.Errorf("close with reason %d", b[0])
	}
	m.expectEnd()
	if err := <-done; !errors.Is(err, ctx.Err()) {
		t.Errorf("run returns %v", err)
	}
}

func TestNotify(t *testing.T) {
	withMaster(t, func(c *Config) { c.Context = "vms" }, func(m *fakeMaster) {
		m.join()
		m.wantEvents(Up)
		for i := range uint32(3) {
			objects := []VarBind{{under(1, i), Value{Type: TypeOctetString, Text: "web"}}}
			if err := m.agent.Notify(under(0, i), objects); err != nil {
				m.t.Fatal(err)
			}
		}
		for i := range uint32(3) {
			h, body := m.expect(pdu.TypeNotify)
			d := decoder{b: body, order: orderOf(h.Flags)}
			context, trap, object := d.text(), d.varBind(), d.varBind()
			if d.err != nil || len(d.b) != 0 || context != "vms" || h.SessionID != m.session {
				m.t.Errorf("notify: %v, context %q, session %d", d.err, context, h.SessionID)
			}
			if !slices.Equal(trap.Name, snmpTrapOID) || !slices.Equal(trap.Value.OID, under(0, i)) || object.Value.Text != "web" {
				m.t.Errorf("notify %d: %v, %v", i, trap, object)
			}
			m.send(m.pduOf(pdu.TypeGetNext, "vms", m.ranges(from(1)))) // one at a time, and reads go on
			m.reply()
			m.answer(h, 0)
		}
		m.wantEvents(Up)
	})
}

// What happens while the master is away it is told when it is back, in order; what
// was on its way when it left is counted as lost.
func TestNotifyWithoutASession(t *testing.T) {
	startMaster(t, true, nil, func(m *fakeMaster) {
		synctest.Wait()
		for i := range uint32(maxQueue + 3) {
			if err := m.agent.Notify(under(0, i), nil); err != nil {
				m.t.Fatal(err)
			}
		}
		m.refuse.Store(false)
		m.join()
		trap := func() (pdu.Header, uint32) {
			h, body := m.expect(pdu.TypeNotify)
			d := decoder{b: body, order: orderOf(h.Flags)}
			oid := d.varBind().Value.OID
			return h, oid[len(oid)-1]
		}
		h, n := trap()
		if n != 3 {
			m.t.Errorf("the first is %d, want 3", n)
		}
		m.answer(h, 0)
		if _, n = trap(); n != 4 {
			m.t.Errorf("the second is %d, want 4", n)
		}
		m.hangUp()
		m.join()
		for want := uint32(5); want < maxQueue+3; want++ {
			h, n := trap()
			if n != want {
				m.t.Fatalf("got %d, want %d", n, want)
			}
			m.answer(h, 0)
		}
		m.wantEvents(Down, Up, Dropped, Down, Up, Dropped)
		if lost := m.events[2].Count + m.events[5].Count; lost != 3+1 {
			m.t.Errorf("%d lost, want 4", lost)
		}
	})
}

func TestNotifyQueueBytes(t *testing.T) {
	var q queue
	for range 100 {
		q.put(make([]byte, maxQueueBytes/10))
	}
	if len(q.items) != 10 || q.bytes > maxQueueBytes || q.dropped != 90 {
		t.Errorf("%d wait with %d bytes, %d dropped", len(q.items), q.bytes, q.dropped)
	}
}

func TestNotifyLimits(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		long := []VarBind{{under(1), Value{Type: TypeOctetString, Text: strings.Repeat("x", maxPDU)}}}
		if err := m.agent.Notify(under(0, 1), long); !errors.Is(err, ErrTooLong) {
			m.t.Errorf("64 KiB: %v", err)
		}
		for i := range uint32(maxQueue + 11) {
			if err := m.agent.Notify(under(0, i), nil); err != nil {
				m.t.Fatal(err)
			}
		}
		seen := 0
		for seen < maxQueue {
			h, _ := m.expect(pdu.TypeNotify)
			m.answer(h, 0)
			seen++
		}
		// How many of the first were sent before the queue was full is a
		// matter of scheduling; none may be counted twice or not at all.
		synctest.Wait()
		for ; len(m.events) < 2; synctest.Wait() {
			h, _ := m.expect(pdu.TypeNotify)
			m.answer(h, 0)
			seen++
		}
		if n := m.events[1].Count + seen; m.events[1].Kind != Dropped || n > maxQueue+11 {
			m.t.Errorf("%d sent, %v", seen, m.events[1])
		}
	})
}

// A master that hangs loses the notification that it was sent, and no other: they
// wait until it answers, or for the next session.
func TestNotificationsWaitForAMasterThatHangs(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		for i := range uint32(3) {
			if err := m.agent.Notify(under(0, i), nil); err != nil {
				m.t.Fatal(err)
			}
		}
		m.expect(pdu.TypeNotify)
		m.expect(pdu.TypePing)
		m.expectEnd()
		m.wantEvents(Up, Dropped, Down)
		m.join()
		for i := range uint32(2) {
			h, payload := m.expect(pdu.TypeNotify)
			if want := appendVarBind(nil, ours, snmpTrapOID, Value{Type: TypeOID, OID: under(0, i+1)}); !bytes.Equal(payload, want) {
				m.t.Errorf("notification % x, want % x", payload, want)
			}
			m.answer(h, 0)
		}
		m.wantEvents(Up, Dropped, Down, Up)
		if n := m.events[1].Count; n != 1 {
			m.t.Errorf("%d are said to be lost", n)
		}
	})
}

func TestNotifyRefusedAndLost(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		for range 2 {
			if err := m.agent.Notify(under(0, 1), nil); err != nil {
				m.t.Fatal(err)
			}
		}
		h, _ := m.expect(pdu.TypeNotify)
		m.answer(h, pdu.ErrorProcessing)
		m.expect(pdu.TypeNotify) // and no answer: is the master there at all?
		since := time.Now()
		h, _ = m.expect(pdu.TypePing)
		if d := time.Since(since); d != requestTimeout {
			m.t.Errorf("ping after %v", d)
		}
		m.answer(h, 0)
		m.next(from(1))
		m.wantEvents(Up, Dropped, Dropped)
	})
}

func TestOddResponses(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		m.answer(pdu.Header{PacketID: 4711}, 0)             // to nothing
		m.answer(pdu.Header{PacketID: 1}, pdu.ErrorNotOpen) // to the Open, again
		m.send(m.pduOf(pdu.TypeResponse, "", []byte{0, 0})) // too short
		m.next(from(1))
		m.wantEvents(Up, BadPDU)
		h, _ := m.expect(pdu.TypePing)
		m.session++
		h.SessionID = m.session
		m.answer(h, 0) // of another session: no answer to ours
		m.expectEnd()
	})
}
