package subagent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gosnmp/gosnmp"

	"vmd/internal/counters"
	"vmd/internal/vmop"
)

// stateCase is a state of a VM in vmd, and what RFC 7666 has for it.
type stateCase struct {
	state     vmop.State
	receiving bool
	wanted    vmop.Admin
	runs      bool // it has a process, and has begun
	admin     int  // vmAdminState
	oper      int  // vmOperState
	resident  bool // it has its memory
}

var stateCases = []stateCase{
	{state: vmop.Stopped, wanted: vmop.AdminShutdown, admin: 4, oper: 11},
	{state: vmop.Waiting, wanted: vmop.AdminRunning, admin: 1, oper: 11},
	{state: vmop.Starting, wanted: vmop.AdminRunning, admin: 1, oper: 11},
	{state: vmop.Running, wanted: vmop.AdminRunning, runs: true, admin: 1, oper: 4, resident: true},
	{state: vmop.Paused, wanted: vmop.AdminPaused, runs: true, admin: 3, oper: 8, resident: true},
	{state: vmop.Stopping, wanted: vmop.AdminShutdown, runs: true, admin: 4, oper: 10, resident: true},
	{state: vmop.Crashed, wanted: vmop.AdminRunning, admin: 1, oper: 12},
	{state: vmop.Migrating, wanted: vmop.AdminRunning, runs: true, admin: 1, oper: 9, resident: true},
	{state: vmop.Starting, receiving: true, wanted: vmop.AdminRunning, admin: 1, oper: 9, resident: true},
}

// vm is a VM in the state, with a disk of each sort that there is.
func (c stateCase) vm(id uint32, started int64) vmop.VM {
	vm := vmop.VM{
		ID: id, Name: "vm-é-" + c.state.String(), UUID: [16]byte{0: 0xff, 15: byte(id)}, OSType: "Linux",
		State: c.state, Receiving: c.receiving, Admin: c.wanted, Autostart: id%2 == 1, Persistent: id%3 != 0, CPUs: 2,
		MemoryBytes: 640<<20 + 1024, // not a number of MiB
		Disks: []vmop.Disk{
			{Path: "/vm/" + strings.Repeat("x", 300) + "/raw.img", Format: "raw", Size: 5<<20 + 1, Used: 4096},
			{Path: "/vm/q.qcow2", Format: "qcow2", Size: 3 << 40, Used: 123 << 20},
			{Path: "/dev/sdx", Format: "block", ReadOnly: true, Size: 20 << 30, Used: -1},
			{Path: "/vm/lost.qcow2", Format: "qcow2", Size: -1, Used: -1},
			{Path: "/vm/cd.iso", Format: "raw", CDROM: true, Size: 2048, Used: 2048},
		},
		NICs: []vmop.NIC{{MAC: [6]byte{0xfe, 0xe1, 0, 0, 0, byte(id)}}, {MAC: [6]byte{0xfe, 0xe1, 0, 0, 1, byte(id)}}},
		Past: vmop.Totals{CPU: 9_000_999, VCPU: []uint64{4_000_000, 5_000_000}, Disks: []vmop.DiskTotals{
			{ReadOps: 1 << 40, WriteOps: 2, ReadBytes: 1 << 50, WriteBytes: 4, ReadNanos: 5999, WriteNanos: 6000}}},
	}
	if c.runs {
		vm.Started = started
		vm.NICs[0].IfIndex, vm.NICs[0].BridgeIndex = 100+int(id), 7
	}
	return vm
}

// values are what a manager reads of c.vm(id): object and instance to type and
// value, as RFC 7666 has them.
func (c stateCase) values(id int) map[string]string {
	all := map[string]string{}
	add := func(object, format string, args ...any) {
		all[fmt.Sprintf("%s.%d", object, id)] = fmt.Sprintf(format, args...)
	}
	choose := func(yes bool, a, b int) int {
		if yes {
			return a
		}
		return b
	}
	const kib = 640<<10 + 1
	add("1.4.1.2", "OctetString %q", "vm-é-"+c.state.String())
	add("1.4.1.3", "OctetString %q", "\xff"+strings.Repeat("\x00", 14)+string([]byte{byte(id)}))
	add("1.4.1.4", `OctetString "Linux"`)
	add("1.4.1.5", "Integer %d", c.admin)
	add("1.4.1.6", "Integer %d", c.oper)
	add("1.4.1.7", "Integer %d", choose(id%2 == 1, 2, 3))
	add("1.4.1.8", "Integer %d", choose(id%3 != 0, 2, 3))
	for _, column := range []string{"1.4.1.9", "1.4.1.10", "1.4.1.11"} {
		add(column, "Integer 2")
	}
	add("1.4.1.12", "Integer 1024")
	add("1.4.1.13", "Integer %d", choose(c.resident, kib, 0))
	add("1.4.1.14", "Integer -1")
	add("1.4.1.15", "Integer %d", kib)
	add("1.4.1.16", "TimeTicks %d", choose(c.runs && c.admin != 4, 1, 0)) // 1 stands for any
	add("1.4.1.17", "Counter64 9000")
	for cpu, used := range []int{4000, 5000} {
		all[fmt.Sprintf("1.5.1.2.%d.%d", id, cpu+1)] = fmt.Sprintf("Counter64 %d", used)
		for _, phys := range []int{196608, 196610} {
			all[fmt.Sprintf("1.6.1.3.%d.%d.%d", id, cpu+1, phys)] = "Integer 0" // no process whose mask is known
		}
	}
	raw := "/vm/" + strings.Repeat("x", 300) + "/raw.img"
	for i, disk := range [][16]string{
		// parent source, its name, resource, access, media, its name, unit, defined, allocated, counters
		{"0", "4", "raw", raw[len(raw)-255:], "2", "3", "virtio-blk", "512", "10241", "10241", "1099511627776", "2", "1125899906842624", "4", "5", "6"},
		{"0", "5", "qcow2", "/vm/q.qcow2", "2", "3", "virtio-blk", "1048576", "3145728", "123", "0", "0", "0", "0", "0", "0"},
		{"0", "3", "block", "/dev/sdx", "3", "3", "virtio-blk", "512", "41943040", "41943040", "0", "0", "0", "0", "0", "0"},
		{"0", "5", "qcow2", "/vm/lost.qcow2", "2", "3", "virtio-blk", "512", "-1", "-1", "0", "0", "0", "0", "0", "0"},
		{"0", "4", "raw", "/vm/cd.iso", "3", "4", "virtio-scsi", "512", "4", "4", "0", "0", "0", "0", "0", "0"},
	} {
		for k, value := range disk {
			typ, column := "Integer ", k+3
			switch {
			case column == 5 || column == 6 || column == 9:
				typ, value = "OctetString ", fmt.Sprintf("%q", value)
			case column >= 13:
				typ = "Counter64 "
			}
			all[fmt.Sprintf("1.7.1.%d.%d.%d", column, id, i+1)] = typ + value
		}
	}
	for nic := range 2 {
		index := fmt.Sprintf("%d.%d", id, nic+1)
		all["1.8.1.2."+index] = fmt.Sprintf("Integer %d", choose(c.runs && nic == 0, 100+id, 0))
		all["1.8.1.3."+index] = fmt.Sprintf("Integer %d", choose(c.runs && nic == 0, 7, 0))
		all["1.8.1.4."+index] = `OctetString "virtio"`
		all["1.8.1.5."+index] = fmt.Sprintf("OctetString %q", string([]byte{0xfe, 0xe1, 0, 0, byte(nic), byte(id)}))
	}
	return all
}

// typed is a variable's type and value. A moment that has come is TimeTicks 1.
func typed(p gosnmp.SnmpPDU) string {
	if b, ok := p.Value.([]byte); ok {
		return fmt.Sprintf("%v %q", p.Type, b)
	}
	if n, ok := p.Value.(uint32); ok && p.Type == gosnmp.TimeTicks && n > 0 {
		return "TimeTicks 1"
	}
	return fmt.Sprintf("%v %v", p.Type, p.Value)
}

// Every object has its type and value for a VM in every state, in a walk and in
// GETs of many, and there is nothing else.
func TestObjectsInEveryState(t *testing.T) {
	h := newHost(t, vmop.SNMPConfig{Enabled: true, Version: "1.0", Started: counters.Monotonic() - int64(time.Hour),
		CPUs: []int32{0, 2}, PerVM: true, ObjectID: []uint32{1, 3, 6, 1, 4, 1, 99999, 1}})
	want := map[string]string{
		"1.1.1.0": `OctetString "vmd"`, "1.1.2.0": `OctetString "1.0"`, "1.1.3.0": "ObjectIdentifier .1.3.6.1.4.1.99999.1",
		"1.1.4.0": "TimeTicks 1", "1.2.0": fmt.Sprintf("Integer %d", len(stateCases)), "1.3.0": "TimeTicks 0",
		"1.9.0": "Integer 1", "1.10.0": "Integer 2",
	}
	var vms []vmop.VM
	for i, c := range stateCases {
		vms = append(vms, c.vm(uint32(i+1), counters.Monotonic()-int64(time.Minute)))
		maps.Copy(want, c.values(i+1))
	}
	h.begin(vms...)
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	got := map[string]string{}
	collect := func(p gosnmp.SnmpPDU) error {
		got[strings.TrimPrefix(p.Name, vmMIB+".")] = typed(p)
		return nil
	}
	if err := h.client.BulkWalk(vmMIB, collect); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("walk (-want +got):\n%s", d)
	}
	clear(got)
	for names := range slices.Chunk(slices.Sorted(maps.Keys(want)), 60) {
		for i := range names {
			names[i] = vmMIB + "." + names[i]
		}
		r, err := h.client.Get(names)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Variables {
			collect(p)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("GETs (-want +got):\n%s", d)
	}

	// One VM that goes through all states is each of them in turn, and
	// creating or deleting it is what vmTableLastChange tells.
	last := uint32(len(stateCases) + 1)
	began := counters.Monotonic()
	for _, c := range stateCases {
		vm := c.vm(last, began)
		vm.Name = fmt.Sprint(c.state, c.receiving)
		h.send(vmop.SNMPPut, vm)
		h.await(fmt.Sprintf("1.4.1.2.%d=%q", last, vm.Name))
		want := c.values(int(last))
		for object, value := range map[string]string{"1.4.1.5": "", "1.4.1.6": "", "1.4.1.13": "", "1.8.1.2": ".1", "1.8.1.3": ".1"} {
			name := fmt.Sprintf("%s.%d%s", object, last, value)
			r, err := h.client.Get([]string{vmMIB + "." + name})
			if err != nil || typed(r.Variables[0]) != want[name] {
				t.Errorf("%s: %s is %v, %v, want %s", c.state, name, r.Variables, err, want[name])
			}
		}
	}
	change := h.get("1.3.0")
	if change[0] == "1.3.0=0" {
		t.Error("vmTableLastChange does not tell of a new VM")
	}
	h.send(vmop.SNMPDelete, vmop.VMID{ID: last})
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	if now := h.get("1.3.0"); now[0] < change[0] && len(now[0]) <= len(change[0]) {
		t.Errorf("vmTableLastChange goes from %s to %s", change, now)
	}
	if got := h.get(fmt.Sprintf("1.4.1.2.%d", last)); !strings.HasSuffix(got[0], "<nil>") {
		t.Errorf("a VM that was deleted: %s", got)
	}
}
