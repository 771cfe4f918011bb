package pci

import (
	"encoding/binary"
	"fmt"

	"vmd/hv/bus"
)

// Ports of configuration mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2).
const (
	portAddress = 0xcf8
	portData    = 0xcfc

	addressEnable   = 1 << 31
	addressReserved = 0x7f000003
	// resetControl is port 0xCF9, which the chipset decodes in the middle of
	// CONFIG_ADDRESS for accesses of one byte.
	resetControl = 0xcf9 - portAddress
)

// MapConfig puts configuration mechanism 1 onto the machine's ports. One-byte
// accesses of port 0xCF9 go to reset, as offset 0; nil leaves them unanswered.
func (b *Bus) MapConfig(reset bus.Device) error {
	if err := b.host.Ports().Map(portAddress, 4, &addressPort{b, reset}); err != nil {
		return fmt.Errorf("PCI configuration ports: %w", err)
	}
	if err := b.host.Ports().Map(portData, 4, &dataPort{b}); err != nil {
		return fmt.Errorf("PCI configuration ports: %w", err)
	}
	return nil
}

// addressPort is CONFIG_ADDRESS. Only a full 4-byte access reaches the latch.
type addressPort struct {
	b     *Bus
	reset bus.Device
}

func (a *addressPort) Read(off uint64, p []byte) {
	switch {
	case off == 0 && len(p) == 4:
		a.b.mu.Lock()
		binary.LittleEndian.PutUint32(p, a.b.address)
		a.b.mu.Unlock()
	case off == resetControl && len(p) == 1 && a.reset != nil:
		a.reset.Read(0, p)
	default:
		ones(p)
	}
}

func (a *addressPort) Write(off uint64, p []byte) {
	switch {
	case off == 0 && len(p) == 4:
		a.b.mu.Lock()
		a.b.address = binary.LittleEndian.Uint32(p) &^ addressReserved
		a.b.mu.Unlock()
	case off == resetControl && len(p) == 1 && a.reset != nil:
		a.reset.Write(0, p)
	}
}

// dataPort is CONFIG_DATA: the register that the latch names.
type dataPort struct{ b *Bus }

func (d *dataPort) Read(off uint64, p []byte) {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	f, reg := d.b.selected(off, len(p))
	if f == nil {
		ones(p)
		return
	}
	f.read(reg, p)
}

func (d *dataPort) Write(off uint64, p []byte) {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	if f, reg := d.b.selected(off, len(p)); f != nil {
		f.write(reg, p)
	}
}

// selected returns the function and register that an access of n bytes at off
// of the data port means, or nil: only function 0 of devices on bus 0 exists.
func (b *Bus) selected(off uint64, n int) (*Function, int) {
	a := b.address
	if a&addressEnable == 0 || a>>16&0xff != 0 || a>>8&7 != 0 || n > 4 || off+uint64(n) > 4 {
		return nil, 0
	}
	return b.slots[a>>11&(slots-1)], int(a&0xfc) + int(off)
}

func ones(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}
