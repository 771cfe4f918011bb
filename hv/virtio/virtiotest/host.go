// Package virtiotest is a guest for tests of virtio devices: a machine without
// KVM (Host), and a driver in it (Driver) that finds a device on the PCI bus,
// sets it up through its registers and builds rings in guest memory, as a real
// one does.
package virtiotest

import (
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/bus"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
)

// RAMBase is where a Host's memory begins.
const RAMBase mem.GPA = 1 << 20

// PCI windows of a Host. Its memory must end below them.
var windows = pci.Windows{
	IO:     pci.Window{Base: 0xc000, Size: 0x4000},
	MMIO:   pci.Window{Base: 0xc0000000, Size: 0x3ec00000},
	MMIO64: pci.Window{Base: 1 << 38, Size: 1 << 30},
}

// Host is a machine with memory, a PCI bus and nothing else. It implements
// pci.Host with eventfds that are not KVM's.
type Host struct {
	Mem *mem.Memory
	PCI *pci.Bus
	// NoDoorbells makes the machine refuse ioeventfds.
	NoDoorbells bool

	t     testing.TB
	ports bus.Bus
	mmio  bus.Bus
	free  mem.GPA // where Alloc goes on
	end   mem.GPA
	gone  map[*virtiopci.Function]bool // closed

	mu    sync.Mutex
	bells map[bellKey]pci.Doorbell
	msis  []*MSI
	lines map[uint32]*Line
}

// guard is what lies on either side of a Host's memory: to touch it is a crash.
const guard = 64 << 10

// NewHost makes a machine with size bytes of memory.
func NewHost(t testing.TB, size int) *Host {
	t.Helper()
	all, err := unix.Mmap(-1, 0, size+2*guard, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatalf("map %d bytes of guest memory: %v", size, err)
	}
	t.Cleanup(func() { unix.Munmap(all) })
	b := all[guard : guard+size : guard+size]
	if err := unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatalf("open %d bytes of guest memory: %v", size, err)
	}
	m, err := mem.New(mem.Region{Base: RAMBase, Bytes: b})
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{
		Mem: m, t: t, free: RAMBase, end: RAMBase + mem.GPA(size),
		bells: map[bellKey]pci.Doorbell{}, lines: map[uint32]*Line{},
		gone: map[*virtiopci.Function]bool{},
	}
	h.PCI = pci.NewBus(h, windows)
	if err := h.PCI.MapConfig(nil); err != nil {
		t.Fatal(err)
	}
	return h
}

// Plug puts dev into a slot and assigns addresses. The test fails if the guest
// breaks it, unless warn is given. The device is closed with the test.
func (h *Host) Plug(slot int, dev virtio.Device, warn func(error)) *virtiopci.Function {
	h.t.Helper()
	return h.PlugWith(slot, dev, virtiopci.Options{Warn: warn})
}

// PlugWith is Plug with all that a function can be asked for.
func (h *Host) PlugWith(slot int, dev virtio.Device, o virtiopci.Options) *virtiopci.Function {
	h.t.Helper()
	if o.Warn == nil {
		o.Warn = func(err error) { h.t.Errorf("device failed: %v", err) }
	}
	f := h.insert(slot, dev, o)
	if err := h.PCI.Assign(); err != nil {
		h.t.Fatal(err)
	}
	return f
}

// insert puts dev into a slot, at no address.
func (h *Host) insert(slot int, dev virtio.Device, o virtiopci.Options) *virtiopci.Function {
	h.t.Helper()
	f, err := virtiopci.New(h, h.Mem, dev, o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.remove(f) })
	if err := h.PCI.Add(slot, f.PCI()); err != nil {
		h.t.Fatal(err)
	}
	return f
}

// remove closes a device, once.
func (h *Host) remove(f *virtiopci.Function) {
	h.t.Helper()
	if h.gone[f] {
		return
	}
	h.gone[f] = true
	if err := f.Close(); err != nil {
		h.t.Errorf("close the device: %v", err)
	}
}

// Alloc returns n fresh bytes of guest memory, aligned to a page if n is a page
// or more, and to 16 otherwise.
func (h *Host) Alloc(n int) mem.GPA {
	h.t.Helper()
	align := mem.GPA(16)
	if n >= 4096 {
		align = 4096
	}
	gpa := (h.free + align - 1) &^ (align - 1)
	if gpa+mem.GPA(n) > h.end {
		h.t.Fatalf("guest memory is used up: %d bytes wanted", n)
	}
	h.free = gpa + mem.GPA(n)
	return gpa
}

// Bytes is guest memory.
func (h *Host) Bytes(gpa mem.GPA, n int) []byte {
	h.t.Helper()
	b, err := h.Mem.Slice(gpa, uint64(n))
	if err != nil {
		h.t.Fatalf("%d bytes at %#x: %v", n, gpa, err)
	}
	return b
}

// Ports implements pci.Host.
func (h *Host) Ports() *bus.Bus { return &h.ports }

// MMIO implements pci.Host.
func (h *Host) MMIO() *bus.Bus { return &h.mmio }

// bellKey is what tells the writes apart that ring doorbells.
type bellKey struct {
	port bool
	addr uint64
	data uint16 // 0 unless the doorbell is for one value
}

func keyOf(d pci.Doorbell) bellKey { return bellKey{d.Port, d.Addr, uint16(d.Data)} }

// AddDoorbell implements pci.Host.
func (h *Host) AddDoorbell(d pci.Doorbell) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.NoDoorbells {
		return fmt.Errorf("doorbell at %#x: refused", d.Addr)
	}
	if _, ok := h.bells[keyOf(d)]; ok {
		return fmt.Errorf("doorbell at %#x: there is one already", d.Addr)
	}
	h.bells[keyOf(d)] = d
	return nil
}

// RemoveDoorbell implements pci.Host.
func (h *Host) RemoveDoorbell(d pci.Doorbell) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bells[keyOf(d)] != d {
		return fmt.Errorf("doorbell at %#x: not the one that was added", d.Addr)
	}
	delete(h.bells, keyOf(d))
	return nil
}

// Doorbells is how many doorbells the machine has.
func (h *Host) Doorbells() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.bells)
}

// Poke is a guest's write to a memory address: to a doorbell, or a device.
func (h *Host) Poke(addr uint64, data []byte) {
	h.mu.Lock()
	d, ok := h.bells[bellKey{addr: addr}]
	h.mu.Unlock()
	if ok && (d.Size == 0 || int(d.Size) == len(data)) {
		ring(d.FD)
		return
	}
	h.mmio.Write(addr, data)
}

// PokePort is a guest's write to a port: to a doorbell, or a device.
func (h *Host) PokePort(port uint64, data []byte) {
	if len(data) == 2 {
		h.mu.Lock()
		d, ok := h.bells[bellKey{true, port, uint16(data[0]) | uint16(data[1])<<8}]
		h.mu.Unlock()
		if ok {
			ring(d.FD)
			return
		}
	}
	h.ports.Write(port, data)
}

// MSI implements pci.Host.
func (h *Host) MSI() (pci.MSI, error) {
	m := &MSI{event: newEvent(h.t)}
	h.msis = append(h.msis, m)
	return m, nil
}

// Line implements pci.Host.
func (h *Host) Line(gsi uint32) pci.Line {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lines[gsi]
	if l == nil {
		l = &Line{event: newEvent(h.t)}
		h.lines[gsi] = l
	}
	return l
}
