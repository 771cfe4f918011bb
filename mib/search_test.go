package mib

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is every instance of a store, written out from the MIB's own
// description and sorted: what the searches have to agree with.
func model(vms map[int32]VM, phys []int32) [][]uint32 {
	var all [][]uint32
	for _, o := range [][]uint32{{1, 1, 1}, {1, 1, 2}, {1, 1, 3}, {1, 1, 4}, {1, 2}, {1, 3}, {1, 9}, {1, 10}} {
		all = append(all, append(oid(o...), 0))
	}
	columns := func(table, from, to uint32, index ...uint32) {
		for c := from; c <= to; c++ {
			all = append(all, append(oid(1, table, 1, c), index...))
		}
	}
	for _, vm := range vms {
		i := uint32(vm.Index)
		columns(4, 2, 17, i)
		for c := range uint32(vm.CPUs) {
			columns(5, 2, 2, i, c+1)
			for _, p := range phys {
				columns(6, 3, 3, i, c+1, uint32(p)+DefaultPhysBase)
			}
		}
		for d := range vm.Disks {
			columns(7, 3, 18, i, uint32(d)+1)
		}
		for n := range vm.NICs {
			columns(8, 2, 5, i, uint32(n)+1)
		}
	}
	slices.SortFunc(all, slices.Compare[[]uint32])
	return all
}

func drawVM(t *rapid.T) VM {
	vm := plain(rapid.OneOf(rapid.Int32Range(1, 12), rapid.Just(int32(1<<31-1))).Draw(t, "index"), OperRunning)
	vm.CPUs = rapid.Int32Range(0, 3).Draw(t, "cpus")
	vm.Disks = slices.Repeat(vm.Disks, rapid.IntRange(0, 3).Draw(t, "disks"))
	vm.NICs = slices.Repeat(vm.NICs, rapid.IntRange(0, 2).Draw(t, "nics"))
	return vm
}

// drawOID makes names near those that exist: the interesting ones.
func drawOID(t *rapid.T, all [][]uint32, label string) []uint32 {
	o := slices.Clone(rapid.SampledFrom(all).Draw(t, label))
	switch rapid.IntRange(0, 5).Draw(t, label+" change") {
	case 1:
		o = o[:rapid.IntRange(0, len(o)).Draw(t, "cut")]
	case 2:
		o = append(o, rapid.Uint32().Draw(t, "more"))
	case 3:
		i := rapid.IntRange(0, len(o)-1).Draw(t, "at")
		o[i] += rapid.SampledFrom([]uint32{1, 1<<32 - 1, 5}).Draw(t, "by")
	case 4:
		o[rapid.IntRange(0, len(o)-1).Draw(t, "at")] = rapid.SampledFrom([]uint32{0, 1<<31 - 1, 1<<32 - 1}).Draw(t, "to")
	case 5:
		o = rapid.SliceOfN(rapid.Uint32(), 0, 10).Draw(t, "any")
	}
	return o
}

func TestSearchAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		phys := rapid.SliceOfNDistinct(rapid.Int32Range(0, 5), 0, 3, rapid.ID).Draw(t, "phys")
		s := NewStore(Config{
			Host:  Host{PhysCPUs: phys, PhysBase: DefaultPhysBase},
			Clock: func() time.Duration { return 0 },
		})
		vms := make(map[int32]VM)
		for range rapid.IntRange(0, 8).Draw(t, "edits") {
			vm := drawVM(t)
			if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
				s.Delete(vm.Index)
				delete(vms, vm.Index)
			} else if _, err := s.Put(&vm); err != nil {
				t.Fatal(err)
			} else {
				vms[vm.Index] = vm
			}
			if rapid.Bool().Draw(t, "look") {
				s.Snapshot() // later edits must copy
			}
		}
		all, v := model(vms, phys), s.View()
		if n := v.Get(oid(1, 2, 0)).Int(); int(n) != len(vms) {
			t.Fatalf("vmNumber %d, want %d", n, len(vms))
		}
		for range 20 {
			checkNext(t, v, all)
			o := drawOID(t, all, "get")
			got := v.Get(o)
			_, want := slices.BinarySearchFunc(all, o, slices.Compare[[]uint32])
			if have := got.Type != TypeNoSuchObject && got.Type != TypeNoSuchInstance; have != want {
				t.Fatalf("get %s: %v; the model has it: %v", dotted(o), got, want)
			}
		}
	})
}

func checkNext(t *rapid.T, v View, all [][]uint32) {
	start, include := drawOID(t, all, "start"), rapid.Bool().Draw(t, "include")
	var end []uint32
	if rapid.Bool().Draw(t, "has end") {
		end = drawOID(t, all, "end")
	}
	i, found := slices.BinarySearchFunc(all, start, slices.Compare[[]uint32])
	if found && !include {
		i++
	}
	var want []uint32
	if i < len(all) && (len(end) == 0 || slices.Compare(all[i], end) < 0) {
		want = all[i]
	}
	got, val := v.Next(nil, start, include, end)
	if !slices.Equal(got, want) {
		t.Fatalf("next of %s (include %v, end %s): %s, want %s", dotted(start), include, dotted(end), dotted(got), dotted(want))
	}
	switch {
	case want == nil:
		if val.Type != TypeEndOfMIBView {
			t.Fatalf("next of %s: %v, want endOfMibView", dotted(start), val)
		}
	case fmt.Sprint(val) != fmt.Sprint(v.Get(want)):
		t.Fatalf("next of %s is %v, but get %s is %v", dotted(start), val, dotted(want), v.Get(want))
	}
}

// An old snapshot stays as it was while the store goes on.
func TestSnapshotDoesNotChange(t *testing.T) {
	s := testStore(t, &fakeClock{})
	for i := range int32(20) {
		put(t, s, plain(i+1, OperRunning))
	}
	v := s.View()
	count := func() (n int) {
		walk(t, v, func(name []uint32, _ Value) { n++ })
		return n
	}
	before := count()
	for i := range int32(15) {
		s.Delete(i + 3)
		vm := plain(i+100, OperRunning)
		vm.Disks, vm.NICs = nil, nil
		put(t, s, vm)
	}
	if after := count(); after != before {
		t.Errorf("snapshot had %d instances and has %d after edits of its store", before, after)
	}
}

func FuzzView(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2}, true, uint8(2))
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}, false, uint8(0))
	f.Add([]byte{}, true, uint8(0))
	s := testStore(f, &fakeClock{})
	for i := range int32(4) {
		put(f, s, plain(i*3+1, OperRunning))
	}
	v := s.View()
	f.Fuzz(func(t *testing.T, data []byte, include bool, split uint8) {
		start := Root()
		for ; len(data) >= 4; data = data[4:] {
			start = append(start, uint32(data[0])<<24|uint32(data[1])<<16|uint32(data[2])<<8|uint32(data[3]))
		}
		end := oid(1, uint32(split))
		name, val := v.Next(nil, start, include, end)
		if val.Type == TypeEndOfMIBView {
			return
		}
		if c := slices.Compare(name, start); c < 0 || c == 0 && !include || slices.Compare(name, end) >= 0 {
			t.Errorf("next of %s (include %v, end %s) is %s", dotted(start), include, dotted(end), dotted(name))
		}
		within(t, name, val)
	})
}
