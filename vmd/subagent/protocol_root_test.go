package subagent

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gosnmp/gosnmp"

	"vmd/internal/counters"
	"vmd/internal/vmop"
)

// everyState is a host with a VM in every state, and its MIB: names in order, and
// what they are.
func everyState(t *testing.T, config vmop.SNMPConfig, lines ...string) (h *testHost, names [][]uint32, values map[string]string) {
	t.Helper()
	config.Enabled, config.PerVM, config.CPUs = true, true, []int32{0, 2}
	config.Version, config.Started = "1.0", counters.Monotonic()-int64(time.Hour)
	h = newHost(t, config, lines...)
	var vms []vmop.VM
	values = map[string]string{
		"1.1.1.0": `OctetString "vmd"`, "1.1.2.0": `OctetString "1.0"`, "1.1.3.0": "ObjectIdentifier .0.0",
		"1.1.4.0": "TimeTicks 1", "1.2.0": fmt.Sprintf("Integer %d", len(stateCases)), "1.3.0": "TimeTicks 0",
		"1.9.0": "Integer 1", "1.10.0": "Integer 2",
	}
	for i, c := range stateCases {
		id := i*i + 1 // with gaps
		vms = append(vms, c.vm(uint32(id), counters.Monotonic()-int64(time.Minute)))
		maps.Copy(values, c.values(id))
	}
	for name := range values {
		names = append(names, arcs(name))
	}
	slices.SortFunc(names, slices.Compare[[]uint32])
	h.begin(vms...)
	return h, names, values
}

// arcs is a name as numbers.
func arcs(name string) (list []uint32) {
	for arc := range strings.SplitSeq(strings.Trim(name, "."), ".") {
		n, err := strconv.ParseUint(arc, 10, 32)
		if err != nil {
			panic(name)
		}
		list = append(list, uint32(n))
	}
	return list
}

func dotted(arcs []uint32) string {
	var b strings.Builder
	for _, a := range arcs {
		fmt.Fprintf(&b, ".%d", a)
	}
	return b.String()[min(1, b.Len()):]
}

func below(name string) string { return strings.TrimPrefix(name, vmMIB+".") }

// GETNEXT finds the next instance from any name: one that exists, lies between
// two, is too short or too long, before the MIB or behind it.
func TestGetNextFromOddNames(t *testing.T) {
	h, names, values := everyState(t, vmop.SNMPConfig{})
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		var ask []string
		var from [][]uint32
		for range 25 {
			name := oddName(rnd, names)
			from = append(from, name)
			ask = append(ask, strings.TrimSuffix(vmMIB+"."+dotted(name), "."))
		}
		r, err := h.client.GetNext(ask)
		if err != nil || len(r.Variables) != len(ask) {
			t.Fatalf("%d variables, %v", len(r.Variables), err)
		}
		for i, p := range r.Variables {
			at, found := slices.BinarySearchFunc(names, from[i], slices.Compare[[]uint32])
			if found {
				at++
			}
			if at == len(names) {
				if strings.HasPrefix(p.Name, vmMIB+".") && p.Type != gosnmp.EndOfMibView {
					t.Errorf("after %s, which is the end, comes %s", ask[i], p.Name)
				}
				continue
			}
			want := dotted(names[at])
			if below(p.Name) != want || typed(p) != values[want] {
				t.Errorf("after %s comes %s %s, want %s %s", ask[i], p.Name, typed(p), want, values[want])
			}
		}
	}
	// What surrounds the MIB.
	for from, want := range map[string]string{
		".1.3.6.1.2.1.235.4294967295": "1.1.1.0", ".1.3.6.1.2.1.236": "1.1.1.0", ".1.3.6.1.2.1.236.0.1": "1.1.1.0",
		".1.3.6.1.2.1.236.1": "1.1.1.0", ".1.3.6.1.2.1.236.1.3.0": dotted(names[6]), ".1.3.6.1.2.1.236.2": "", ".1.3.6.1.2.1.237": "",
	} {
		r, err := h.client.GetNext([]string{from})
		if err != nil {
			t.Fatal(err)
		}
		if p := r.Variables[0]; want != "" && below(p.Name) != want || want == "" && strings.HasPrefix(p.Name, vmMIB+".") {
			t.Errorf("after %s comes %s, want %q", from, p.Name, want)
		}
	}
}

// oddName is a name near one of names.
func oddName(rnd *rand.Rand, names [][]uint32) []uint32 {
	name := slices.Clone(names[rnd.IntN(len(names))])
	at := rnd.IntN(len(name))
	switch rnd.IntN(7) {
	case 0:
		return name[:at]
	case 1:
		return append(name, 0)
	case 2:
		for range rnd.IntN(90) {
			name = append(name, rnd.Uint32())
		}
	case 3:
		name[at]++
	case 4:
		name[at] = max(name[at], 1) - 1
	case 5:
		name[at] = math.MaxUint32
	}
	return name
}

// One GET of more than 100 variables, some of which there are not.
func TestGetOfManyVariables(t *testing.T) {
	h, names, values := everyState(t, vmop.SNMPConfig{})
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	h.client.MaxOids = 200
	none := map[string]string{ // RFC 3416, 4.2.1
		"1.4.1.2.3": "NoSuchInstance <nil>", "1.4.1.1.1": "NoSuchObject <nil>", "1.11.0": "NoSuchObject <nil>",
		"1.6.1.2.1.1.196608": "NoSuchObject <nil>", "1.9.1": "NoSuchInstance <nil>", "1.7.1.1.1.1": "NoSuchObject <nil>",
		"1.5.1.2.1": "NoSuchInstance <nil>", "1.5.1.2.1.1.1": "NoSuchInstance <nil>", "2.1": "NoSuchObject <nil>",
	}
	var ask []string
	for i := range 150 {
		ask = append(ask, dotted(names[i*7%len(names)]))
	}
	ask = append(ask, slices.Collect(maps.Keys(none))...)
	for i, name := range ask {
		ask[i] = vmMIB + "." + name
	}
	r, err := h.client.Get(ask)
	if err != nil || len(r.Variables) != len(ask) {
		t.Fatalf("%d variables for %d, %v", len(r.Variables), len(ask), err)
	}
	for i, p := range r.Variables {
		name := below(ask[i])
		want, ok := none[name]
		if !ok {
			want = values[name]
		}
		if p.Name != ask[i] || typed(p) != want {
			t.Errorf("%s is %s %s, want %s", ask[i], p.Name, typed(p), want)
		}
	}
}

// Eight managers walk at once, from different names, with different numbers of
// repetitions, while VMs change.
func TestParallelWalks(t *testing.T) {
	h, names, values := everyState(t, vmop.SNMPConfig{})
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	var walks sync.WaitGroup
	for i, from := range []string{"", ".1", ".1.4", ".1.4.1.17", ".1.6", ".1.7.1", ".1.7.1.6", ".1.8"} {
		c := h.manager("public")
		c.MaxRepetitions = uint32(1 + i*i)
		walks.Go(func() {
			want := []string{}
			for _, name := range names {
				if full := vmMIB + "." + dotted(name); strings.HasPrefix(full, vmMIB+from+".") {
					want = append(want, dotted(name)+" "+values[dotted(name)])
				}
			}
			for range 3 {
				got := []string{}
				err := c.BulkWalk(vmMIB+from, func(p gosnmp.SnmpPDU) error {
					got = append(got, below(p.Name)+" "+typed(p))
					return nil
				})
				if d := cmp.Diff(want, got); err != nil || d != "" {
					t.Errorf("walk of %s: %v (-want +got):\n%s", from, err, d)
					return
				}
			}
		})
	}
	running := make(chan struct{})
	go func() { walks.Wait(); close(running) }()
	same := stateCases[0].vm(1, 0)
	for {
		select {
		case <-running:
			return
		case <-time.After(time.Millisecond):
			h.send(vmop.SNMPPut, same) // a new snapshot
		}
	}
}

// SNMPv1 has no Counter64: a walk steps over them, and a GET of one is an error
// (RFC 2576, 4.1.2.1).
func TestVersion1(t *testing.T) {
	h, names, values := everyState(t, vmop.SNMPConfig{})
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	h.client.Version = gosnmp.Version1
	var want, got []string
	for _, name := range names {
		if v := values[dotted(name)]; !strings.HasPrefix(v, "Counter64") {
			want = append(want, dotted(name)+" "+v)
		}
	}
	if err := h.client.Walk(vmMIB, func(p gosnmp.SnmpPDU) error {
		got = append(got, below(p.Name)+" "+typed(p))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("walk (-want +got):\n%s", d)
	}
	for name, code := range map[string]gosnmp.SNMPError{
		"1.2.0": gosnmp.NoError, "1.4.1.17.1": gosnmp.NoSuchName, "1.4.1.2.3": gosnmp.NoSuchName, "1.11.0": gosnmp.NoSuchName,
	} {
		r, err := h.client.Get([]string{vmMIB + ".1.9.0", vmMIB + "." + name})
		if err != nil || r.Error != code || code != gosnmp.NoError && r.ErrorIndex != 2 {
			t.Errorf("%s: error %v at %d, %v, want %v at 2", name, r.Error, r.ErrorIndex, err, code)
		}
	}
	// RFC 3584, 4.3, has the errors.
	h.set(gosnmp.NoError, 0, 10, 1)
	h.set(gosnmp.BadValue, 1, 10, 3)
	h.set(gosnmp.NoSuchName, 2, 10, 2, 2, 3)
	h.client.Version = gosnmp.Version2c
	h.await("1.10.0=1")
}

// joe is a user of SNMPv3.
var joe = []string{
	`createUser joe SHA "an auth phrase" AES "a priv phrase"`,
	"view everything included .1", "rwuser joe priv -V everything",
}

// version3 makes of a manager one that is joe, with a password, in a context.
func version3(c *gosnmp.GoSNMP, password, context string, flags gosnmp.SnmpV3MsgFlags) {
	c.Conn.Close()
	c.Version, c.SecurityModel, c.MsgFlags, c.ContextName = gosnmp.Version3, gosnmp.UserSecurityModel, flags, context
	c.SecurityParameters = &gosnmp.UsmSecurityParameters{
		UserName:                 "joe",
		AuthenticationProtocol:   gosnmp.SHA,
		AuthenticationPassphrase: password,
		PrivacyProtocol:          gosnmp.AES,
		PrivacyPassphrase:        "a priv phrase",
	}
}

// SNMPv3 reads and sets with authentication and privacy, and not without.
func TestVersion3(t *testing.T) {
	h, names, values := everyState(t, vmop.SNMPConfig{}, joe...)
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	connect := func(password string, flags gosnmp.SnmpV3MsgFlags) error {
		h.client = h.manager("none")
		h.client.Timeout = 20 * time.Second
		version3(h.client, password, "", flags)
		if err := h.client.Connect(); err != nil {
			return err
		}
		_, err := h.client.Get([]string{vmMIB + ".1.2.0"})
		return err
	}
	if err := connect("another phrase", gosnmp.AuthPriv); err == nil {
		t.Error("a wrong password is taken")
	}
	if err := connect("an auth phrase", gosnmp.AuthNoPriv); err == nil {
		if got := h.get("1.2.0"); got[0] != "1.2.0=<nil>" {
			t.Errorf("without privacy joe reads %s", got)
		}
	}
	if err := connect("an auth phrase", gosnmp.AuthPriv); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := h.client.BulkWalk(vmMIB, func(p gosnmp.SnmpPDU) error {
		if name := dotted(names[n]); below(p.Name) != name || typed(p) != values[name] {
			t.Errorf("%s is %s, want %s %s", p.Name, typed(p), name, values[name])
		}
		n++
		return nil
	}); err != nil || n != len(names) {
		t.Errorf("%d of %d, %v", n, len(names), err)
	}
	h.set(gosnmp.NoError, 0, 10, 1)
	h.await("1.10.0=1")
	h.set(gosnmp.WrongValue, 1, 10, 0)
}

// With a context the VMs are there in it and nowhere else, for a v2c community
// that is mapped to it, and for a user of SNMPv3.
func TestContexts(t *testing.T) {
	h, names, _ := everyState(t, vmop.SNMPConfig{Context: "vms"}, append(slices.Clone(joe),
		"com2sec -Cn vms vmsec 127.0.0.1 vmcommunity",
		"group vmgroup v2c vmsec",
		"access vmgroup vms v2c noauth exact everything everything none")...)
	def := h.client
	h.client = h.manager("vmcommunity")
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	if got := len(h.walk()); got != len(names) {
		t.Errorf("the community walks %d of %d", got, len(names))
	}
	h.set(gosnmp.NoError, 0, 10, 1)

	h.client = h.manager("none")
	version3(h.client, "an auth phrase", "vms", gosnmp.AuthPriv)
	if err := h.client.Connect(); err != nil {
		t.Fatal(err)
	}
	h.await("1.10.0=1")
	h.set(gosnmp.NoError, 0, 10, 2)
	h.await("1.10.0=2")
	if got := len(h.walk()); got != len(names) {
		t.Errorf("the user walks %d of %d", got, len(names))
	}
	h.send(vmop.SNMPDelete, vmop.VMID{ID: 1})
	if got := h.trap(); !strings.HasPrefix(got, "0.10 ") {
		t.Errorf("notification %s, want vmDeleted", got)
	}

	h.client = def
	if got := h.get("1.2.0"); got[0] != "1.2.0=<nil>" {
		t.Errorf("the default context has %s", got)
	}
}
