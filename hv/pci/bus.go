package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"vmd/hv/bus"
)

// Window is a range of addresses that BARs may be placed in.
type Window struct{ Base, Size uint64 }

// holds says whether all of [addr, addr+size) is in w.
func (w Window) holds(addr, size uint64) bool {
	return addr >= w.Base && size <= w.Size && addr-w.Base <= w.Size-size
}

// Windows are the ranges that a machine leaves to PCI. Nothing else of the
// machine may lie in them: a BAR outside its window is never decoded, so no BAR
// can cover RAM, the I/O APIC or the local APIC.
type Windows struct {
	IO     Window // ports
	MMIO   Window // below 4 GiB
	MMIO64 Window // above; Size 0 if there is none
}

// Bus is bus 0 of a machine.
type Bus struct {
	host    Host
	windows Windows

	mu      sync.Mutex // guards all below, and every register of every function
	address uint32     // CONFIG_ADDRESS
	slots   [slots]*Function
}

// NewBus makes an empty bus on the machine h.
func NewBus(h Host, w Windows) *Bus { return &Bus{host: h, windows: w} }

// Add puts f into a slot, as function 0. It is for building the machine, before
// a guest runs.
func (b *Bus) Add(slot int, f *Function) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slot < 0 || slot >= slots || b.slots[slot] != nil {
		return fmt.Errorf("PCI slot %d: not free", slot)
	}
	if f.bus != nil {
		return fmt.Errorf("PCI slot %d: function already sits in slot %d", slot, f.slot)
	}
	b.slots[slot], f.bus, f.slot = f, b, slot
	if f.pin {
		f.intx.line = b.host.Line(GSI(slot))
	}
	return nil
}

// Functions calls fn for each function, lowest slot first.
func (b *Bus) Functions(fn func(slot int, f *Function)) {
	for slot, f := range b.slots {
		if f != nil {
			fn(slot, f)
		}
	}
}

// Reset returns every function to power-on, in slot order: devices stop, BARs
// are no longer decoded. No vCPU may be running.
func (b *Bus) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.address = 0
	b.Functions(func(_ int, f *Function) { f.reset() })
	b.remap()
}

// Assign does firmware's work for a guest that boots without any: it places
// every BAR, turns decoding and bus mastering on, and fills in the interrupt
// line. It follows Reset when such a guest restarts.
func (b *Bus) Assign() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.windows
	var errs []error
	b.Functions(func(slot int, f *Function) {
		for n := range f.bars {
			if err := f.place(n, &next); err != nil {
				errs = append(errs, fmt.Errorf("PCI slot %d: %w", slot, err))
			}
		}
		binary.LittleEndian.PutUint16(f.cfg[regCommand:], cmdIO|cmdMemory|cmdMaster)
		if f.intx.line != nil {
			f.cfg[regIntLine] = byte(GSI(slot))
		}
	})
	b.remap()
	return errors.Join(errs...)
}

// place takes the lowest fitting address for BAR n out of free. A 64-bit BAR is
// placed below 4 GiB as well: every guest can reach it there.
func (f *Function) place(n int, free *Windows) error {
	br := &f.bars[n]
	if br.size == 0 {
		return nil
	}
	w := &free.MMIO
	if br.kind == BARIO {
		w = &free.IO
	}
	addr := (w.Base + br.size - 1) &^ (br.size - 1)
	if !w.holds(addr, br.size) {
		return fmt.Errorf("BAR %d of %d bytes: no room in the window", n, br.size)
	}
	f.setBAR(n, addr)
	used := addr + br.size - w.Base
	w.Base, w.Size = w.Base+used, w.Size-used
	return nil
}

// remap makes the machine's address spaces follow the BARs. What has moved is
// taken out everywhere before anything is put in, so that two BARs can swap;
// where two claim one address the lower slot has it, until it lets go.
func (b *Bus) remap() {
	b.eachBAR(func(f *Function, n int, br *bar) {
		if addr, ok := b.decoded(f, n); br.mapped && (!ok || addr != br.addr) {
			b.space(br).Unmap(br.addr)
			br.mapped = false
			f.decode(n, br.addr, false)
		}
	})
	b.eachBAR(func(f *Function, n int, br *bar) {
		addr, ok := b.decoded(f, n)
		if !ok || br.mapped || b.space(br).Map(addr, br.size, br.dev) != nil {
			return // Map refuses an overlap: the BAR stays silent
		}
		br.mapped, br.addr = true, addr
		f.decode(n, addr, true)
	})
}

func (b *Bus) eachBAR(fn func(*Function, int, *bar)) {
	b.Functions(func(_ int, f *Function) {
		for n := range f.bars {
			if f.bars[n].size != 0 {
				fn(f, n, &f.bars[n])
			}
		}
	})
}

// space is the address space that a BAR is mapped into.
func (b *Bus) space(br *bar) *bus.Bus {
	if br.kind == BARIO {
		return b.host.Ports()
	}
	return b.host.MMIO()
}

// decoded returns where BAR n should answer, if anywhere. The address that
// sizing leaves behind (all ones) is outside every window.
func (b *Bus) decoded(f *Function, n int) (uint64, bool) {
	br := &f.bars[n]
	addr, cmd := f.barAddr(n), f.command()
	switch {
	case br.kind == BARIO:
		return addr, cmd&cmdIO != 0 && b.windows.IO.holds(addr, br.size)
	case cmd&cmdMemory == 0:
		return addr, false
	case br.kind == BARMem64 && b.windows.MMIO64.holds(addr, br.size):
		return addr, true
	}
	return addr, b.windows.MMIO.holds(addr, br.size)
}

func (f *Function) decode(n int, addr uint64, on bool) {
	if f.Hooks.Decode != nil {
		f.Hooks.Decode(n, addr, on)
	}
}
