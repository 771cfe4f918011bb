package mib

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// fakeRun counts as a running machine would; a test adds to it.
type fakeRun struct {
	cpu   atomic.Uint64
	vcpus []uint64
	disks []DiskCounters
}

func (f *fakeRun) CPUTime() uint64 { return f.cpu.Load() }

func (f *fakeRun) VCPUTime(i int) uint64 {
	if i >= len(f.vcpus) {
		return 0
	}
	return f.vcpus[i]
}

func (f *fakeRun) Disk(i int) DiskCounters {
	if i >= len(f.disks) {
		return DiskCounters{}
	}
	return f.disks[i]
}

// fakeClock is moved by hand.
type fakeClock struct{ now time.Duration }

func (c *fakeClock) read() time.Duration { return c.now }

func testStore(t testing.TB, c *fakeClock) *Store {
	t.Helper()
	return NewStore(Config{
		Host: Host{
			Software: "test hypervisor",
			Version:  "1.2",
			Start:    100 * time.Second,
			PhysCPUs: []int32{1, 0, 1},
			PhysBase: DefaultPhysBase,
		},
		Switches: Switches{PerVM: true},
		Clock:    c.read,
	})
}

func put(t testing.TB, s *Store, vm VM) *VM {
	t.Helper()
	old, err := s.Put(&vm)
	if err != nil {
		t.Fatal(err)
	}
	return old
}

// plain is a machine without anything unusual.
func plain(index int32, oper OperState) VM {
	return VM{
		Index: index, Name: fmt.Sprintf("vm%d", index), UUID: [16]byte{15: byte(index), 0: 1},
		Admin: AdminRunning, Oper: oper, AutoStart: AutoStartEnabled, Persistent: PersistentYes,
		CPUs: 1, Memory: 512 << 20,
		Disks: []Disk{{
			Source: SourceRaw, SourceName: "raw", Path: "/var/vm/a.img", Access: AccessReadWrite,
			Media: MediaHard, MediaName: "virtio-blk", Defined: 10 << 30, Allocated: 1 << 30,
		}},
		NICs: []NIC{{IfIndex: 7, Parent: 3, Model: "virtio", MAC: []byte{2, 0, 0, 0, 0, byte(index)}}},
	}
}

func oid(arcs ...uint32) []uint32 { return append(Root(), arcs...) }

func (v Value) String() string {
	switch v.Type {
	case TypeInteger:
		return fmt.Sprintf("INTEGER %d", v.Int())
	case TypeOctetString:
		return fmt.Sprintf("STRING %q", v.Text)
	case TypeOID:
		return "OID " + dotted(v.OID)
	case TypeTimeTicks:
		return fmt.Sprintf("TimeTicks %d", v.Number)
	case TypeCounter64:
		return fmt.Sprintf("Counter64 %d", v.Number)
	case TypeNoSuchObject:
		return "noSuchObject"
	case TypeNoSuchInstance:
		return "noSuchInstance"
	case TypeEndOfMIBView:
		return "endOfMibView"
	}
	return fmt.Sprintf("type %d", v.Type)
}

func dotted(o []uint32) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(o), " ", "."), "[]")
}

// walk reads a view from one end to the other, as a manager does.
func walk(t testing.TB, v View, each func(name []uint32, val Value)) {
	t.Helper()
	at := Root()
	for n := 0; ; n++ {
		name, val := v.Next(nil, at, false, nil)
		if val.Type == TypeEndOfMIBView {
			return
		}
		if n > 1_000_000 {
			t.Fatal("the walk does not end")
		}
		each(name, val)
		at = name
	}
}

func number(t testing.TB, v View, o []uint32) uint64 {
	t.Helper()
	val := v.Get(o)
	switch val.Type {
	case TypeCounter64, TypeTimeTicks, TypeInteger:
		return val.Number
	}
	t.Fatalf("get %s: %v, want a number", dotted(o), val)
	return 0
}
