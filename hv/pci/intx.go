package pci

import "sync"

// pinLines maps the four PIRQ links of the PIIX3 to interrupt lines, as SeaBIOS
// sets them up: A and B to 10, C and D to 11.
var pinLines = [4]uint32{10, 10, 11, 11}

// GSI is the interrupt line of INTA# of a slot: the swizzle that firmware and
// ACPI tables for this chipset apply.
func GSI(slot int) uint32 { return pinLines[(slot-1)&3] }

// intx is a function's pin. Its lock is a leaf: interrupts come from queue
// goroutines, for which a holder of the bus lock may be waiting.
type intx struct {
	mu      sync.Mutex
	line    Line // nil: the function has no pin
	pending bool // the device asks for service
	masked  bool // command bit 10
	msix    bool // MSI-X is enabled, which silences the pin (PCI 3.0, 6.8.3.3)
}

// UseINTx gives the function a pin INTA#, which Bus.Add connects to the line of
// the slot.
func (f *Function) UseINTx() {
	f.pin = true
	f.power[regIntPin], f.cfg[regIntPin] = 1, 1
}

// SetINTx says whether the device asks for service on its pin. The line follows
// unless the guest has masked it or uses MSI-X.
func (f *Function) SetINTx(pending bool) {
	f.intx.update(func(x *intx) { x.pending = pending })
}

func (x *intx) mask(on bool)    { x.update(func(x *intx) { x.masked = on }) }
func (x *intx) useMSIX(on bool) { x.update(func(x *intx) { x.msix = on }) }
func (x *intx) reset()          { x.update(func(x *intx) { x.pending, x.masked, x.msix = false, false, false }) }

func (x *intx) update(change func(*intx)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	change(x)
	if x.line != nil {
		x.line.Set(x.pending && !x.masked && !x.msix)
	}
}

// up is the status register's bit: it shows the request even while the pin is
// masked (6.2.3).
func (x *intx) up() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.pending && !x.msix
}
