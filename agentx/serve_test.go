package agentx

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/posteo/go-agentx/pdu"
)

// orders runs f with a master of either byte order.
func orders(t *testing.T, f func(*fakeMaster)) {
	for _, o := range []pdu.Flags{0, pdu.FlagNetworkByteOrder} {
		t.Run(fmt.Sprintf("flags %#x", byte(o)), func(t *testing.T) {
			withMaster(t, nil, func(m *fakeMaster) {
				m.order = o
				m.join()
				f(m)
			})
		})
	}
}

func from(arcs ...uint32) searchRange { return searchRange{start: under(arcs...)} }

func show(binds []VarBind) string {
	var out []string
	for _, b := range binds {
		name := strings.Trim(strings.ReplaceAll(fmt.Sprint(b.Name[min(len(subtree), len(b.Name)):]), " ", "."), "[]")
		switch b.Value.Type {
		case TypeInteger:
			out = append(out, fmt.Sprintf("%s=%d", name, b.Value.Number))
		case TypeEndOfMIBView:
			out = append(out, name+" end")
		case TypeNoSuchObject:
			out = append(out, name+" no object")
		case TypeNoSuchInstance:
			out = append(out, name+" no instance")
		default:
			out = append(out, fmt.Sprintf("%s type %d", name, b.Value.Type))
		}
	}
	return strings.Join(out, ", ")
}

func TestGet(t *testing.T) {
	orders(t, func(m *fakeMaster) {
		r := m.ask(pdu.TypeGet, m.ranges(from(1, 1), from(3, 4), from(2, 9), from(7, 1), from(), searchRange{}))
		want := "1.1=1001, 3.4=3004, 2.9 no instance, 7.1 no object,  no object,  no object"
		if got := show(r.binds); got != want || r.code != 0 {
			m.t.Errorf("error %d, %q, want %q", r.code, got, want)
		}
	})
}

func TestGetNext(t *testing.T) {
	cases := []struct {
		q    searchRange
		want string
	}{
		{from(), "1.1=1001"},
		{from(1, 1), "1.2=1002"},
		{searchRange{under(1, 1), nil, true}, "1.1=1001"},
		{searchRange{under(1, 0), nil, true}, "1.1=1001"},
		{searchRange{under(1, 1, 0), nil, true}, "1.2=1002"},
		{from(1, 4), "2.1=2001"},
		{from(3, 4), "3.4 end"},
		{searchRange{under(3, 4), nil, true}, "3.4=3004"},
		{searchRange{under(1, 2), under(1, 3), false}, "1.2 end"},
		{searchRange{under(1, 2), under(1, 4), false}, "1.3=1003"},
		{searchRange{under(1, 2), under(1, 3), true}, "1.2=1002"},
		{searchRange{under(1, 4), under(2), false}, "1.4 end"},
		{searchRange{[]uint32{1, 3}, nil, false}, "1.1=1001"},
		{searchRange{nil, nil, true}, "1.1=1001"},
	}
	orders(t, func(m *fakeMaster) {
		for _, c := range cases {
			if got := show(m.next(c.q).binds); got != c.want {
				m.t.Errorf("next of %+v: %q, want %q", c.q, got, c.want)
			}
		}
		at, n := searchRange{start: subtree}, 0
		for {
			b := m.next(at).binds[0]
			if b.Value.Type == TypeEndOfMIBView {
				break
			}
			at.start = slices.Clone(b.Name)
			n++
		}
		if n != len(m.toy.names) {
			m.t.Errorf("a walk finds %d instances, want %d", n, len(m.toy.names))
		}
	})
}

// RFC 2741, 7.2.3.3. n and m are non_repeaters and max_repetitions.
func TestGetBulk(t *testing.T) {
	cases := []struct {
		n, m uint16
		q    []searchRange
		want string
	}{
		{0, 0, []searchRange{from(1)}, ""},
		{1, 0, []searchRange{from(1), from(2)}, "1.1=1001"},
		{5, 3, []searchRange{from(1), from(2)}, "1.1=1001, 2.1=2001"},
		{0, 2, []searchRange{from(1), from(2)}, "1.1=1001, 2.1=2001, 1.2=1002, 2.2=2002"},
		{1, 2, []searchRange{from(1), from(3, 3)}, "1.1=1001, 3.4=3004, 3.4 end"},
		{0, 9, []searchRange{from(3, 3)}, "3.4=3004, 3.4 end"},
		{0, 9, []searchRange{{under(1, 2), under(1, 4), true}}, "1.2=1002, 1.3=1003, 1.3 end"},
		{0, 9, []searchRange{from(9)}, "9 end"},
		{0, 3, []searchRange{from(3, 3), from(1)}, "3.4=3004, 1.1=1001, 3.4 end, 1.2=1002, 3.4 end, 1.3=1003"},
		{0, 9, nil, ""},
	}
	orders(t, func(m *fakeMaster) {
		for _, c := range cases {
			o := orderOf(m.order)
			body := o.AppendUint16(o.AppendUint16(nil, c.n), c.m)
			r := m.ask(pdu.TypeGetBulk, append(body, m.ranges(c.q...)...))
			if got := show(r.binds); got != c.want || r.code != 0 {
				m.t.Errorf("getbulk %d, %d of %v: error %d, %q, want %q", c.n, c.m, c.q, r.code, got, c.want)
			}
		}
	})
}

func TestGetBulkStopsAtARound(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		big := newToy(2, 3000)
		m.agent.cfg.Handler = big
		m.join()
		body := binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, 0), 65535)
		r := m.ask(pdu.TypeGetBulk, append(body, m.ranges(from(1), from(2))...))
		if n := len(r.binds); n%2 != 0 || n < 1000 || r.PayloadLength > bulkResponse || r.code != 0 {
			m.t.Errorf("error %d, %d variables, %d octets", r.code, n, r.PayloadLength)
		}
	})
}

func TestManyRanges(t *testing.T) {
	orders(t, func(m *fakeMaster) {
		var q []searchRange
		for i := range uint32(300) {
			q = append(q, from(i%3+1, i%5))
		}
		r := m.next(q...)
		for i, b := range r.binds {
			if want := m.toy.Get(b.Name); b.Value.Type != TypeEndOfMIBView && b.Value.Number != want.Number {
				m.t.Errorf("variable %d is %v, want %v", i+1, b, want)
			}
		}
	})
}

// What would not fit a PDU is an error with as many names as there is room for.
func TestResponseTooLong(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		m.toy.values[0] = Value{Type: TypeOctetString, Text: strings.Repeat("x", 40000)}
		r := m.ask(pdu.TypeGet, m.ranges(from(1, 2), from(1, 1), from(1, 1), from(1, 3)))
		if r.code != 5 || r.index != 3 || show(r.binds) != "1.2 type 5, 1.1 type 5, 1.1 type 5, 1.3 type 5" {
			m.t.Errorf("error %d at %d: %s", r.code, r.index, show(r.binds))
		}
		q := slices.Repeat([]searchRange{from(1, 2)}, 5000)
		r = m.ask(pdu.TypeGetNext, m.ranges(q...))
		if r.code != 5 || r.index == 0 || len(r.binds) != 0 {
			m.t.Errorf("5000 ranges: error %d at %d, %d variables", r.code, r.index, len(r.binds))
		}
	})
}

func TestSplitAtEveryOctet(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		for cut := 1; ; cut++ {
			b := m.pduOf(pdu.TypeGetNext, "", m.ranges(from(1, 1), from(2, 2)))
			if cut >= len(b) {
				break
			}
			m.send(b[:cut])
			synctest.Wait()
			m.send(b[cut:])
			if r := m.reply(); r.PacketID != m.packet || show(r.binds) != "1.2=1002, 2.3=2003" {
				m.t.Fatalf("cut at %d: packet %d: %s", cut, r.PacketID, show(r.binds))
			}
		}
	})
}

func TestManyPDUsInOneWrite(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		var b []byte
		first := m.packet + 1
		for range 200 {
			b = append(b, m.pduOf(pdu.TypeGetNext, "", m.ranges(from(1, 1)))...)
		}
		m.send(b)
		for i := range uint32(200) {
			if r := m.reply(); r.PacketID != first+i || show(r.binds) != "1.2=1002" {
				m.t.Fatalf("answer %d is to packet %d: %s", i, r.PacketID, show(r.binds))
			}
		}
	})
}

func TestSameRequestTwice(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		b := m.pduOf(pdu.TypeGetNext, "", m.ranges(from(1, 1)))
		m.send(b)
		m.send(b)
		one, two := m.reply(), m.reply()
		if show(one.binds) != show(two.binds) || one.PacketID != two.PacketID {
			m.t.Errorf("answers differ: %v, %v", one, two)
		}
	})
}

// One request of a manager is one transaction, and is answered from one view.
func TestOneViewPerTransaction(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		for range 5 {
			m.tx = 41
			m.next(from(1))
		}
		if m.toy.views != 1 {
			m.t.Errorf("%d views for one transaction", m.toy.views)
		}
		for range 40 {
			m.next(from(1))
		}
		if m.toy.views != 41 {
			m.t.Errorf("%d views for 41 transactions", m.toy.views)
		}
	})
}

func TestUnknownSession(t *testing.T) {
	orders(t, func(m *fakeMaster) {
		m.session++
		for _, k := range []pdu.Type{pdu.TypeGet, pdu.TypeGetNext, pdu.TypeCommitSet, pdu.TypeUndoSet, pdu.TypeClose} {
			var body []byte
			if k == pdu.TypeClose {
				body = []byte{5, 0, 0, 0}
			}
			if r := m.ask(k, body); r.code != pdu.ErrorNotOpen || len(r.binds) != 0 {
				m.t.Errorf("%s: error %d", kindName(k), r.code)
			}
		}
		m.session--
		m.next(from(1))
	})
}

func TestContext(t *testing.T) {
	for _, name := range []string{"", "vms"} {
		withMaster(t, func(c *Config) { c.Context = name }, func(m *fakeMaster) {
			m.accept()
			h, _ := m.expect(pdu.TypeOpen)
			if h.Flags != 0 {
				m.t.Errorf("open has flags %#x", h.Flags)
			}
			m.answer(h, 0)
			h, b := m.expect(pdu.TypeRegister)
			if name != "" && (h.Flags != pdu.FlagNonDefaultContext || string(b[4:7]) != name) || name == "" && h.Flags != 0 {
				m.t.Errorf("register has flags %#x and begins % x", h.Flags, b[:8])
			}
			caps, _ := m.expect(pdu.TypeAddAgentCaps)
			m.answer(h, 0)
			m.answer(caps, 0)
			for _, asked := range []string{"", "vms", "other"} {
				m.send(m.pduOf(pdu.TypeGetNext, asked, m.ranges(from(1))))
				r := m.reply()
				if want := asked != name; (r.code == pdu.ErrorUnsupportedContext) != want {
					m.t.Errorf("context %q asked of %q: error %d", asked, name, r.code)
				}
			}
		})
	}
}

// Payloads cut at every length are parse errors, never more, and the session
// goes on as long as good ones come in between.
func TestTruncations(t *testing.T) {
	orders(t, func(m *fakeMaster) {
		o := orderOf(m.order)
		bulk := o.AppendUint16(o.AppendUint16(nil, 0), 2)
		everything := m.binds(
			VarBind{under(1), Value{Type: TypeInteger, Number: 1}},
			VarBind{under(2), Value{Type: TypeOctetString, Text: "abcde"}},
			VarBind{under(3), Value{Type: TypeOID, OID: under(4)}},
			VarBind{under(4), Value{Type: TypeCounter64, Number: 1 << 40}},
			VarBind{under(5), Value{Type: TypeNull}})
		for kind, body := range map[pdu.Type][]byte{
			pdu.TypeGet:     m.ranges(from(1, 1), from(2, 2)),
			pdu.TypeGetNext: m.ranges(searchRange{under(1, 1), under(2), true}),
			pdu.TypeGetBulk: append(bulk, m.ranges(from(1, 1))...),
			pdu.TypeTestSet: everything,
		} {
			for n := range len(body) {
				b := m.pduOf(kind, "", body[:n])
				m.send(b)
				r := m.reply()
				if r.code != 0 && (r.code != pdu.ErrorParse || r.index != 0 || len(r.binds) != 0) {
					m.t.Errorf("%s of %d octets: error %d at %d", kindName(kind), n, r.code, r.index)
				}
				if n%4 != 0 && r.code != pdu.ErrorParse {
					m.t.Errorf("%s of %d octets: error %d, want a parse error", kindName(kind), n, r.code)
				}
				m.next(from(1))
			}
		}
	})
}

func TestMalformed(t *testing.T) {
	huge := make([]byte, 4*129)
	cases := []struct {
		name string
		kind pdu.Type
		body []byte
	}{
		{"129 arcs", pdu.TypeGetNext, append([]byte{129, 0, 0, 0}, huge...)},
		{"129 arcs with the prefix", pdu.TypeGetNext, append([]byte{124, 2, 0, 0}, huge[:4*124]...)},
		{"string of 4 GiB", pdu.TypeTestSet, []byte{4, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255}},
		{"string of 2 GiB", pdu.TypeTestSet, []byte{4, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 127}},
		{"variable type", pdu.TypeTestSet, []byte{99, 0, 0, 0, 0, 0, 0, 0}},
		{"payload where none is", pdu.TypeCommitSet, []byte{0, 0, 0, 0}},
		{"pdu type", pdu.Type(99), nil},
		{"a request for masters", pdu.TypeRegister, nil},
		{"ping", pdu.TypePing, nil},
	}
	for _, c := range cases {
		withMaster(t, nil, func(m *fakeMaster) {
			m.join()
			m.send(m.pduOf(c.kind, "", c.body))
			if r := m.reply(); r.code != pdu.ErrorParse {
				m.t.Errorf("%s: error %d, want a parse error", c.name, r.code)
			}
			m.next(from(1))
			m.wantEvents(Up, BadPDU)
		})
	}
}

func TestThreeBadPDUs(t *testing.T) {
	withMaster(t, nil, func(m *fakeMaster) {
		m.join()
		for range 3 {
			m.send(m.pduOf(pdu.TypeGet, "", []byte{1, 0, 0, 0}))
			if r := m.reply(); r.code != pdu.ErrorParse {
				m.t.Errorf("error %d", r.code)
			}
		}
		if _, b := m.expect(pdu.TypeClose); pdu.Reason(b[0]) != pdu.ReasonParseError {
			m.t.Errorf("close with reason %d", b[0])
		}
		m.expectEnd()
		m.join()
		m.next(from(1))
	})
}

func TestFraming(t *testing.T) {
	good := appendHeader(nil, ours, pdu.Header{Type: pdu.TypeGet})
	version := slices.Clone(good)
	version[0] = 2
	length := slices.Clone(good)
	binary.LittleEndian.PutUint32(length[16:], maxPayload+4)
	for name, b := range map[string][]byte{"version 2": version, "more than 1 MiB": length} {
		withMaster(t, nil, func(m *fakeMaster) {
			m.join()
			m.send(b)
			m.expectEnd()
			m.join()
			m.next(from(1))
			m.wantEvents(Up, Down, Up)
			if len(m.events) > 1 && m.events[1].Err == nil {
				m.t.Errorf("%s: no reason given", name)
			}
		})
	}
}

// newServing returns a session that needs no connection.
func newServing(h Handler) *session {
	a := New(Config{Handler: h, Subtree: subtree})
	return &session{a: a, phase: up, id: 77}
}

func TestServeAllocates(t *testing.T) {
	s := newServing(newToy(3, 4))
	m := &fakeMaster{session: 77}
	request := m.pduOf(pdu.TypeGetNext, "", m.ranges(from(1, 1), from(2)))
	allocs := testing.AllocsPerRun(100, func() {
		s.in, s.out = append(s.in[:0], request...), s.out[:0]
		if err := s.handleAll(); err != nil || len(s.out) < 60 {
			t.Fatalf("%d octets, %v", len(s.out), err)
		}
	})
	if allocs != 0 {
		t.Errorf("answering a GetNext allocates %v times", allocs)
	}
}

func BenchmarkGetNext(b *testing.B) {
	s := newServing(newToy(15, 1000))
	m := &fakeMaster{session: 77}
	request := m.pduOf(pdu.TypeGetNext, "", m.ranges(from(7, 500)))
	for b.Loop() {
		s.in, s.out = append(s.in[:0], request...), s.out[:0]
		if err := s.handleAll(); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzServe feeds a session with anything. It has to stay within its bounds and
// to answer with PDUs.
func FuzzServe(f *testing.F) {
	for _, o := range []pdu.Flags{0, pdu.FlagNetworkByteOrder} {
		m := &fakeMaster{session: 77, order: o}
		f.Add(m.pduOf(pdu.TypeGet, "", m.ranges(from(1, 1), from(9))))
		f.Add(m.pduOf(pdu.TypeGetNext, "vms", m.ranges(searchRange{under(1), under(2), true})))
		f.Add(append(m.pduOf(pdu.TypeGetBulk, "", append([]byte{0, 0, 1, 1}, m.ranges(from(1))...)), 1))
		f.Add(append(m.pduOf(pdu.TypeTestSet, "", m.binds(VarBind{under(1), Value{Type: TypeInteger, Number: 1}})),
			m.pduOf(pdu.TypeCommitSet, "", nil)...))
		f.Add(m.pduOf(pdu.TypeUndoSet, "", nil))
		f.Add(m.pduOf(pdu.TypeResponse, "", make([]byte, 8)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newServing(newToy(3, 4))
		s.conn = discard{}
		s.in = append(s.in, data...)
		_ = s.handleAll()
		if len(s.in) > len(data) || len(s.sets) > maxSets {
			t.Errorf("%d octets kept of %d, %d sets", len(s.in), len(data), len(s.sets))
		}
		for b := s.out; len(b) > 0; {
			h, err := parseHeader(b)
			if err != nil || len(b) < pdu.HeaderSize+int(h.PayloadLength) || h.PayloadLength%4 != 0 {
				t.Fatalf("answers with % x: %v", b, err)
			}
			b = b[pdu.HeaderSize+int(h.PayloadLength):]
		}
	})
}
