package pci_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vmd/hv/pci"
	"vmd/hv/state"
)

// used is a machine that a guest has set up: BARs moved, one vector live, one
// masked with its pending bit set, INTx of another device masked.
func used(t testing.TB) (*machine, *pci.Function) {
	t.Helper()
	m := newMachine(t)
	f := m.device(4, 0x10)
	m.device(8, 0x20)
	if err := m.bus.Assign(); err != nil {
		t.Fatal(err)
	}
	m.setCfg(4, 0x18, 4, mmioBase+0x100000)
	m.setCfg(4, 0x42, 2, 0xaaaa)
	m.setCfg(8, 0x04, 2, 1<<10|7)
	m.setCfg(0, 0x59, 1, 0x33)
	table := uint64(m.cfg(4, 0x14, 4))
	for i := range uint64(2) {
		m.mmio.Write(table+16*i, binary.LittleEndian.AppendUint32(nil, 0xfee01000))
		m.mmio.Write(table+16*i+8, binary.LittleEndian.AppendUint32(nil, uint32(0x40+i)))
	}
	m.mmio.Write(table+12, make([]byte, 4))
	m.setCfg(4, 0x9a, 2, 1<<15)
	f.MSIX().Signal(1)
	m.out(0xcf8, 4, 1<<31|4<<11|0x40)
	return m, f
}

func TestRestore(t *testing.T) {
	a, _ := used(t)
	s := a.bus.Save()
	b := newMachine(t)
	f := b.device(4, 0x10)
	b.device(8, 0x20)
	if err := b.bus.Restore(s); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, b.bus.Save()); d != "" {
		t.Errorf("saved, restored and saved again (-first +second):\n%s", d)
	}
	if got := b.in(0xcfc, 4); got != a.in(0xcfc, 4) {
		t.Errorf("selected register reads %#x, want %#x", got, a.in(0xcfc, 4))
	}
	if got := b.mem(mmioBase + 0x100000); got != 0x11 {
		t.Errorf("the BAR that was moved reads %#x, want 0x11", got)
	}
	if m := b.msis[0]; m.addr != 0xfee01000 || m.data != 0x40 || m.signals != 0 {
		t.Errorf("vector 0 goes to %#x %#x after %d signals", m.addr, m.data, m.signals)
	}
	f.MSIX().Signal(0)
	if b.msis[0].signals != 1 {
		t.Error("a live vector is silent")
	}
	table := uint64(b.cfg(4, 0x14, 4))
	b.mmio.Write(table+16+12, make([]byte, 4))
	if b.msis[1].signals != 1 {
		t.Error("what was pending does not come when its vector is unmasked")
	}
	if b.lines[pci.GSI(8)].high {
		t.Fatal("a line is up")
	}
	b.bus.Functions(func(slot int, f *pci.Function) {
		if slot == 8 {
			f.SetINTx(true)
		}
	})
	if b.lines[pci.GSI(8)].high {
		t.Error("a pin that was masked is up")
	}
	b.setCfg(8, 0x04, 2, 7)
	if !b.lines[pci.GSI(8)].high {
		t.Error("a pin that was unmasked is down")
	}
}

// A vector that vhost serves, silenced while it is masked, may have missed an
// interrupt: it is saved as pending, for where there is no vhost.
func TestSaveDirectVector(t *testing.T) {
	m, f := used(t)
	f.MSIX().Direct(0)
	if v := m.bus.Save().Functions[3].Vectors[0]; v.Pending {
		t.Errorf("live and direct: %+v", v)
	}
	table := uint64(m.cfg(4, 0x14, 4))
	m.mmio.Write(table+12, []byte{1, 0, 0, 0})
	if v := m.bus.Save().Functions[3].Vectors[0]; !v.Pending {
		t.Errorf("masked and direct: %+v, want it pending", v)
	}
}

func TestRestoreChecks(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		change     func(*pci.BusState)
	}{
		{"no functions", "slot 0: there was nothing in it", func(s *pci.BusState) { s.Functions = nil }},
		{"one too few", "slot 8: there was nothing in it", func(s *pci.BusState) { s.Functions = s.Functions[:4] }},
		{"one too many", "slot 8: there is no such device", func(s *pci.BusState) { s.Functions = append(s.Functions, s.Functions[4]) }},
		{"slots swapped", "there was nothing in it", func(s *pci.BusState) { s.Functions[3].Slot, s.Functions[4].Slot = 8, 4 }},
		{"another device", "register 0x2 is", func(s *pci.BusState) { s.Functions[3].Config[2] ^= 1 }},
		{"another capability", "register 0x40 is", func(s *pci.BusState) { s.Functions[3].Config[0x40] = 5 }},
		{"another BAR size", "register 0x18 is", func(s *pci.BusState) { s.Functions[3].Config[0x18] = 1 }},
		{"short", "255 bytes", func(s *pci.BusState) { s.Functions[3].Config = s.Functions[3].Config[:255] }},
		{"too many vectors", "3 MSI-X vectors", func(s *pci.BusState) {
			s.Functions[3].Vectors = append(s.Functions[3].Vectors, pci.VectorState{})
		}},
		{"vectors of a bridge", "MSI-X vectors", func(s *pci.BusState) { s.Functions[0].Vectors = make([]pci.VectorState, 1) }},
		{"odd message address", "MSI-X vector 0", func(s *pci.BusState) { s.Functions[3].Vectors[0].Addr |= 1 }},
		{"address latch", "configuration address", func(s *pci.BusState) { s.Address |= 1 }},
	} {
		a, _ := used(t)
		s := a.bus.Save()
		tc.change(&s)
		b := newMachine(t)
		b.device(4, 0x10)
		b.device(8, 0x20)
		before := b.bus.Save()
		err := b.bus.Restore(s)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", tc.name, err, tc.want)
		}
		if d := cmp.Diff(before, b.bus.Save()); d != "" {
			t.Errorf("%s: refused, and changed all the same:\n%s", tc.name, d)
		}
	}
}

// A BAR of a stream may be anywhere that a guest could have put it, and answers
// in its windows only.
func TestRestoreBARsAnywhere(t *testing.T) {
	for _, addr := range []uint32{0, 0x1000, mmioBase, mmioEnd - 0x1000, mmioEnd, 0xfee00000, 0xfffff000} {
		a, _ := used(t)
		s := a.bus.Save()
		for _, i := range []int{3, 4} { // both devices claim the same
			binary.LittleEndian.PutUint32(s.Functions[i].Config[0x18:], addr)
		}
		b := newMachine(t)
		b.device(4, 0x10)
		b.device(8, 0x20)
		if err := b.bus.Restore(s); err != nil {
			t.Fatalf("%#x: %v", addr, err)
		}
		want := byte(0xff)
		if addr >= mmioBase && addr < mmioEnd && addr != mmioBase {
			want = 0x11
		}
		if got := b.mem(uint64(addr)); addr != mmioBase && got != want {
			t.Errorf("BAR at %#x: reads %#x, want %#x", addr, got, want)
		}
	}
}

// FuzzRestore has a bus restored from a state of somebody else's making. What it
// takes it must save as it took it, and BARs stay in their windows.
func FuzzRestore(f *testing.F) {
	a, _ := used(f)
	b, err := state.Encode(a.bus.Save())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, []byte{})
	f.Add(b, []byte{3, 0x18, 0xff, 3, 0x1b, 0xfe, 4, 0x9b, 0xc0, 4, 5, 0xff})
	f.Add(b, []byte{3, 0x20, 0xff, 3, 0x21, 0xff, 3, 0x22, 0xff, 3, 0x23, 0xff, 3, 0x24, 0xff})
	f.Fuzz(func(t *testing.T, b, edits []byte) {
		var s pci.BusState
		if state.Decode(b, &s) != nil {
			return
		}
		for ; len(edits) >= 3 && len(s.Functions) > 0; edits = edits[3:] {
			if c := s.Functions[int(edits[0])%len(s.Functions)].Config; int(edits[1]) < len(c) {
				c[edits[1]] = edits[2]
			}
		}
		m := newMachine(t)
		m.device(4, 0x10)
		m.device(8, 0x20)
		if m.bus.Restore(s) != nil {
			return
		}
		saved := m.bus.Save()
		again := newMachine(t)
		again.device(4, 0x10)
		again.device(8, 0x20)
		if err := again.bus.Restore(saved); err != nil {
			t.Fatalf("what was saved is not taken: %v", err)
		}
		if d := cmp.Diff(saved, again.bus.Save()); d != "" {
			t.Errorf("saved, restored and saved again (-first +second):\n%s", d)
		}
		for _, addr := range []uint64{0, 0xa0000, 1 << 20, mmioBase - 1, mmioEnd, 0xfee00000, highBase - 1, highBase + 1<<30} {
			if got := m.mem(addr); got != 0xff {
				t.Errorf("%#x, outside the windows, reads %#x", addr, got)
			}
		}
		m.bus.Reset()
		if err := m.bus.Assign(); err != nil {
			t.Fatal(err)
		}
		if got := m.mem(uint64(m.cfg(4, 0x18, 4))); got != 0x11 {
			t.Errorf("after a reset a BAR reads %#x", got)
		}
	})
}
