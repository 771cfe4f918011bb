package agentx

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/posteo/go-agentx/pdu"

	"vmd/mib"
)

// store is a mib.Store as an Agent wants it.
type store struct{ *mib.Store }

type storeView struct{ mib.View }

func (s store) View() View { return storeView{s.Store.View()} }

func (s store) Test([]VarBind) (Set, uint16, int) { return nil, mib.ErrNotWritable, 1 }

func (v storeView) Get(name []uint32) Value { return Value(v.View.Get(name)) }

func (v storeView) Next(dst, start []uint32, include bool, end []uint32) ([]uint32, Value) {
	name, val := v.View.Next(dst, start, include, end)
	return name, Value(val)
}

// everyState has a machine in each state of VirtualMachineOperState, with gaps
// in the numbers.
func everyState(t *testing.T) store {
	t.Helper()
	s := mib.NewStore(mib.Config{
		Host:  mib.Host{Software: "vmd", Version: "1", PhysCPUs: []int32{0, 1, 7}, PhysBase: mib.DefaultPhysBase},
		Clock: func() time.Duration { return time.Hour },
	})
	for oper := mib.OperUnknown; oper <= mib.OperCrashed; oper++ {
		vm := mib.VM{
			Index: int32(oper * oper), Name: "vm", Admin: mib.AdminState(oper%4 + 1), Oper: oper,
			AutoStart: mib.AutoStartEnabled, Persistent: mib.PersistentYes, CPUs: int32(oper % 3), Memory: 1 << 30,
		}
		for range oper % 4 {
			vm.Disks = append(vm.Disks, mib.Disk{Source: mib.SourceSparse, Access: mib.AccessReadWrite, Media: mib.MediaHard, Defined: -1})
			vm.NICs = append(vm.NICs, mib.NIC{MAC: []byte{2, 0, 0, 0, 0, 1}})
		}
		if _, err := s.Put(&vm); err != nil {
			t.Fatal(err)
		}
	}
	return store{s}
}

// The MIB itself is served such that OpenBSD's master, which closes the session
// over any answer that is not as RFC 2741 has it, finds nothing to object to:
// whatever the names, the bounds and the number of ranges.
func TestStrictMasterReadsTheMIB(t *testing.T) {
	s := everyState(t)
	withMaster(t, func(c *Config) { c.Handler, c.Subtree = s, mib.Root() }, func(m *fakeMaster) {
		m.join()
		all := m.walk(mib.Root())
		if want := 8 + 12*16; len(all) < want {
			t.Errorf("a walk has %d variables, want more than %d", len(all), want)
		}
		rnd := rand.New(rand.NewPCG(3, 4))
		for range 2000 {
			var list []searchRange
			for range 1 + rnd.IntN(8) {
				list = append(list, oddRange(rnd, all))
			}
			m.next(list...)
			m.get(list)
			m.bulk(rnd, list)
		}
		m.wantEvents(Up)
	})
}

// walk is all that is below root, as GetNexts of one variable have it.
func (m *fakeMaster) walk(root []uint32) (all [][]uint32) {
	m.t.Helper()
	at := searchRange{start: root, include: true}
	for {
		b := m.next(at).binds[0]
		if b.Value.Type == TypeEndOfMIBView {
			return all
		}
		all = append(all, b.Name)
		at = searchRange{start: b.Name}
	}
}

// oddRange is a range near what exists.
func oddRange(rnd *rand.Rand, all [][]uint32) (r searchRange) {
	odd := func() []uint32 {
		name := slices.Clone(all[rnd.IntN(len(all))])
		switch rnd.IntN(6) {
		case 0:
			return name[:rnd.IntN(len(name)+1)]
		case 1:
			return append(name, rnd.Uint32()>>rnd.IntN(32))
		case 2:
			name[rnd.IntN(len(name))]++
		case 3:
			name[rnd.IntN(len(name))]--
		case 4:
			name[rnd.IntN(len(name))] = 1<<32 - 1
		}
		return name
	}
	r.start, r.include = odd(), rnd.IntN(2) == 0
	if len(r.start) == 0 {
		r.start = mib.Root() // an empty name is the null OID: a bound, never a start
	}
	if rnd.IntN(2) == 0 {
		r.end = odd()
	}
	return r
}

// get asks for the starts of ranges and makes OpenBSD's checks of the answer: the
// same names in the same order, each with a value or the reason for none.
func (m *fakeMaster) get(list []searchRange) {
	m.t.Helper()
	var ask []searchRange
	for _, r := range list {
		ask = append(ask, searchRange{start: r.start})
	}
	r := m.ask(pdu.TypeGet, m.ranges(ask...))
	if r.code != 0 || len(r.binds) != len(ask) {
		m.t.Fatalf("error %d, %d variables for %d", r.code, len(r.binds), len(ask))
	}
	for i, b := range r.binds {
		if !slices.Equal(b.Name, ask[i].start) {
			m.t.Errorf("asked for %v, told of %v", ask[i].start, b.Name)
		}
		if b.Value.Type == TypeEndOfMIBView || b.Value.Type == TypeNull {
			m.t.Errorf("%v has type %d in the answer to a Get", b.Name, b.Value.Type)
		}
	}
}

// bulk asks a GetBulk of ranges, and compares it with the GetNexts that it stands
// for (RFC 2741, 7.2.3.3).
func (m *fakeMaster) bulk(rnd *rand.Rand, list []searchRange) {
	m.t.Helper()
	once, rounds := rnd.IntN(len(list)+1), rnd.IntN(4)
	body := orderOf(m.order).AppendUint16(nil, uint16(once))
	body = orderOf(m.order).AppendUint16(body, uint16(rounds))
	got := m.ask(pdu.TypeGetBulk, append(body, m.ranges(list...)...))
	var want []VarBind
	if once > 0 {
		want = m.next(list[:once]...).binds
	}
	rest := slices.Clone(list[once:])
	for range rounds {
		if len(rest) == 0 {
			break
		}
		round := m.next(rest...).binds
		want = append(want, round...)
		if !slices.ContainsFunc(round, func(b VarBind) bool { return b.Value.Type != TypeEndOfMIBView }) {
			break
		}
		for i, b := range round {
			rest[i].start = b.Name
			rest[i].include = rest[i].include && b.Value.Type == TypeEndOfMIBView
		}
	}
	if got.code != 0 || show(got.binds) != show(want) {
		m.t.Fatalf("%d + %d × %+v: error %d and %s, want %s", once, rounds, list, got.code, show(got.binds), show(want))
	}
}
