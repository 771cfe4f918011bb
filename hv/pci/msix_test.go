package pci_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"vmd/hv/pci"
)

func TestMSIX(t *testing.T) {
	m := newMachine(t)
	f := m.device(4, 0x10)
	if err := m.bus.Assign(); err != nil {
		t.Fatal(err)
	}
	x, msi := f.MSIX(), m.msis[1]
	table := uint64(m.cfg(4, 0x14, 4))
	w32 := func(off uint64, v uint32) {
		m.mmio.Write(table+off, binary.LittleEndian.AppendUint32(nil, v))
	}
	r32 := func(off uint64) uint32 {
		var b [4]byte
		m.mmio.Read(table+off, b[:])
		return binary.LittleEndian.Uint32(b[:])
	}
	expect := func(name string, signals, routes int, pending uint32) {
		t.Helper()
		if msi.signals != signals || msi.routes != routes || r32(0x800) != pending {
			t.Errorf("%s: %d signals, %d routes, pending %#x; want %d, %d, %#x",
				name, msi.signals, msi.routes, r32(0x800), signals, routes, pending)
		}
	}
	if r32(16+12) != 1 {
		t.Error("vector 1 is not masked after power-on")
	}
	x.Signal(1)
	expect("MSI-X off", 0, 0, 0)
	m.setCfg(4, 0x9a, 2, 1<<15)
	x.Signal(1)
	expect("masked", 0, 0, 2)
	w32(16, 0xfee01003)
	w32(20, 0)
	w32(24, 0x4041)
	if r32(16) != 0xfee01000 || r32(24) != 0x4041 {
		t.Errorf("message reads %#x %#x", r32(16), r32(24))
	}
	expect("message written while masked", 0, 0, 2)
	w32(28, 0)
	expect("unmasked", 1, 1, 0)
	if msi.addr != 0xfee01000 || msi.data != 0x4041 {
		t.Errorf("routed %#x %#x", msi.addr, msi.data)
	}
	x.Signal(1)
	expect("live", 2, 1, 0)
	w32(28, 1)
	w32(28, 0)
	expect("masked and back: the route stands", 2, 1, 0)
	m.setCfg(4, 0x9a, 2, 3<<14)
	x.Signal(1)
	expect("function masked", 2, 1, 2)
	m.setCfg(4, 0x9a, 2, 1<<15)
	expect("function unmasked", 3, 1, 0)
	w32(24, 0x4042)
	expect("changed while live", 3, 2, 0)
	m.mmio.Write(table+16, []byte{0xef, 0xbe, 0xad, 0xde, 1, 0, 0, 0})
	if r32(16) != 0xdeadbeec || r32(20) != 1 {
		t.Errorf("8-byte write: %#x %#x", r32(16), r32(20))
	}
	m.mmio.Write(table+16, []byte{0}) // neither 4 nor 8 bytes, or not aligned
	m.mmio.Write(table+17, []byte{0, 0, 0, 0})
	m.mmio.Write(table+20, make([]byte, 8))
	if r32(16) != 0xdeadbeec || r32(20) != 1 {
		t.Errorf("odd writes changed the table: %#x %#x", r32(16), r32(20))
	}
	w32(0x800, 0xffffffff)
	if r32(0x800) != 0 {
		t.Error("the pending bits can be written")
	}
	x.Signal(2) // there is none
	x.Signal(pci.NoVector)
	if m.cfg(4, 0x9a, 2) != 1<<15|1 {
		t.Errorf("message control %#x", m.cfg(4, 0x9a, 2))
	}
}

// A vector that somebody signals without asking is silent while it is masked,
// and sent when it no longer is.
func TestMSIXDirect(t *testing.T) {
	m := newMachine(t)
	f := m.device(4, 0x10)
	if err := m.bus.Assign(); err != nil {
		t.Fatal(err)
	}
	x, msi := f.MSIX(), m.msis[1]
	table := uint64(m.cfg(4, 0x14, 4))
	mask := func(v byte) { m.mmio.Write(table+28, []byte{v, 0, 0, 0}) }
	expect := func(name string, signals, routes int, addr uint64) {
		t.Helper()
		if msi.signals != signals || msi.routes != routes || msi.addr != addr {
			t.Errorf("%s: %d signals, %d routes, to %#x; want %d, %d, %#x", name, msi.signals, msi.routes, msi.addr, signals, routes, addr)
		}
	}
	const addr = 0xfee01000
	m.setCfg(4, 0x9a, 2, 1<<15)
	m.mmio.Write(table+16, binary.LittleEndian.AppendUint32(nil, addr))
	mask(0)
	expect("unmasked", 0, 1, addr)
	if got := x.Direct(1); got != msi.FD() {
		t.Errorf("descriptor %d", got)
	}
	if got := x.Direct(pci.NoVector); got != -1 {
		t.Errorf("descriptor %d of no vector", got)
	}
	expect("direct", 0, 1, addr)
	mask(1)
	expect("masked", 0, 2, 0)
	mask(0)
	expect("unmasked again", 1, 3, addr)
	m.setCfg(4, 0x9a, 2, 3<<14)
	expect("function masked", 1, 4, 0)
	m.setCfg(4, 0x9a, 2, 1<<15)
	expect("function unmasked", 2, 5, addr)
	m.setCfg(4, 0x9a, 2, 0)
	expect("MSI-X off", 2, 6, 0)
	m.setCfg(4, 0x9a, 2, 1<<15)
	expect("MSI-X on", 3, 7, addr)
	m.bus.Reset()
	expect("reset", 3, 8, 0)
	if err := m.bus.Assign(); err != nil {
		t.Fatal(err)
	}
	m.setCfg(4, 0x9a, 2, 1<<15)
	mask(0)
	mask(1)
	mask(0)
	expect("direct no more", 3, 9, 0)
}

func TestMSIXRouteRefused(t *testing.T) {
	m := newMachine(t)
	f := m.device(4, 0x10)
	m.msis[0].routeErr = errors.New("no more routes")
	if err := m.bus.Assign(); err != nil {
		t.Fatal(err)
	}
	m.setCfg(4, 0x9a, 2, 1<<15)
	table := uint64(m.cfg(4, 0x14, 4))
	m.mmio.Write(table+12, make([]byte, 4))
	f.MSIX().Signal(0)
	if m.msis[0].signals != 0 {
		t.Error("a vector without a route was signalled")
	}
	if err := f.MSIX().RouteError(); !errors.Is(err, m.msis[0].routeErr) {
		t.Errorf("route error %v", err)
	}
}
