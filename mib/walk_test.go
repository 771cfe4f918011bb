package mib

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vmd/internal/golden"
)

// goldenStore has one machine of each sort that the MIB tells apart.
func goldenStore(t *testing.T) *Store {
	s := testStore(t, &fakeClock{now: 5100 * time.Second})
	run := &fakeRun{
		vcpus: []uint64{2_000_999, 1_000_000},
		disks: []DiskCounters{{10, 20, 5120, 10240, 3_000_000, 4_000_999}},
	}
	run.cpu.Store(9_876_543_210)
	web := plain(1, OperRunning)
	web.Name, web.OSType, web.CPUs, web.Started = "web", "OpenBSD", 2, 5000*time.Second
	web.Affinity = []CPUMask{{1}, {3}}
	web.Counters, web.Base = run, Totals{CPUTime: 1000, VCPUs: []uint64{1000}}
	web.Disks = append(web.Disks,
		Disk{Source: SourceSparse, SourceName: "qcow2", Path: "/b.qcow2", Access: AccessReadWrite,
			Media: MediaHard, MediaName: "virtio-blk", Defined: 3 << 40, Allocated: 123456789},
		Disk{Source: SourceRaw, SourceName: "raw", Path: "/install.iso", Access: AccessReadOnly,
			Media: MediaOptical, MediaName: "virtio-scsi", Defined: -1, Allocated: 17})
	db := plain(2, OperShutdown)
	db.Name, db.Admin, db.Base = "db", AdminShutdown, Totals{CPUTime: 5_000_000}
	db.Disks, db.NICs = nil, nil
	odd := plain(12, OperPaused)
	odd.Name, odd.UUID, odd.Admin, odd.Persistent = "odd", [16]byte{}, AdminPaused, PersistentNo
	odd.AutoStart, odd.Memory, odd.Started = AutoStartDisabled, 1<<20+1024, 5099*time.Second
	odd.NICs = append(odd.NICs, NIC{Model: "virtio"})
	if err := s.Load([]VM{odd, web, db}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWalkGolden(t *testing.T) {
	var b strings.Builder
	walk(t, goldenStore(t).View(), func(name []uint32, val Value) {
		fmt.Fprintf(&b, "%s = %v\n", dotted(name[len(root):]), val)
	})
	golden.Check(t, "testdata/walk.golden", b.String())
}

// limits is the syntax of every object: RFC 7666 as a table of its own.
var limits = map[string]struct {
	tag    uint16
	lo, hi int64 // of an Integer; octets of a string
}{
	"1.1.1": {TypeOctetString, 0, 255}, "1.1.2": {TypeOctetString, 0, 255},
	"1.1.3": {TypeOID, 0, 0}, "1.1.4": {TypeTimeTicks, 0, 0},
	"1.2": {TypeInteger, 0, 1<<31 - 1}, "1.3": {TypeTimeTicks, 0, 0},
	"1.4.1.2": {TypeOctetString, 0, 255}, "1.4.1.3": {TypeOctetString, 0, 16},
	"1.4.1.4": {TypeOctetString, 0, 255}, "1.4.1.5": {TypeInteger, 1, 4},
	"1.4.1.6": {TypeInteger, 1, 12}, "1.4.1.7": {TypeInteger, 1, 3},
	"1.4.1.8": {TypeInteger, 1, 3}, "1.4.1.9": {TypeInteger, 0, 1<<31 - 1},
	"1.4.1.10": {TypeInteger, -1, 1<<31 - 1}, "1.4.1.11": {TypeInteger, -1, 1<<31 - 1},
	"1.4.1.12": {TypeInteger, 1, 1<<31 - 1}, "1.4.1.13": {TypeInteger, 0, 1<<31 - 1},
	"1.4.1.14": {TypeInteger, -1, 1<<31 - 1}, "1.4.1.15": {TypeInteger, -1, 1<<31 - 1},
	"1.4.1.16": {TypeTimeTicks, 0, 0}, "1.4.1.17": {TypeCounter64, 0, 0},
	"1.5.1.2": {TypeCounter64, 0, 0}, "1.6.1.3": {TypeInteger, 0, 2},
	"1.7.1.3": {TypeInteger, 0, 1<<31 - 1}, "1.7.1.4": {TypeInteger, 1, 6},
	"1.7.1.5": {TypeOctetString, 0, 255}, "1.7.1.6": {TypeOctetString, 0, 255},
	"1.7.1.7": {TypeInteger, 1, 3}, "1.7.1.8": {TypeInteger, 1, 5},
	"1.7.1.9": {TypeOctetString, 0, 255}, "1.7.1.10": {TypeInteger, 1, 1<<31 - 1},
	"1.7.1.11": {TypeInteger, -1, 1<<31 - 1}, "1.7.1.12": {TypeInteger, -1, 1<<31 - 1},
	"1.7.1.13": {TypeCounter64, 0, 0}, "1.7.1.14": {TypeCounter64, 0, 0},
	"1.7.1.15": {TypeCounter64, 0, 0}, "1.7.1.16": {TypeCounter64, 0, 0},
	"1.7.1.17": {TypeCounter64, 0, 0}, "1.7.1.18": {TypeCounter64, 0, 0},
	"1.8.1.2": {TypeInteger, 0, 1<<31 - 1}, "1.8.1.3": {TypeInteger, 0, 1<<31 - 1},
	"1.8.1.4": {TypeOctetString, 0, 255}, "1.8.1.5": {TypeOctetString, 0, 255},
	"1.9": {TypeInteger, 1, 2}, "1.10": {TypeInteger, 1, 2},
}

// within checks one instance against limits. depth is its index's length.
func within(t testing.TB, name []uint32, val Value) {
	t.Helper()
	rest := name[len(root):]
	n := 4
	if rest[1] < 4 || rest[1] > 8 {
		n = len(rest) - 1
	}
	l, ok := limits[dotted(rest[:n])]
	if !ok {
		t.Errorf("%s: not an object that can be read", dotted(rest))
		return
	}
	if val.Type != l.tag {
		t.Errorf("%s = %v, want type %d", dotted(rest), val, l.tag)
	}
	got := int64(val.Int())
	if l.tag == TypeOctetString {
		got = int64(len(val.Text))
	}
	if l.hi != 0 && (got < l.lo || got > l.hi) {
		t.Errorf("%s = %v, want %d..%d", dotted(rest), val, l.lo, l.hi)
	}
}

// RFC 7666's ranges hold for every state and for the worst of inputs.
func TestWalkInRange(t *testing.T) {
	s := goldenStore(t)
	for state := OperUnknown; state <= OperCrashed; state++ {
		vm := plain(100+int32(state), state)
		vm.Memory, vm.Balloon = 1<<63+4096, 1
		vm.Name = strings.Repeat("ä", 300) + "\xff"
		vm.Disks[0].Defined = 1<<63 - 1
		vm.Disks[0].Path = strings.Repeat("/ö", 400)
		vm.Disks[0].Source = SourceSparse
		vm.Started = 1 << 62
		put(t, s, vm)
	}
	seen := make(map[string]bool)
	walk(t, s.View(), func(name []uint32, val Value) {
		within(t, name, val)
		rest := name[len(root):]
		for n := range len(rest) {
			seen[dotted(rest[:n])] = true
		}
	})
	for o := range limits {
		if !seen[o] {
			t.Errorf("%s: no instance in the walk", o)
		}
	}
}

func TestNotAccessible(t *testing.T) {
	v := goldenStore(t).View()
	for _, o := range [][]uint32{
		oid(1, 4, 1, 1, 1),            // vmIndex
		oid(1, 5, 1, 1, 1, 1),         // vmCpuIndex
		oid(1, 6, 1, 1, 1, 1, 196608), // there is no column 1
		oid(1, 6, 1, 2, 1, 1, 196608), // vmCpuPhysIndex
		oid(1, 7, 1, 1, 1, 1), oid(1, 7, 1, 2, 1, 1), oid(1, 8, 1, 1, 1, 1),
		oid(1, 11, 0), // vmAffectedVMs
		oid(0, 1), oid(2, 1, 1), oid(),
		oid(1, 4, 1), oid(1, 4, 1, 18, 1),
		{1, 3, 6, 1, 2, 1, 235, 1, 2, 0}, {1, 3}, {}, nil,
	} {
		if got := v.Get(o); got.Type != TypeNoSuchObject {
			t.Errorf("get %s: %v, want noSuchObject", dotted(o), got)
		}
	}
	for _, o := range [][]uint32{
		oid(1, 2), oid(1, 2, 1), oid(1, 2, 0, 0), oid(1, 4, 1, 2), oid(1, 4, 1, 2, 3), oid(1, 4, 1, 2, 0),
		oid(1, 4, 1, 2, 1, 0), oid(1, 7, 1, 3, 1), oid(1, 7, 1, 3, 1, 0), oid(1, 7, 1, 3, 1, 4),
		oid(1, 7, 1, 3, 2, 1), oid(1, 6, 1, 3, 1, 1, 196610), oid(1, 6, 1, 3, 1, 1),
		oid(1, 4, 1, 2, 1<<32-1), oid(1, 7, 1, 3, 1, 1<<32-1), oid(1, 6, 1, 3, 1, 2, 1<<32-1),
	} {
		if got := v.Get(o); got.Type != TypeNoSuchInstance {
			t.Errorf("get %s: %v, want noSuchInstance", dotted(o), got)
		}
	}
}
