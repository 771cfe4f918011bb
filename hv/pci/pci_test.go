package pci_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"vmd/hv/bus"
	"vmd/hv/pci"
)

// host is a machine that remembers what PCI asks of it.
type host struct {
	ports, mmio bus.Bus
	msis        []*msi
	lines       map[uint32]*line
}

type msi struct {
	addr     uint64
	data     uint32
	routes   int
	signals  int
	routeErr error
}

func (m *msi) Route(addr uint64, data uint32) error {
	m.addr, m.data = addr, data
	m.routes++
	return m.routeErr
}
func (m *msi) FD() int { return 7 }
func (m *msi) Signal() { m.signals++ }

type line struct{ high bool }

func (l *line) Set(high bool) { l.high = high }

func (h *host) Ports() *bus.Bus { return &h.ports }
func (h *host) MMIO() *bus.Bus  { return &h.mmio }
func (h *host) MSI() (pci.MSI, error) {
	h.msis = append(h.msis, &msi{})
	return h.msis[len(h.msis)-1], nil
}
func (h *host) Line(gsi uint32) pci.Line {
	if h.lines[gsi] == nil {
		h.lines[gsi] = &line{}
	}
	return h.lines[gsi]
}
func (h *host) AddDoorbell(pci.Doorbell) error    { return nil }
func (h *host) RemoveDoorbell(pci.Doorbell) error { return nil }

// ram is what a BAR maps: it reads as its fill byte.
type ram byte

func (r ram) Read(_ uint64, p []byte) {
	for i := range p {
		p[i] = byte(r)
	}
}
func (ram) Write(uint64, []byte) {}

const (
	ioBase   = 0xc000
	mmioBase = 0xc0000000
	mmioEnd  = 0xfec00000
	highBase = 1 << 38
)

type machine struct {
	*host
	t   testing.TB
	bus *pci.Bus
	rst reset
}

// reset counts what reaches port 0xCF9.
type reset struct{ last byte }

func (r *reset) Read(_ uint64, p []byte)  { p[0] = 0x5a }
func (r *reset) Write(_ uint64, p []byte) { r.last = p[0] }

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{host: &host{lines: map[uint32]*line{}}, t: t}
	m.bus = pci.NewBus(m.host, pci.Windows{
		IO:     pci.Window{Base: ioBase, Size: 0x4000},
		MMIO:   pci.Window{Base: mmioBase, Size: mmioEnd - mmioBase},
		MMIO64: pci.Window{Base: highBase, Size: 1 << 30},
	})
	if err := errors.Join(m.bus.MapConfig(&m.rst), m.bus.AddHostBridge(), m.bus.AddSouthBridge()); err != nil {
		t.Fatal(err)
	}
	return m
}

// device is a function with a BAR of each kind and two MSI-X vectors.
func (m *machine) device(slot int, fill byte) *pci.Function {
	m.t.Helper()
	f := pci.NewFunction(m.host, pci.ID{Vendor: 0x1af4, Device: 0x1042, Class: 0x010203, Revision: 9, SubVendor: 0x11, SubDevice: 0x22})
	f.UseINTx()
	if err := errors.Join(
		f.AddBAR(0, pci.BARIO, 64, ram(fill)),
		f.AddMSIX(0x98, 1, 2),
		f.AddBAR(2, pci.BARMem32, 0x1000, ram(fill+1)),
		f.AddBAR(4, pci.BARMem64, 0x4000, ram(fill+2)),
		f.AddCapability(0x40, pci.CapVendor, []byte{1, 2}, []byte{0, 0xff}),
		m.bus.Add(slot, f),
	); err != nil {
		m.t.Fatal(err)
	}
	return f
}

func (m *machine) out(port uint64, n int, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	m.ports.Write(port, b[:n])
}

func (m *machine) in(port uint64, n int) uint32 {
	var b [4]byte
	m.ports.Read(port, b[:n])
	return binary.LittleEndian.Uint32(b[:])
}

func (m *machine) cfg(slot, reg, n int) uint32 {
	m.out(0xcf8, 4, 1<<31|uint32(slot)<<11|uint32(reg&^3))
	return m.in(0xcfc+uint64(reg&3), n)
}

func (m *machine) setCfg(slot, reg, n int, v uint32) {
	m.out(0xcf8, 4, 1<<31|uint32(slot)<<11|uint32(reg&^3))
	m.out(0xcfc+uint64(reg&3), n, v)
}

// mem reads a byte of memory space: 0xff where nothing answers.
func (m *machine) mem(addr uint64) byte {
	var b [1]byte
	m.mmio.Read(addr, b[:])
	return b[0]
}

func TestChipset(t *testing.T) {
	m := newMachine(t)
	for _, c := range []struct {
		name         string
		slot, reg, n int
		want         uint32
	}{
		{"host bridge", 0, 0, 4, 0x12378086},
		{"host bridge class", 0, 8, 4, 0x06000002},
		{"subsystem that SeaBIOS knows", 0, 0x2c, 4, 0x11001af4},
		{"ISA bridge", 1, 0, 4, 0x70008086},
		{"PIRQA unrouted", 1, 0x60, 4, 0x80808080},
		{"PM", 2, 0, 4, 0x71138086},
		{"PM class", 2, 8, 4, 0x06800003},
		{"PMBASE", 2, 0x40, 4, 0x601},
		{"APMC_EN", 2, 0x5b, 1, 2},
		{"SCI", 2, 0x3c, 2, 0x0109},
		{"not multi-function", 1, 0x0e, 1, 0},
		{"no such device", 7, 0, 4, 0xffffffff},
	} {
		if got := m.cfg(c.slot, c.reg, c.n); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	m.setCfg(0, 0x59, 1, 0x33) // PAM is stored
	if got := m.cfg(0, 0x59, 1); got != 0x33 {
		t.Errorf("PAM0 reads %#x", got)
	}
	m.setCfg(2, 0x40, 4, 0xb001) // PMBASE is not
	if got := m.cfg(2, 0x40, 4); got != 0x601 {
		t.Errorf("PMBASE reads %#x", got)
	}
	m.setCfg(0, 0, 4, 0)
	if got := m.cfg(0, 0, 4); got != 0x12378086 {
		t.Errorf("the id was overwritten: %#x", got)
	}
}

func TestConfigAddress(t *testing.T) {
	m := newMachine(t)
	m.out(0xcf8, 4, 0xffffffff)
	if got := m.in(0xcf8, 4); got != 0x80fffffc {
		t.Errorf("latch reads %#x", got)
	}
	m.out(0xcf8, 4, 1<<31)
	for _, c := range []struct {
		name string
		addr uint32
	}{
		{"disabled", 0},
		{"another bus", 1<<31 | 1<<16},
		{"another function", 1<<31 | 1<<8},
	} {
		m.out(0xcf8, 4, c.addr)
		if got := m.in(0xcfc, 4); got != 0xffffffff {
			t.Errorf("%s: %#x", c.name, got)
		}
	}
	m.out(0xcf8, 4, 1<<31)
	if got := m.in(0xcfe, 2); got != 0x1237 {
		t.Errorf("device id through 0xcfe: %#x", got)
	}
	// Narrow accesses do not touch the latch, and 0xCF9 is the reset register.
	m.out(0xcf8, 1, 0)
	m.out(0xcfa, 2, 0)
	m.out(0xcf9, 1, 6)
	if m.rst.last != 6 {
		t.Errorf("reset register got %#x", m.rst.last)
	}
	if got := m.in(0xcf9, 1); got != 0x5a {
		t.Errorf("reset register reads %#x", got)
	}
	if got := m.in(0xcf8, 4); got != 1<<31 {
		t.Errorf("latch reads %#x after narrow writes", got)
	}
	if got := m.in(0xcf8, 2); got != 0xffff {
		t.Errorf("narrow read of the latch: %#x", got)
	}
}

func TestCapabilitiesAreInOrder(t *testing.T) {
	m := newMachine(t)
	m.device(4, 0x10)
	if got := m.cfg(4, 6, 2) & 0x10; got == 0 {
		t.Error("status does not say that there are capabilities")
	}
	var ids []uint32
	for p := m.cfg(4, 0x34, 1); p != 0; p = m.cfg(4, int(p)+1, 1) {
		ids = append(ids, m.cfg(4, int(p), 1))
	}
	if len(ids) != 2 || ids[0] != pci.CapMSIX || ids[1] != pci.CapVendor {
		t.Errorf("capabilities %#x, want MSI-X, vendor", ids)
	}
	m.setCfg(4, 0x40, 4, 0xffffffff)
	if got := m.cfg(4, 0x40, 4); got != 0xff010009 {
		t.Errorf("capability after a write of ones: %#x", got)
	}
}

func TestBARSizing(t *testing.T) {
	m := newMachine(t)
	m.device(4, 0x10)
	m.setCfg(4, 4, 2, 3) // not every system turns decoding off first
	for _, c := range []struct{ bar, want uint32 }{
		{0, 0xffffffc1}, {1, 0xfffff000}, {2, 0xfffff000}, {3, 0}, {4, 0xffffc004}, {5, 0xffffffff},
	} {
		m.setCfg(4, 0x10+4*int(c.bar), 4, 0xffffffff)
		if got := m.cfg(4, 0x10+4*int(c.bar), 4); got != c.want {
			t.Errorf("BAR %d: %#x, want %#x", c.bar, got, c.want)
		}
	}
}

func TestBARDecoding(t *testing.T) {
	m := newMachine(t)
	m.device(4, 0x10)
	for _, c := range []struct {
		name   string
		lo, hi uint32
		cmd    uint32
		addr   uint64
		want   byte
	}{
		{"in the window", mmioBase, 0, 2, mmioBase, 0x12},
		{"decoding off", mmioBase, 0, 1, mmioBase, 0xff},
		{"last place below the I/O APIC", mmioEnd - 0x4000, 0, 2, mmioEnd - 1, 0x12},
		{"I/O APIC", mmioEnd, 0, 2, mmioEnd, 0xff},
		{"local APIC", 0xfee00000, 0, 2, 0xfee00000, 0xff},
		{"RAM", 0x100000, 0, 2, 0x100000, 0xff},
		{"zero", 0, 0, 2, 0, 0xff},
		{"above 4 GiB", 0, highBase >> 32, 2, highBase, 0x12},
		{"end of the high window", 0xffffc000, (highBase + 1<<30) >> 32, 2, highBase + 1<<30, 0xff},
		{"the end of the address space", 0xffffffff, 0xffffffff, 2, 1<<64 - 0x4000, 0xff},
	} {
		m.setCfg(4, 0x20, 4, c.lo)
		m.setCfg(4, 0x24, 4, c.hi)
		m.setCfg(4, 4, 2, c.cmd)
		if got := m.mem(c.addr); got != c.want {
			t.Errorf("%s: %#x reads %#x, want %#x", c.name, c.addr, got, c.want)
		}
	}
}

func TestBARMoves(t *testing.T) {
	m := newMachine(t)
	m.device(4, 0x10)
	m.setCfg(4, 0x20, 4, mmioBase)
	m.setCfg(4, 4, 2, 2)
	m.setCfg(4, 0x20, 4, mmioBase+0x10000)
	if a, b := m.mem(mmioBase), m.mem(mmioBase+0x10000); a != 0xff || b != 0x12 {
		t.Errorf("old place reads %#x, new one %#x", a, b)
	}
}

func TestBARsThatOverlap(t *testing.T) {
	m := newMachine(t)
	m.device(4, 0x10)
	m.device(5, 0x20)
	for _, slot := range []int{5, 4} {
		m.setCfg(slot, 0x20, 4, mmioBase)
		m.setCfg(slot, 4, 2, 2)
	}
	if got := m.mem(mmioBase); got != 0x22 {
		t.Errorf("contested address reads %#x, want the first to have come", got)
	}
	m.setCfg(5, 4, 2, 0)
	if got := m.mem(mmioBase); got != 0x12 {
		t.Errorf("address that was let go reads %#x, want the other function", got)
	}
}

func TestAssignAndReset(t *testing.T) {
	m := newMachine(t)
	resets := 0
	for slot := 4; slot < 8; slot++ {
		f := m.device(slot, byte(slot)<<4)
		f.Hooks.Reset = func() { resets++ }
	}
	for range 2 {
		if err := m.bus.Assign(); err != nil {
			t.Fatal(err)
		}
		for slot := 4; slot < 8; slot++ {
			bar := uint64(m.cfg(slot, 0x20, 4) &^ 15)
			if got := m.mem(bar); got != byte(slot)<<4+2 {
				t.Errorf("slot %d: BAR 4 at %#x reads %#x", slot, bar, got)
			}
			io := uint64(m.cfg(slot, 0x10, 4) &^ 3)
			if got := m.in(io, 1); got != uint32(slot)<<4 {
				t.Errorf("slot %d: BAR 0 at %#x reads %#x", slot, io, got)
			}
			if got, want := m.cfg(slot, 0x3c, 2), 0x100|pci.GSI(slot); got != want {
				t.Errorf("slot %d: interrupt line and pin %#x, want %#x", slot, got, want)
			}
			if got := m.cfg(slot, 4, 2); got != 7 {
				t.Errorf("slot %d: command %#x", slot, got)
			}
		}
		bar := uint64(m.cfg(4, 0x20, 4) &^ 15)
		m.bus.Reset()
		if got := m.mem(bar); got != 0xff {
			t.Errorf("a BAR answers after reset: %#x", got)
		}
		if got := m.cfg(4, 0x20, 4); got != 4 {
			t.Errorf("BAR 4 after reset: %#x", got)
		}
	}
	if resets != 8 {
		t.Errorf("%d device resets, want 8", resets)
	}
}

func TestAssignNeedsRoom(t *testing.T) {
	m := newMachine(t)
	f := pci.NewFunction(m.host, pci.ID{})
	for n := range 3 {
		if err := f.AddBAR(n, pci.BARMem32, 1<<29, ram(0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.bus.Add(4, f); err != nil {
		t.Fatal(err)
	}
	if err := m.bus.Assign(); err == nil {
		t.Error("1.5 GiB of BARs fitted into a window of 1004 MiB")
	}
}

func TestINTx(t *testing.T) {
	m := newMachine(t)
	f := m.device(4, 0x10)
	l := m.lines[pci.GSI(4)]
	step := func(name string, high bool, status uint32) {
		t.Helper()
		if l.high != high {
			t.Errorf("%s: line %v, want %v", name, l.high, high)
		}
		if got := m.cfg(4, 6, 2) & 8; got != status {
			t.Errorf("%s: status bit %#x, want %#x", name, got, status)
		}
	}
	f.SetINTx(true)
	step("asserted", true, 8)
	m.setCfg(4, 4, 2, 1<<10)
	step("masked", false, 8)
	m.setCfg(4, 4, 2, 0)
	step("unmasked", true, 8)
	m.setCfg(4, 0x9a, 2, 1<<15)
	step("MSI-X on", false, 0)
	m.setCfg(4, 0x9a, 2, 0)
	step("MSI-X off", true, 8)
	f.SetINTx(false)
	step("deasserted", false, 0)
	f.SetINTx(true)
	m.bus.Reset()
	step("reset", false, 0)
}

func TestSwizzle(t *testing.T) {
	want := []uint32{0: 11, 1: 10, 2: 10, 3: 11, 4: 11, 5: 10, 31: 11}
	for _, slot := range []int{0, 1, 2, 3, 4, 5, 31} {
		if got := pci.GSI(slot); got != want[slot] {
			t.Errorf("slot %d: line %d, want %d", slot, got, want[slot])
		}
	}
}

func TestBuildErrors(t *testing.T) {
	m := newMachine(t)
	f := pci.NewFunction(m.host, pci.ID{})
	for name, err := range map[string]error{
		"size":             f.AddBAR(0, pci.BARMem32, 3000, nil),
		"64-bit in BAR 5":  f.AddBAR(5, pci.BARMem64, 4096, nil),
		"small":            f.AddBAR(0, pci.BARMem32, 8, nil),
		"vectors":          f.AddMSIX(0x98, 1, 129),
		"no vector":        f.AddMSIX(0x98, 1, 0),
		"header":           f.SetRegister(0x3c, []byte{1}, []byte{1}),
		"end":              f.SetRegister(0xff, []byte{1, 2}, []byte{1, 2}),
		"capability place": f.AddCapability(0x41, 9, nil, nil),
		"slot taken":       m.bus.Add(0, f),
		"slot":             m.bus.Add(32, f),
		"ports taken":      m.bus.MapConfig(nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSignalDoesNotAllocate(t *testing.T) {
	m := newMachine(t)
	f := m.device(4, 0x10)
	m.setCfg(4, 0x9a, 2, 1<<15)
	if n := testing.AllocsPerRun(100, func() {
		f.MSIX().Signal(0)
		f.SetINTx(true)
		f.SetINTx(false)
	}); n != 0 {
		t.Errorf("%v allocations per interrupt", n)
	}
}

// FuzzConfigSpace makes a guest's accesses of configuration space, ports and
// memory, five bytes each, and then looks for a BAR where none may be.
func FuzzConfigSpace(f *testing.F) {
	f.Add([]byte{0, 4, 0x20, 0, 0xc0, 0, 4, 4, 7, 0, 2, 0, 0, 0, 0})
	f.Add([]byte{0, 4, 0x20, 0xff, 0xff, 0, 4, 4, 3, 0, 1, 5, 0x20, 0xe0, 0xfe})
	f.Add([]byte{0, 4, 0x98, 0, 0xc0, 2, 0, 12, 0, 0, 0, 5, 4, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, ops []byte) {
		m := newMachine(t)
		fs := []*pci.Function{m.device(4, 0x10), m.device(5, 0x20)}
		if len(ops)%2 == 0 {
			if err := m.bus.Assign(); err != nil {
				t.Fatal(err)
			}
		}
		for ; len(ops) >= 5; ops = ops[5:] {
			slot, reg, v := int(ops[1]&7), int(ops[2]), uint32(ops[3])<<8|uint32(ops[4])<<24|uint32(ops[3])
			size := []int{1, 2, 4, 4}[ops[0]>>3&3]
			reg -= reg & 3 % size
			switch ops[0] & 7 {
			case 0, 1:
				m.setCfg(slot, reg, size, v)
			case 2:
				bar := uint64(m.cfg(slot, 0x14, 4) &^ 15)
				m.mmio.Write(bar+uint64(reg)*4, binary.LittleEndian.AppendUint32(nil, v))
			case 3:
				fs[slot&1].MSIX().Signal(uint16(ops[2] & 3))
				fs[slot&1].SetINTx(ops[3]&1 != 0)
			case 4:
				m.out(0xcf8+uint64(reg&7), 1, v)
			case 5:
				m.bus.Reset()
			default:
				m.cfg(slot, reg, size)
			}
		}
		if got := m.cfg(0, 0, 4); got != 0x12378086 {
			t.Errorf("the host bridge is now %#x", got)
		}
		for _, addr := range []uint64{0, 0x9fc00, 0xe0000, 0x100000, mmioBase - 1, mmioEnd, 0xfee00000, 0xfffc0000, 1 << 32, highBase - 1, highBase + 1<<30, 1<<64 - 1} {
			if got := m.mem(addr); got != 0xff {
				t.Errorf("a BAR answers at %#x", addr)
			}
		}
	})
}
