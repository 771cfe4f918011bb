package pci

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"vmd/hv/bus"
)

// ID is what a guest recognises a function by.
type ID struct {
	Vendor, Device       uint16
	Class                uint32 // 24 bits: base class, sub-class, interface
	Revision             uint8
	SubVendor, SubDevice uint16
}

// Hooks is how what stands behind a function takes part in its life. Any may be
// nil. They are called with the bus locked, so they must not access
// configuration space through the Bus.
type Hooks struct {
	// Reset returns the device to its state at power-on. When it returns the
	// device touches neither guest memory nor interrupts.
	Reset func()
	// Decode says that BAR n answers at addr from now on, or no longer does.
	Decode func(n int, addr uint64, on bool)
	// ReadConfig may change p, which holds the registers at off.
	ReadConfig func(off int, p []byte)
	// WriteConfig is told of a write after the registers have taken it.
	WriteConfig func(off int, p []byte)
}

// Function is one PCI function with its configuration registers. Build it, then
// hand it to Bus.Add; afterwards only the bus changes it.
type Function struct {
	Hooks Hooks

	host Host
	id   ID
	slot int
	bus  *Bus // nil until Add

	cfg   [configSize]byte
	mask  [configSize]byte // bits that a guest may change
	power [configSize]byte // cfg after power-on
	bars  [barCount]bar

	lastCap int // register that will point at the next capability
	msix    *MSIX
	pin     bool // has INTA#
	intx    intx
}

// NewFunction makes a function of a device that is known as id.
func NewFunction(h Host, id ID) *Function {
	f := &Function{host: h, id: id, lastCap: regCapPointer}
	le := binary.LittleEndian
	le.PutUint16(f.power[regVendor:], id.Vendor)
	le.PutUint16(f.power[regDevice:], id.Device)
	f.power[regRevision] = id.Revision
	f.power[regClass] = byte(id.Class)
	le.PutUint16(f.power[regClass+1:], uint16(id.Class>>8))
	le.PutUint16(f.power[regSubVendor:], id.SubVendor)
	le.PutUint16(f.power[regSubDevice:], id.SubDevice)

	le.PutUint16(f.mask[regCommand:], cmdWritable)
	f.mask[regCacheLine] = 0xff
	f.mask[regLatency] = 0xff
	f.mask[regIntLine] = 0xff
	f.cfg = f.power
	return f
}

// ID returns what the function was made with.
func (f *Function) ID() ID { return f.id }

// Slot returns the slot the function sits in, once it has been added to a bus.
func (f *Function) Slot() int { return f.slot }

// SetRegister gives bytes of configuration space from off on their power-on
// value, and mask says which of their bits a guest may change. It is for
// registers of the device's own, beyond the header.
func (f *Function) SetRegister(off int, value, mask []byte) error {
	if off < headerEnd || off+len(value) > configSize || len(mask) != len(value) {
		return fmt.Errorf("register %#x of %d bytes: outside the device's part of configuration space", off, len(value))
	}
	copy(f.power[off:], value)
	copy(f.mask[off:], mask)
	f.cfg = f.power
	return nil
}

// AddCapability appends a capability at off: id, a pointer to the next, and
// body. Bits of body that are set in mask may be changed by the guest; a nil
// mask means none. The list is in the order of the calls.
func (f *Function) AddCapability(off int, id byte, body, mask []byte) error {
	if off&3 != 0 {
		return fmt.Errorf("capability %#x at %#x: not aligned to 4", id, off)
	}
	if mask == nil {
		mask = make([]byte, len(body))
	}
	value := append([]byte{id, 0}, body...)
	if err := f.SetRegister(off, value, append([]byte{0, 0}, mask...)); err != nil {
		return fmt.Errorf("capability %#x: %w", id, err)
	}
	f.power[f.lastCap] = byte(off)
	f.power[regStatus] |= statusCapList
	f.lastCap = off + 1
	f.cfg = f.power
	return nil
}

// BARKind says which address space a BAR is in, and how wide it is.
type BARKind int

// The kinds of BAR. BARMem64 takes two registers.
const (
	BARIO BARKind = iota
	BARMem32
	BARMem64
)

// bar is one base address register and where it is mapped.
type bar struct {
	kind   BARKind
	size   uint64 // 0: absent
	dev    bus.Device
	mapped bool
	addr   uint64 // valid while mapped
}

// AddBAR makes base address register n map dev over size bytes, a power of two.
func (f *Function) AddBAR(n int, kind BARKind, size uint64, dev bus.Device) error {
	last := n
	if kind == BARMem64 {
		last++
	}
	least := uint64(16)
	if kind == BARIO {
		least = 4
	}
	if n < 0 || last >= barCount || bits.OnesCount64(size) != 1 || size < least || size > 1<<31 {
		return fmt.Errorf("BAR %d of %d bytes: not possible", n, size)
	}
	flags := uint32(0)
	switch kind {
	case BARIO:
		flags = barIO
	case BARMem64:
		flags = barMem64
		binary.LittleEndian.PutUint32(f.mask[regBAR0+4*last:], ^uint32(0))
	}
	reg := regBAR0 + 4*n
	binary.LittleEndian.PutUint32(f.power[reg:], flags)
	binary.LittleEndian.PutUint32(f.mask[reg:], ^uint32(size-1))
	f.bars[n] = bar{kind: kind, size: size, dev: dev}
	f.cfg = f.power
	return nil
}

// barAddr returns what the guest has written into BAR n, without the flags.
func (f *Function) barAddr(n int) uint64 {
	reg := regBAR0 + 4*n
	lo := uint64(binary.LittleEndian.Uint32(f.cfg[reg:])) &^ (f.bars[n].size - 1)
	if f.bars[n].kind == BARMem64 {
		lo |= uint64(binary.LittleEndian.Uint32(f.cfg[reg+4:])) << 32
	}
	return lo
}

// setBAR does what a guest's firmware does to place BAR n.
func (f *Function) setBAR(n int, addr uint64) {
	reg := regBAR0 + 4*n
	flags := binary.LittleEndian.Uint32(f.power[reg:])
	binary.LittleEndian.PutUint32(f.cfg[reg:], uint32(addr)|flags)
	if f.bars[n].kind == BARMem64 {
		binary.LittleEndian.PutUint32(f.cfg[reg+4:], uint32(addr>>32))
	}
}

func (f *Function) command() uint16 { return binary.LittleEndian.Uint16(f.cfg[regCommand:]) }

// read fills p from the registers at off. The bus has checked the range.
func (f *Function) read(off int, p []byte) {
	copy(p, f.cfg[off:off+len(p)])
	if off <= regStatus && regStatus < off+len(p) && f.intx.up() {
		p[regStatus-off] |= statusINTx
	}
	if f.Hooks.ReadConfig != nil {
		f.Hooks.ReadConfig(off, p)
	}
}

// write stores the writable bits of p at off and carries out what follows.
func (f *Function) write(off int, p []byte) {
	for i, b := range p {
		m := f.mask[off+i]
		f.cfg[off+i] = f.cfg[off+i]&^m | b&m
	}
	touches := func(lo, hi int) bool { return off < hi && off+len(p) > lo }
	if touches(regCommand, regCommand+2) {
		f.intx.mask(f.command()&cmdINTxDisable != 0)
	}
	if touches(regCommand, regCommand+2) || touches(regBAR0, regBAR0+4*barCount) {
		f.bus.remap()
	}
	if f.msix != nil && touches(f.msix.cap, f.msix.cap+4) {
		f.applyMSIX()
	}
	if f.Hooks.WriteConfig != nil {
		f.Hooks.WriteConfig(off, p)
	}
}

// Register copies the registers at off, as they are stored, into p. It is for
// hooks, and for building the machine.
func (f *Function) Register(off int, p []byte) { copy(p, f.cfg[off:]) }

// reset is power-on: the device first, so that nothing of it is left running,
// then what the guest programmed.
func (f *Function) reset() {
	if f.Hooks.Reset != nil {
		f.Hooks.Reset()
	}
	f.cfg = f.power
	if f.msix != nil {
		f.msix.reset()
	}
	f.intx.reset()
}
