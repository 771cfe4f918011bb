// Package chipset is what a PC has besides its CPUs, memory and PCI cards: the
// serial port, the real-time clock, the ACPI power management block and the
// ports that reset the machine. One file per part.
//
// Every part is a bus.Device, or hands out several, and may be used by all
// vCPUs at once: each has a lock of its own. Lines and outputs are called with
// that lock held, so that levels and bytes arrive in the order the guest made
// them; they must not block and must not call back. The callbacks that are
// given as functions run without the lock, on the thread of the vCPU that
// caused them, and must not block either.
//
// What a guest may not do is not answered: bytes beyond a part's registers read
// as zero unless the part says otherwise, and writes to them are dropped.
package chipset

import "fmt"

// Line is an interrupt line. Setting the level it has does nothing. hv/pci has
// the same interface for its lines.
type Line interface {
	Set(high bool)
}

// noLine stands in for a line that is not connected.
type noLine struct{}

func (noLine) Set(bool) {}

func lineOrNone(l Line) Line {
	if l == nil {
		return noLine{}
	}
	return l
}

// level remembers what a line was last set to, so that a register access that
// changes nothing costs no system call.
type level struct {
	line Line
	high bool
}

func (l *level) set(high bool) {
	if high != l.high {
		l.high = high
		l.line.Set(high)
	}
}

// restart is power-on: the line is low whatever it was.
func (l *level) restart() {
	l.high = false
	l.line.Set(false)
}

// field is a register of a saved state, and the bits that it can have.
type field struct {
	name    string
	v, mask uint64
}

// known refuses a state of part with bits that no guest could have set.
func known(part string, fields []field) error {
	for _, f := range fields {
		if f.v&^f.mask != 0 {
			return fmt.Errorf("%s: %s is %#x, which has bits that it cannot have", part, f.name, f.v)
		}
	}
	return nil
}

// Absent answers ports where a PC may have something and this machine has
// nothing: DMA controllers, a second serial port, a printer. Reads give all
// ones, as a bus does that nobody drives.
type Absent struct{}

// Read implements bus.Device.
func (Absent) Read(_ uint64, data []byte) { ones(data) }

// Write implements bus.Device.
func (Absent) Write(uint64, []byte) {}

func ones(data []byte) {
	for i := range data {
		data[i] = 0xff
	}
}
