package agentx_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"vmd/agentx"
	"vmd/internal/testenv"
)

var subtree = []uint32{1, 3, 6, 1, 4, 1, 9999}

// table is what the tests with a real master serve: instances in order.
type table struct {
	names  [][]uint32
	values []agentx.Value

	mu   sync.Mutex
	sets []string
	fail uint16 // what Test answers, for the last variable
}

// newTable has columns × rows numbers, and at the end one value of every type.
func newTable(columns, rows uint32) *table {
	t := &table{}
	add := func(v agentx.Value, arcs ...uint32) {
		t.names = append(t.names, append(slices.Clone(subtree), arcs...))
		t.values = append(t.values, v)
	}
	for c := range columns {
		for r := range rows {
			add(agentx.Value{Type: agentx.TypeInteger, Number: uint64(c*100000 + r)}, 1, c+1, r+1)
		}
	}
	add(agentx.Value{Type: agentx.TypeInteger, Number: 1<<32 - 1}, 2, 1, 0) // -1
	add(agentx.Value{Type: agentx.TypeOctetString, Text: "five!"}, 2, 2, 0)
	add(agentx.Value{Type: agentx.TypeOctetString}, 2, 3, 0)
	add(agentx.Value{Type: agentx.TypeOID, OID: []uint32{0, 0}}, 2, 4, 0)
	add(agentx.Value{Type: agentx.TypeOID, OID: []uint32{1, 3, 6, 1, 2, 1}}, 2, 5, 0)
	add(agentx.Value{Type: agentx.TypeTimeTicks, Number: 4294967295}, 2, 6, 0)
	add(agentx.Value{Type: agentx.TypeCounter64, Number: 1<<64 - 1}, 2, 7, 0)
	add(agentx.Value{Type: agentx.TypeGauge32, Number: 1<<32 - 1}, 2, 8, 0)
	add(agentx.Value{Type: agentx.TypeOctetString, Text: strings.Repeat("\x00\xff", 128)}, 2, 9, 0)
	return t
}

func (t *table) View() agentx.View { return t }

func (t *table) Get(name []uint32) agentx.Value {
	if i, ok := slices.BinarySearchFunc(t.names, name, slices.Compare[[]uint32]); ok {
		return t.values[i]
	}
	return agentx.Value{Type: agentx.TypeNoSuchInstance}
}

func (t *table) Next(dst, start []uint32, include bool, end []uint32) ([]uint32, agentx.Value) {
	i, found := slices.BinarySearchFunc(t.names, start, slices.Compare[[]uint32])
	if found && !include {
		i++
	}
	if i >= len(t.names) || len(end) > 0 && slices.Compare(t.names[i], end) >= 0 {
		return dst, agentx.Value{Type: agentx.TypeEndOfMIBView}
	}
	return append(dst, t.names[i]...), t.values[i]
}

func (t *table) Test(binds []agentx.VarBind) (agentx.Set, uint16, int) {
	t.note(fmt.Sprintf("test %d=%d", len(binds), binds[len(binds)-1].Value.Number))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fail != 0 {
		return nil, t.fail, len(binds)
	}
	return t, 0, 0
}

func (t *table) Commit() error { t.note("commit"); return nil }
func (t *table) Undo() error   { t.note("undo"); return nil }

func (t *table) note(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sets = append(t.sets, what)
}

func (t *table) show(i int) string { return fmt.Sprint(dotted(t.names[i]), " ", value(t.values[i])) }

func value(v agentx.Value) string {
	switch v.Type {
	case agentx.TypeInteger:
		return fmt.Sprint(int32(uint32(v.Number)))
	case agentx.TypeOctetString:
		return fmt.Sprintf("%q", v.Text)
	case agentx.TypeOID:
		return dotted(v.OID)
	}
	return fmt.Sprint(v.Number)
}

func dotted(o []uint32) string {
	var b strings.Builder
	for _, arc := range o {
		b.WriteString("." + strconv.FormatUint(uint64(arc), 10))
	}
	return b.String()
}

func pdu(p gosnmp.SnmpPDU) string {
	switch v := p.Value.(type) {
	case []byte:
		return fmt.Sprintf("%s %q", p.Name, v)
	case string:
		return p.Name + " ." + strings.TrimPrefix(v, ".")
	}
	return fmt.Sprintf("%s %v", p.Name, p.Value)
}

// live is an Agent with a real snmpd.
type live struct {
	*testenv.MasterAgent
	t     testing.TB
	agent *agentx.Agent
	table *table
	up    chan agentx.Event
}

func serve(t testing.TB, m *testenv.MasterAgent, tab *table, snmpContext string) *live {
	l := &live{MasterAgent: m, t: t, table: tab, up: make(chan agentx.Event, 100)}
	l.agent = agentx.New(agentx.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", m.Socket)
		},
		Handler: tab, Subtree: subtree, Description: "test", Capabilities: "The test MIB", Context: snmpContext,
		Report: func(e agentx.Event) {
			if e.Kind == agentx.Up {
				l.up <- e
			} else {
				t.Logf("%+v", e)
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { l.agent.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func (l *live) await() agentx.Event {
	l.t.Helper()
	select {
	case e := <-l.up:
		return e
	case <-time.After(60 * time.Second):
		l.t.Fatal("no session with snmpd")
		return agentx.Event{}
	}
}

func (l *live) client(community string) *gosnmp.GoSNMP {
	l.t.Helper()
	host, port, err := net.SplitHostPort(l.Addr)
	if err != nil {
		l.t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		l.t.Fatal(err)
	}
	c := &gosnmp.GoSNMP{
		Target: host, Port: uint16(n), Community: community, Version: gosnmp.Version2c,
		Timeout: 20 * time.Second, MaxOids: 100, MaxRepetitions: 25,
	}
	if err := c.Connect(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Conn.Close() })
	return c
}

func (l *live) walk(c *gosnmp.GoSNMP) error {
	n := 0
	err := c.BulkWalk(dotted(subtree), func(p gosnmp.SnmpPDU) error {
		if n >= len(l.table.names) {
			return fmt.Errorf("more than %d instances: %s", n, pdu(p))
		}
		if got, want := pdu(p), l.table.show(n); got != want {
			return fmt.Errorf("instance %d is %s, want %s", n, got, want)
		}
		n++
		return nil
	})
	if err == nil && n != len(l.table.names) {
		err = fmt.Errorf("%d instances, want %d", n, len(l.table.names))
	}
	return err
}

func TestSnmpdReads(t *testing.T) {
	l := serve(t, testenv.Snmpd(t), newTable(5, 60), "")
	l.await()
	c := l.client("public")
	if err := l.walk(c); err != nil {
		t.Error(err)
	}
	t.Run("60 variables", func(t *testing.T) {
		var names []string
		for i := range 60 {
			names = append(names, dotted(l.table.names[i*5]))
		}
		r, err := c.Get(names)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range r.Variables {
			if got, want := pdu(p), l.table.show(i*5); got != want {
				t.Errorf("variable %d is %s, want %s", i, got, want)
			}
		}
	})
	t.Run("random getbulks", func(t *testing.T) { l.bulks(t, c) })
	t.Run("sysORTable", func(t *testing.T) {
		found := false
		err := c.BulkWalk("1.3.6.1.2.1.1.9", func(p gosnmp.SnmpPDU) error {
			found = found || pdu(p) == p.Name+` "The test MIB"`
			return nil
		})
		if err != nil || !found {
			t.Errorf("entry found: %v, %v", found, err)
		}
	})
}

// bulks compares GETBULKs of several columns with the table.
func (l *live) bulks(t *testing.T, c *gosnmp.GoSNMP) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var names []string
		var at []int
		for range 1 + rnd.IntN(4) {
			i := rnd.IntN(len(l.table.names) - 60)
			names, at = append(names, dotted(l.table.names[i])), append(at, i)
		}
		reps := 1 + rnd.IntN(10)
		r, err := c.GetBulk(names, 0, uint32(reps))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Variables) != reps*len(names) {
			t.Fatalf("getbulk %v × %d: %d variables", names, reps, len(r.Variables))
		}
		for k, p := range r.Variables {
			if got, want := pdu(p), l.table.show(at[k%len(at)]+1+k/len(at)); got != want {
				t.Fatalf("getbulk %v × %d: variable %d is %s, want %s", names, reps, k, got, want)
			}
		}
	}
}

func TestSnmpdParallelWalks(t *testing.T) {
	l := serve(t, testenv.Snmpd(t), newTable(5, 60), "")
	l.await()
	var wg sync.WaitGroup
	for range 8 {
		c := l.client("public")
		wg.Go(func() {
			if err := l.walk(c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestSnmpdSets(t *testing.T) {
	l := serve(t, testenv.Snmpd(t), newTable(1, 2), "")
	l.await()
	c := l.client("private")
	vars := []gosnmp.SnmpPDU{
		{Name: dotted(l.table.names[0]), Type: gosnmp.Integer, Value: 1},
		{Name: dotted(l.table.names[1]), Type: gosnmp.Integer, Value: 2},
	}
	for _, fail := range []uint16{0, 17, 10, 7, 11, 12, 13, 6} {
		l.table.mu.Lock()
		l.table.sets, l.table.fail = nil, fail
		l.table.mu.Unlock()
		r, err := c.Set(vars)
		if err != nil {
			t.Fatal(err)
		}
		if uint16(r.Error) != fail || fail != 0 && r.ErrorIndex != 2 {
			t.Errorf("error %d at %d, want %d at 2", r.Error, r.ErrorIndex, fail)
		}
		want := "test 2=2"
		if fail == 0 {
			want += ", commit"
		}
		l.table.mu.Lock()
		if got := strings.Join(l.table.sets, ", "); got != want {
			t.Errorf("answering %d, what was done is %q, want %q", fail, got, want)
		}
		l.table.mu.Unlock()
		if err := l.walk(c); err != nil {
			t.Error(err)
		}
	}
}

func TestSnmpdComesAndGoes(t *testing.T) {
	m := testenv.Snmpd(t)
	m.Stop()
	l := serve(t, m, newTable(2, 3), "")
	m.Start()
	if e := l.await(); e.Restarted {
		t.Error("the first master is said to have restarted")
	}
	c := l.client("public")
	for what, end := range map[string]func(){"TERM": m.Stop, "KILL": m.Kill} {
		if err := l.walk(c); err != nil {
			t.Errorf("before %s: %v", what, err)
		}
		end()
		m.Start()
		l.await()
		if err := l.walk(c); err != nil {
			t.Errorf("after %s: %v", what, err)
		}
	}
}

func TestSnmpdContext(t *testing.T) {
	m := testenv.Snmpd(t,
		"com2sec -Cn vms vmsec 127.0.0.1 vmcommunity",
		"group vmgroup v2c vmsec",
		"view everything included .1",
		"access vmgroup vms v2c noauth exact everything none none")
	l := serve(t, m, newTable(2, 3), "vms")
	l.await()
	if err := l.walk(l.client("vmcommunity")); err != nil {
		t.Error(err)
	}
	p, err := l.client("public").GetNext([]string{dotted(subtree)})
	if err == nil && len(p.Variables) == 1 && strings.HasPrefix(p.Variables[0].Name, dotted(subtree)+".") {
		t.Errorf("the default context has %s", pdu(p.Variables[0]))
	}
}

func TestSnmpdTraps(t *testing.T) {
	sink := testenv.TrapSink(t)
	l := serve(t, testenv.Snmpd(t, "trap2sink "+sink.LocalAddr().String()+" public"), newTable(1, 1), "")
	l.await()
	const count = 300
	for i := range uint32(count) {
		name := append(slices.Clone(subtree), 9, i)
		err := l.agent.Notify(append(slices.Clone(subtree), 0, 7),
			[]agentx.VarBind{{Name: name, Value: agentx.Value{Type: agentx.TypeOctetString, Text: "web"}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 2000)
	sink.SetReadDeadline(time.Now().Add(60 * time.Second))
	for i := 0; i < count; {
		n, _, err := sink.ReadFrom(buf)
		if err != nil {
			t.Fatalf("after %d traps: %v", i, err)
		}
		got, err := (&gosnmp.GoSNMP{Version: gosnmp.Version2c}).SnmpDecodePacket(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		v := got.Variables
		if len(v) >= 2 && pdu(v[1]) != ".1.3.6.1.6.3.1.1.4.1.0 "+dotted(subtree)+".0.7" {
			continue // snmpd's own coldStart
		}
		want := fmt.Sprintf(`%s.9.%d "web"`, dotted(subtree), i)
		if len(v) < 3 || pdu(v[2]) != want {
			t.Fatalf("trap %d is %v, want %s", i, v, want)
		}
		i++
	}
}

// BenchmarkSnmpd walks 15000 instances through a real snmpd, as a manager with
// snmpbulkwalk would.
func BenchmarkSnmpd(b *testing.B) {
	l := serve(b, testenv.Snmpd(b), newTable(15, 1000), "")
	l.await()
	for _, reps := range []uint32{1, 10, 50} {
		b.Run(fmt.Sprintf("repetitions=%d", reps), func(b *testing.B) {
			c := l.client("public")
			c.MaxRepetitions = reps
			for b.Loop() {
				if err := l.walk(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
