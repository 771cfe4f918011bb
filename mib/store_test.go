package mib

import (
	"math"
	"testing"
	"time"
)

func TestCountersNeverGoDown(t *testing.T) {
	s := testStore(t, &fakeClock{})
	counters := [][]uint32{
		oid(1, 4, 1, 17, 1), oid(1, 5, 1, 2, 1, 1),
		oid(1, 7, 1, 13, 1, 1), oid(1, 7, 1, 14, 1, 1), oid(1, 7, 1, 15, 1, 1),
		oid(1, 7, 1, 16, 1, 1), oid(1, 7, 1, 17, 1, 1), oid(1, 7, 1, 18, 1, 1),
	}
	last := make(map[string]uint64)
	look := func(when string, moved bool) {
		t.Helper()
		v := s.View()
		for _, o := range counters {
			got := number(t, v, o)
			if was := last[dotted(o)]; got < was || moved != (got > was) {
				t.Errorf("%s: %s is %d, was %d", when, dotted(o), got, was)
			}
			last[dotted(o)] = got
		}
	}
	newRun := func(n uint64) *fakeRun {
		us := n * 1000
		r := &fakeRun{vcpus: []uint64{us}, disks: []DiskCounters{{n, n, n, n, us, us}}}
		r.cpu.Store(2 * us)
		return r
	}
	state := func(o OperState, c Counters) VM {
		vm := plain(1, o)
		if c != nil {
			vm.Counters = c
		}
		return vm
	}
	run := newRun(10)
	put(t, s, state(OperRunning, run))
	look("running", true)
	*run = *newRun(20)
	look("later", true)
	put(t, s, state(OperPaused, run))
	look("paused", false)
	put(t, s, state(OperRunning, run))
	look("unpaused", false)
	put(t, s, state(OperShutdown, nil))
	look("stopped", false)
	second := newRun(0)
	put(t, s, state(OperRunning, second))
	look("started again", false)
	*second = *newRun(3)
	look("second run", true)
	if got := last[dotted(counters[2])]; got != 23 {
		t.Errorf("reads of two runs: %d, want 20 + 3", got)
	}
	vm := state(OperShutdown, nil)
	vm.Base = Totals{CPUTime: 1 << 40, VCPUs: []uint64{1 << 30}, Disks: []DiskCounters{{100, 100, 100, 100, 1 << 30, 1 << 30}}}
	put(t, s, vm)
	look("the caller's own total is greater", true)
	if err := s.Load([]VM{state(OperRunning, newRun(1))}); err != nil {
		t.Fatal(err)
	}
	look("reloaded", false)
}

func TestCountersOfAnotherMachine(t *testing.T) {
	s := testStore(t, &fakeClock{})
	run := &fakeRun{}
	run.cpu.Store(1 << 40)
	vm := plain(1, OperRunning)
	vm.Counters = run
	put(t, s, vm)
	s.Delete(1)
	vm.Counters = nil
	put(t, s, vm)
	if got := number(t, s.View(), oid(1, 4, 1, 17, 1)); got != 0 {
		t.Errorf("vmCpuTime of a new machine with an old index is %d, want 0", got)
	}
}

func TestCPUTimeAtLeastSumOfVCPUs(t *testing.T) {
	s := testStore(t, &fakeClock{})
	vm := plain(1, OperRunning)
	vm.CPUs, vm.Counters = 2, &fakeRun{vcpus: []uint64{5000, 6000}}
	put(t, s, vm)
	if got := number(t, s.View(), oid(1, 4, 1, 17, 1)); got != 11 {
		t.Errorf("vmCpuTime %d, want 11", got)
	}
}

func TestTimes(t *testing.T) {
	c := &fakeClock{now: 100 * time.Second}
	s := testStore(t, c)
	if err := s.Load([]VM{plain(1, OperShutdown)}); err != nil {
		t.Fatal(err)
	}
	look := func(when string, o []uint32, want uint64) {
		t.Helper()
		if got := number(t, s.View(), o); got != want {
			t.Errorf("%s: %s is %d, want %d", when, dotted(o), got, want)
		}
	}
	upTime, change, vmUp := oid(1, 1, 4, 0), oid(1, 3, 0), oid(1, 4, 1, 16, 5)
	c.now += 7 * time.Second
	look("after start", upTime, 700)
	look("loading is no change", change, 0)
	vm := plain(5, OperRunning)
	vm.Started = c.now
	put(t, s, vm)
	look("created", change, 700)
	waiting := plain(6, OperShutdown) // wanted, and not begun
	put(t, s, waiting)
	look("not begun", oid(1, 4, 1, 16, 6), 0)
	c.now += 3 * time.Second
	look("running", vmUp, 300)
	vm.Oper, vm.Admin = OperPaused, AdminPaused
	put(t, s, vm)
	look("replacing is no change", change, 700)
	c.now += time.Second
	look("paused keeps counting", vmUp, 400)
	vm.Oper, vm.Admin = OperShutdown, AdminShutdown
	put(t, s, vm)
	look("stopped", vmUp, 0)
	vm.Oper, vm.Admin, vm.Started = OperRunning, AdminRunning, c.now
	put(t, s, vm)
	c.now += time.Second
	look("started again", vmUp, 100)
	s.Delete(5)
	look("deleted", change, 1200)
	s.Delete(5)
	c.now += (1 << 32) * 10 * time.Millisecond
	s.Delete(5)
	look("deleting nothing is no change", change, 1200)
	look("TimeTicks wrap", upTime, 1200)
}

func TestRecordsInError(t *testing.T) {
	cases := map[string]func(*VM){
		"index 0":        func(v *VM) { v.Index = 0 },
		"negative index": func(v *VM) { v.Index = -1 },
		"admin":          func(v *VM) { v.Admin = 5 },
		"oper":           func(v *VM) { v.Oper = 0 },
		"autostart":      func(v *VM) { v.AutoStart = 4 },
		"persistent":     func(v *VM) { v.Persistent = 0 },
		"cpus":           func(v *VM) { v.CPUs = -1 },
		"many cpus":      func(v *VM) { v.CPUs = math.MaxInt32 },
		"source":         func(v *VM) { v.Disks[0].Source = 0 },
		"access":         func(v *VM) { v.Disks[0].Access = 4 },
		"media":          func(v *VM) { v.Disks[0].Media = 6 },
		"ifindex":        func(v *VM) { v.NICs[0].IfIndex = -1 },
		"parent":         func(v *VM) { v.NICs[0].Parent = -1 },
		"mac":            func(v *VM) { v.NICs[0].MAC = make([]byte, 300) },
	}
	for name, spoil := range cases {
		s := testStore(t, &fakeClock{})
		good, bad := plain(2, OperRunning), plain(1, OperRunning)
		spoil(&bad)
		if _, err := s.Put(&bad); err == nil {
			t.Errorf("%s: put: no error", name)
		}
		if err := s.Load([]VM{bad, good}); err == nil {
			t.Errorf("%s: load: no error", name)
		}
		if n := s.Snapshot().Len(); n != 1 {
			t.Errorf("%s: %d machines after load, want the good one", name, n)
		}
	}
}

func TestPutReturnsTheOldRecord(t *testing.T) {
	s := testStore(t, &fakeClock{})
	vm := plain(3, OperRunning)
	vm.Counters = &fakeRun{vcpus: []uint64{500}}
	if old := put(t, s, vm); old != nil {
		t.Errorf("first put returns %+v", old)
	}
	vm.NICs[0].MAC[5] = 99 // the store has its own copy
	next := plain(3, OperPaused)
	old := put(t, s, next)
	if old == nil || old.Oper != OperRunning || old.NICs[0].MAC[5] != 3 || old.Base.VCPUs[0] != 500 {
		t.Errorf("second put returns %+v", old)
	}
	if old := s.Delete(3); old == nil || old.Oper != OperPaused {
		t.Errorf("delete returns %+v", old)
	}
	if old := s.Delete(3); old != nil {
		t.Errorf("second delete returns %+v", old)
	}
}

func TestSizes(t *testing.T) {
	cases := []struct {
		name             string
		disk             Disk
		unit, def, alloc int32
	}{
		{"small", Disk{Source: SourceSparse, Defined: 1000, Allocated: 512}, 512, 2, 1},
		{"raw has no holes", Disk{Source: SourceRaw, Defined: 4096, Allocated: 512}, 512, 8, 8},
		{"block neither", Disk{Source: SourceBlock, Defined: 4096, Allocated: -1}, 512, 8, 8},
		{"just fits", Disk{Source: SourceRaw, Defined: 512 * (1<<31 - 1)}, 512, 1<<31 - 1, 1<<31 - 1},
		{"just not", Disk{Source: SourceRaw, Defined: 512*(1<<31-1) + 1}, 1024, 1 << 30, 1 << 30},
		{"MiB", Disk{Source: SourceSparse, Defined: 3 << 40, Allocated: 1}, 1 << 20, 3 << 20, 1},
		{"GiB", Disk{Source: SourceSparse, Defined: 1 << 60, Allocated: 0}, 1 << 30, 1 << 30, 0},
		{"most", Disk{Source: SourceSparse, Defined: 1<<63 - 1}, 1 << 30, 1<<31 - 1, 0},
		{"unknown", Disk{Source: SourceSparse, Defined: -1, Allocated: -5}, 512, -1, -1},
		{"allocated more than defined", Disk{Source: SourceSparse, Defined: 1, Allocated: 1 << 41}, 1 << 20, 1, 1 << 21},
	}
	for _, c := range cases {
		if got, want := sizes(&c.disk), (diskRow{c.unit, c.def, c.alloc}); got != want {
			t.Errorf("%s: %+v, want %+v", c.name, got, want)
		}
	}
}

func TestMemory(t *testing.T) {
	cases := []struct {
		name            string
		memory, balloon uint64
		oper            OperState
		unit, cur, most int32
	}{
		{"running", 512 << 20, 0, OperRunning, 1 << 20, 512, 512},
		{"stopped", 512 << 20, 0, OperShutdown, 1 << 20, 0, 512},
		{"crashed", 512 << 20, 0, OperCrashed, 1 << 20, 0, 512},
		{"saved", 512 << 20, 0, OperSuspended, 1 << 20, 0, 512},
		{"no answer", 512 << 20, 0, OperUnknown, 1 << 20, 512, 512},
		{"balloon", 512 << 20, 100 << 20, OperPaused, 1 << 20, 412, 512},
		{"all of it", 512 << 20, 1 << 40, OperPaused, 1 << 20, 0, 512},
		{"KiB", 1<<20 + 1024, 0, OperRunning, 1 << 10, 1025, 1025},
		{"more than KiB can say", 1<<50 + 1024, 0, OperRunning, 1 << 20, 1 << 30, 1 << 30},
		{"more than anybody has", 1<<64 - 1, 0, OperRunning, 1 << 20, 1<<31 - 1, 1<<31 - 1},
	}
	for _, c := range cases {
		s := testStore(t, &fakeClock{})
		vm := plain(1, c.oper)
		vm.Memory, vm.Balloon = c.memory, c.balloon
		put(t, s, vm)
		v := s.View()
		got := [3]int32{v.Get(oid(1, 4, 1, 12, 1)).Int(), v.Get(oid(1, 4, 1, 13, 1)).Int(), v.Get(oid(1, 4, 1, 15, 1)).Int()}
		if want := [3]int32{c.unit, c.cur, c.most}; got != want {
			t.Errorf("%s: unit, now, most: %v, want %v", c.name, got, want)
		}
	}
}

func TestHost(t *testing.T) {
	s := NewStore(Config{Clock: (&fakeClock{}).read, Host: Host{
		ObjectID: []uint32{1, 3, 6, 1, 4, 1, 99999},
		PhysCPUs: []int32{-1, 5, 0}, // with base 0, CPU 0 would be index 0: not allowed
	}})
	put(t, s, plain(1, OperRunning))
	v := s.View()
	if got := v.Get(oid(1, 1, 3, 0)); dotted(got.OID) != "1.3.6.1.4.1.99999" {
		t.Errorf("vmHvObjectID %v", got)
	}
	if name, _ := v.Next(nil, oid(1, 6), false, nil); dotted(name) != dotted(oid(1, 6, 1, 3, 1, 1, 5)) {
		t.Errorf("first of vmCpuAffinityTable: %s", dotted(name))
	}
	s.SetHost(Host{})
	v = s.View()
	if got := v.Get(oid(1, 1, 3, 0)); dotted(got.OID) != "0.0" {
		t.Errorf("vmHvObjectID without one: %v, want 0.0", got)
	}
	if name, _ := v.Next(nil, oid(1, 6), false, nil); name[8] != 7 {
		t.Errorf("vmCpuAffinityTable without CPUs has %s", dotted(name))
	}
}

// bigStore has n machines, as they would come after a reload.
func bigStore(t testing.TB, n int32) *Store {
	s := testStore(t, &fakeClock{})
	for i := range n {
		vm := plain(i+1, OperRunning)
		vm.CPUs = 2
		if i%2 == 1 {
			vm.Disks = nil
		}
		put(t, s, vm)
	}
	return s
}

func TestNextAllocates(t *testing.T) {
	v := bigStore(t, 1000).View()
	buf, at := make([]uint32, 0, 32), oid(1, 7, 1, 13, 500)
	allocs := testing.AllocsPerRun(100, func() {
		name, val := v.Next(buf, at, false, nil)
		if val.Type != TypeCounter64 || v.Get(name).Type != TypeCounter64 {
			t.Fatalf("next is %s: %v", dotted(name), val)
		}
	})
	if allocs != 0 {
		t.Errorf("a Next and a Get allocate %v times", allocs)
	}
}

func BenchmarkNext(b *testing.B) {
	v := bigStore(b, 10_000).View()
	buf, at := make([]uint32, 0, 32), oid(1, 6, 1, 3, 5000, 1)
	for b.Loop() {
		v.Next(buf, at, false, nil)
	}
}

func BenchmarkPutAndLook(b *testing.B) {
	s := bigStore(b, 10_000)
	vm := plain(5000, OperPaused)
	for b.Loop() {
		if _, err := s.Put(&vm); err != nil {
			b.Fatal(err)
		}
		s.Snapshot()
	}
}
