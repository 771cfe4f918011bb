package subagent

import (
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gosnmp/gosnmp"
	"github.com/rs/zerolog"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/testenv"
	"vmd/internal/vmop"
)

// testID is what the role runs as, in place of _vmd and _agentx.
const testID = 64998

// quiet is the name of a role whose log would tear up a benchmark's lines.
const quiet = "quiet"

// TestMain is the role process, when a test has spawned itself as one.
func TestMain(m *testing.M) {
	if privsep.RoleName() == "" {
		os.Exit(m.Run())
	}
	p, err := privsep.Inherit()
	if err == nil {
		p.UID, p.GID = testID, testID
		if p.Name == quiet {
			p.Log = zerolog.Nop()
		}
		err = Run(p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// host is a host as far as SNMP is concerned: a real snmpd, the role in its jail,
// the test as its parent, and a manager.
type testHost struct {
	t      testing.TB
	snmpd  *testenv.MasterAgent
	role   *privsep.Child
	end    func() // of the role
	client *gosnmp.GoSNMP
	traps  chan []byte // what snmpd sent

	mu     sync.Mutex
	config vmop.SNMPConfig
	dial   string              // the master's socket, or one in front of it
	kept   []vmop.SNMPSwitches // what the role had us keep
}

func newHost(t testing.TB, config vmop.SNMPConfig, lines ...string) *testHost {
	testenv.Root(t)
	sink := testenv.TrapSink(t)
	lines = append(lines, "trap2sink "+sink.LocalAddr().String()+" public")
	h := &testHost{t: t, traps: make(chan []byte, 10000), snmpd: testenv.Snmpd(t, lines...), config: config}
	go receive(sink, h.traps)
	h.dial = h.snmpd.Socket
	h.spawn()
	h.client = h.manager("private")
	return h
}

// spawn starts the role.
func (h *testHost) spawn() {
	t := h.t
	t.Helper()
	o := privsep.SpawnOptions{Unprivileged: usesCgo()}
	if _, ok := t.(*testing.B); ok {
		o.Name = quiet
	}
	role, err := privsep.Spawn("agentx", o)
	if err != nil {
		t.Fatal(err)
	}
	h.role = role
	h.end = sync.OnceFunc(func() {
		role.Conn.Close()
		if s := <-role.Exited; s.Code != 0 || s.Signal != 0 {
			t.Errorf("the role ends: %v", s)
		}
	})
	t.Cleanup(h.end)
	go h.parent(role)
}

// usesCgo reports whether this is not the product's way of building: libcap's
// code in C, which the race detector brings in, wants a /proc in the jail.
func usesCgo() bool {
	b, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(b.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
}

// parent answers what the role asks.
func (h *testHost) parent(role *privsep.Child) {
	for {
		m, err := role.Conn.Recv()
		if err != nil {
			return
		}
		h.mu.Lock()
		c, path := h.config, h.dial
		if vmop.Type(m.Type) == vmop.SNMPKeep {
			var k vmop.SNMPSwitches
			if imsg.Unmarshal(m.Payload, &k) == nil {
				h.kept = append(h.kept, k)
			}
		}
		h.mu.Unlock()
		m.Close()
		if vmop.Type(m.Type) != vmop.SNMPDial {
			continue
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			c.Detail = err.Error()
			role.Conn.Send(uint16(vmop.SNMPSetup), m.ID, c)
			continue
		}
		f, err := conn.(*net.UnixConn).File()
		conn.Close()
		if err == nil {
			role.Conn.Send(uint16(vmop.SNMPSetup), m.ID, c, f)
		}
	}
}

func (h *testHost) send(kind vmop.Type, v any, files ...*os.File) {
	h.t.Helper()
	if err := h.role.Conn.Send(uint16(kind), 0, v, files...); err != nil {
		h.t.Fatal(err)
	}
}

func (h *testHost) configure(change func(*vmop.SNMPConfig)) {
	h.t.Helper()
	h.mu.Lock()
	change(&h.config)
	c := h.config
	h.mu.Unlock()
	h.send(vmop.SNMPSetup, c)
}

// begin sends what a new role is sent.
func (h *testHost) begin(vms ...vmop.VM) {
	h.t.Helper()
	h.send(vmop.SNMPSetup, h.config)
	for _, vm := range vms {
		h.send(vmop.SNMPPut, vm)
	}
	h.send(vmop.SNMPLoaded, nil)
}

func (h *testHost) manager(community string) *gosnmp.GoSNMP {
	h.t.Helper()
	host, port, err := net.SplitHostPort(h.snmpd.Addr)
	if err != nil {
		h.t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		h.t.Fatal(err)
	}
	c := &gosnmp.GoSNMP{Target: host, Port: uint16(n), Community: community,
		Version: gosnmp.Version2c, Timeout: 20 * time.Second, MaxOids: 60}
	if err := c.Connect(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Conn.Close() })
	return c
}

const vmMIB = ".1.3.6.1.2.1.236"

func text(p gosnmp.SnmpPDU) string {
	name := strings.TrimPrefix(p.Name, vmMIB+".")
	if b, ok := p.Value.([]byte); ok {
		return fmt.Sprintf("%s=%q", name, b)
	}
	return fmt.Sprintf("%s=%v", name, p.Value)
}

func (h *testHost) get(names ...string) []string {
	h.t.Helper()
	got, err := h.tryGet(names...)
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

func (h *testHost) tryGet(names ...string) (got []string, err error) {
	for i, n := range names {
		names[i] = vmMIB + "." + n
	}
	r, err := h.client.Get(names)
	if err != nil {
		return nil, err
	}
	for _, p := range r.Variables {
		got = append(got, text(p))
	}
	return got, nil
}

func (h *testHost) walk() (got []string) {
	h.t.Helper()
	err := h.client.BulkWalk(vmMIB, func(p gosnmp.SnmpPDU) error {
		got = append(got, text(p))
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

// await asks until a variable has a value: there is no other sign that a session
// is up, or that a record has arrived. snmpd does not answer at all about a
// context that nobody has registered in.
func (h *testHost) await(want string) {
	h.t.Helper()
	name, _, _ := strings.Cut(want, "=")
	defer func(d time.Duration) { h.client.Timeout = d }(h.client.Timeout)
	h.client.Timeout = 250 * time.Millisecond
	var got string
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		if list, err := h.tryGet(name); err != nil {
			got = err.Error()
		} else if got = list[0]; got == want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.t.Fatalf("got %s, want %s", got, want)
}

// receive reads packets as they come: a socket has no room for many.
func receive(sink net.PacketConn, to chan<- []byte) {
	for {
		buf := make([]byte, 2000)
		n, _, err := sink.ReadFrom(buf)
		if err != nil {
			return
		}
		to <- buf[:n]
	}
}

// trap returns the next trap about VMs: its last two arcs and its objects.
func (h *testHost) trap() string {
	h.t.Helper()
	late := time.After(60 * time.Second)
	for {
		var packet []byte
		select {
		case packet = <-h.traps:
		case <-late:
			h.t.Fatal("no trap")
		}
		p, err := (&gosnmp.GoSNMP{Version: gosnmp.Version2c}).SnmpDecodePacket(packet)
		if err != nil {
			h.t.Fatal(err)
		}
		kind := fmt.Sprint(p.Variables[1].Value)
		if !strings.HasPrefix(kind, vmMIB) {
			continue // snmpd's own
		}
		s := strings.TrimPrefix(kind, vmMIB+".")
		for _, v := range p.Variables[2:] {
			s += " " + text(v)
		}
		return s
	}
}

func named(id uint32, name string) vmop.VM {
	vm := web()
	vm.ID, vm.Name, vm.UUID = id, name, [16]byte{15: byte(id)}
	return vm
}

// A walk in the jail, with counters from a page and a process.
func TestWalk(t *testing.T) {
	h := newHost(t, vmop.SNMPConfig{Enabled: true, Version: "1.0", Started: counters.Monotonic(), CPUs: []int32{0, 1}, PerVM: true})
	stopped := named(4, "db")
	stopped.State, stopped.Admin, stopped.Started = vmop.Stopped, vmop.AdminShutdown, 0
	h.begin(named(3, "web"), stopped)
	page, f := newPage(t)
	running := named(20, "run")
	running.PID = os.Getpid()
	h.send(vmop.SNMPPut, running, share(t, f))
	h.await("1.2.0=3")
	atomic.StoreUint64(&page.VCPU[0], 5_000_000)
	atomic.StoreUint64(&page.Disk[0].ReadBytes, 4096)
	want := []string{
		`1.4.1.2.20="run"`, `1.4.1.6.20=4`, `1.5.1.2.20.1=5000`, `1.7.1.15.20.1=4099`, `1.8.1.2.20.1=17`,
		`1.4.1.6.4=11`, `1.6.1.3.4.1.196609=0`,
	}
	var names []string
	for _, w := range want {
		names = append(names, w[:strings.Index(w, "=")])
	}
	if d := cmp.Diff(want, h.get(names...)); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
	if aff := h.get("1.6.1.3.20.1.196608")[0]; !strings.HasSuffix(aff, "=1") && !strings.HasSuffix(aff, "=2") {
		t.Errorf("affinity of a running VM: %s", aff)
	}
	walk := h.walk()
	// 8 scalars; 3 VMs of 16 columns, 2 vCPUs on 2 CPUs, a disk and a NIC.
	if want := 8 + 3*(16+2+4+16+4); len(walk) != want {
		t.Errorf("%d instances, want %d", len(walk), want)
	}
	if walk[0] != `1.1.1.0="vmd"` || !strings.HasPrefix(walk[len(walk)-1], "1.10.0=") {
		t.Errorf("walk is from %s to %s", walk[0], walk[len(walk)-1])
	}
	cpu := func() uint64 {
		r, err := h.client.Get([]string{vmMIB + ".1.4.1.17.20"})
		if err != nil {
			t.Fatal(err)
		}
		return gosnmp.ToBigInt(r.Variables[0].Value).Uint64()
	}
	was := cpu()
	for burn := 0; cpu() <= was; burn++ {
		if burn > 1_000_000 {
			t.Fatal("vmCpuTime stands still")
		}
	}
}

// What is set, and what is sent because of it.
func TestSetAndTraps(t *testing.T) {
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true})
	h.begin(named(3, "web"))
	h.await("1.2.0=1")
	paused := named(3, "web")
	paused.State, paused.Admin = vmop.Paused, vmop.AdminPaused
	h.send(vmop.SNMPPut, paused)
	uuid := `1.4.1.3.3="` + strings.Repeat(`\x00`, 15) + `\x03"`
	if got, want := h.trap(), `0.4 1.4.1.2.3="web" `+uuid+` 1.4.1.6.3=4`; got != want {
		t.Errorf("trap %s, want %s", got, want)
	}
	h.set(0, 0, 9, 2, 10, 1) // per VM off, bulk on
	h.await("1.9.0=2")
	h.set(gosnmp.WrongValue, 2, 9, 1, 10, 3)
	if got := h.get("1.9.0", "1.10.0"); !slices.Equal(got, []string{"1.9.0=2", "1.10.0=1"}) {
		t.Errorf("after a SET that was half good: %v", got)
	}
	h.set(gosnmp.NotWritable, 1, 2, 1)
	h.send(vmop.SNMPPut, named(3, "web"))
	h.send(vmop.SNMPPut, named(16, "other"))
	h.send(vmop.SNMPDelete, vmop.VMID{ID: 3})
	for _, want := range []string{
		`0.11 1.11.0=" \x01"`, // both came to run
		`0.13 1.11.0=" \x01"`, // 16 was created, 3 ended
		`0.20 1.11.0=" "`,     // 3 was deleted
	} {
		if got := h.trap(); got != want {
			t.Errorf("trap %s, want %s", got, want)
		}
	}
	// A new master begins with what is configured.
	h.snmpd.Kill()
	h.snmpd.Start()
	h.await("1.9.0=1")
	h.await("1.10.0=2")
}

// set sets scalars, given as pairs of arc and value.
func (h *testHost) set(code gosnmp.SNMPError, index uint8, pairs ...int) {
	h.t.Helper()
	var vars []gosnmp.SnmpPDU
	for p := range slices.Chunk(pairs, 2) {
		vars = append(vars, gosnmp.SnmpPDU{Name: fmt.Sprintf("%s.1.%d.0", vmMIB, p[0]), Type: gosnmp.Integer, Value: p[1]})
	}
	r, err := h.client.Set(vars)
	if err != nil {
		h.t.Fatal(err)
	}
	if r.Error != code || code != 0 && r.ErrorIndex != index {
		h.t.Errorf("set %v: error %v at %d, want %v at %d", pairs, r.Error, r.ErrorIndex, code, index)
	}
}

// The role follows the configuration at any time.
func TestReconfigure(t *testing.T) {
	h := newHost(t, vmop.SNMPConfig{},
		"com2sec -Cn vms vmsec 127.0.0.1 vmcommunity",
		"group vmgroup v2c vmsec",
		"view everything included .1",
		"access vmgroup vms v2c noauth exact everything none none")
	h.begin(named(3, "web"))
	h.configure(func(c *vmop.SNMPConfig) { c.Enabled = true })
	h.await("1.2.0=1")
	h.configure(func(c *vmop.SNMPConfig) { c.Context = "vms" })
	h.await("1.2.0=<nil>")
	def := h.client
	h.client = h.manager("vmcommunity")
	h.await("1.2.0=1")
	h.configure(func(c *vmop.SNMPConfig) { c.Context = "" })
	h.client = def
	h.await("1.2.0=1")
	h.configure(func(c *vmop.SNMPConfig) { c.ReadOnly = true })
	for h.setCode() != gosnmp.NotWritable { // until it has arrived
		time.Sleep(time.Millisecond)
	}
	h.configure(func(c *vmop.SNMPConfig) { c.Enabled = false })
	h.await("1.2.0=<nil>")
	h.send(vmop.SNMPPut, named(4, "late"))
	h.configure(func(c *vmop.SNMPConfig) { c.Enabled = true })
	h.await("1.2.0=2")
}

// With vminfo there is the table that managers of other hypervisors read, and a
// host with an agent that has it already keeps that.
func TestVMInfo(t *testing.T) {
	const table = ".1.3.6.1.4.1.6876.2.1.1"
	h := newHost(t, vmop.SNMPConfig{Enabled: true, ObjectID: []uint32{1, 3, 6, 1, 4, 1, 9999}, PhysBase: 768, CPUs: []int32{1}})
	h.begin(named(3, "web"))
	h.await("1.1.3.0=.1.3.6.1.4.1.9999")
	if got := h.get("1.6.1.3.3.1.769")[0]; got != "1.6.1.3.3.1.769=0" {
		t.Errorf("affinity below another processor-index: %s", got)
	}
	read := func() (got []string) {
		if err := h.client.BulkWalk(table, func(p gosnmp.SnmpPDU) error {
			got = append(got, strings.TrimPrefix(text(p), table+"."))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := read(); len(got) != 0 {
		t.Errorf("vminfo is off, but there is %q", got)
	}
	h.configure(func(c *vmop.SNMPConfig) { c.VMInfo = true })
	want := []string{`2.3="web"`, `3.3=""`, `4.3=""`, `5.3=512`, `6.3="powered on"`, `7.3=3`, `8.3="running"`, `9.3=2`,
		`10.3="00000000-0000-0000-0000-000000000003"`}
	var got []string
	for end := time.Now().Add(30 * time.Second); len(got) == 0 && time.Now().Before(end); got = read() {
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
	h.configure(func(c *vmop.SNMPConfig) { c.VMInfo = false })
	for end := time.Now().Add(30 * time.Second); len(got) > 0 && time.Now().Before(end); got = read() {
	}
	h.await("1.2.0=1")
	if got = read(); len(got) > 0 {
		t.Errorf("vminfo is off again, but there is %q", got)
	}
}

func (h *testHost) setCode() gosnmp.SNMPError {
	h.t.Helper()
	r, err := h.client.Set([]gosnmp.SnmpPDU{{Name: vmMIB + ".1.10.0", Type: gosnmp.Integer, Value: 2}})
	if err != nil {
		h.t.Fatal(err)
	}
	return r.Error
}

// With the sample configuration the VMs are in the view that Debian's own
// configuration gives its communities, and without it they are not.
func TestSampleConfiguration(t *testing.T) {
	sample, err := os.ReadFile("../../etc/monitoring/snmpd.conf")
	if err != nil {
		t.Fatal(err)
	}
	stock := []string{
		"view systemonly included .1.3.6.1.2.1.1",
		"view systemonly included .1.3.6.1.2.1.25.1",
		"rocommunity stock default -V systemonly",
	}
	for want, lines := range map[string][]string{
		"1.2.0=<nil>": stock,
		"1.2.0=1":     append(slices.Clone(stock), strings.Split(string(sample), "\n")...),
	} {
		h := newHost(t, vmop.SNMPConfig{Enabled: true}, lines...)
		h.begin(named(3, "web"))
		h.await("1.2.0=1") // with a community that sees everything
		h.client = h.manager("stock")
		if got := h.get("1.2.0")[0]; got != want {
			t.Errorf("with %d lines: %s, want %s", len(lines), got, want)
		}
		if log := h.snmpd.Log(); strings.Contains(log, "Error:") || strings.Contains(log, "Warning:") {
			t.Errorf("snmpd says:\n%s", log)
		}
	}
}
