package kvm

import "fmt"

// maxRoutes bounds the routing table: the pins of the PC and a message for each
// interrupt vector of each device.
const maxRoutes = 512

// FirstMSI is the lowest GSI that SetMSI takes; those below are IOAPIC pins.
const FirstMSI = 24

// pc writes the wiring of a PC: ISA interrupts go to the PICs and to the IOAPIC
// pins of the same number, except that the timer, ISA 0, sits on pin 2, as the
// MADT says. KVM's own table has the timer on pin 0.
func (r *irqRouting) pc() {
	r.Nr = 0
	for gsi := uint32(0); gsi < FirstMSI; gsi++ {
		pin := gsi
		switch {
		case gsi == 2:
			continue // the slave PIC's line
		case gsi == 0:
			pin = 2
		}
		if gsi < 8 {
			r.chip(gsi, KVM_IRQCHIP_PIC_MASTER, gsi)
		} else if gsi < 16 {
			r.chip(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi-8)
		}
		r.chip(gsi, KVM_IRQCHIP_IOAPIC, pin)
	}
}

// chip appends a route from gsi to a pin of an interrupt controller.
func (r *irqRouting) chip(gsi, chip, pin uint32) {
	r.Entries[r.Nr] = routingEntry{GSI: gsi, Type: KVM_IRQ_ROUTING_IRQCHIP, U: [8]uint32{chip, pin}}
	r.Nr++
}

// msi returns the index of gsi's message, or -1.
func (r *irqRouting) msi(gsi uint32) int {
	for i := range r.Entries[:r.Nr] {
		if e := &r.Entries[i]; e.GSI == gsi && e.Type == KVM_IRQ_ROUTING_MSI {
			return i
		}
	}
	return -1
}

// SetMSI routes gsi, FirstMSI or above, to the message (addr, data). A call
// that changes nothing costs nothing; any other hands the whole table to the
// kernel, which knows no smaller change.
func (vm *VM) SetMSI(gsi uint32, addr uint64, data uint32) error {
	if gsi < FirstMSI {
		return fmt.Errorf("route a message to %d: that is a pin of the IOAPIC", gsi)
	}
	want := routingEntry{GSI: gsi, Type: KVM_IRQ_ROUTING_MSI, U: [8]uint32{uint32(addr), uint32(addr >> 32), data}}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	r := &vm.routing
	i := r.msi(gsi)
	if i < 0 {
		if r.Nr == maxRoutes {
			return fmt.Errorf("route a message to %d: all %d routes are in use", gsi, maxRoutes)
		}
		i = int(r.Nr)
		r.Nr++
	} else if r.Entries[i] == want {
		return nil
	}
	r.Entries[i] = want
	return vm.setRouting()
}

// ClearMSI takes gsi's message away: its eventfd then raises nothing.
func (vm *VM) ClearMSI(gsi uint32) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	r := &vm.routing
	i := r.msi(gsi)
	if i < 0 {
		return nil
	}
	r.Nr--
	r.Entries[i] = r.Entries[r.Nr]
	return vm.setRouting()
}

func (vm *VM) setRouting() error {
	if _, err := ioctlPtr(vm.fd, KVM_SET_GSI_ROUTING, &vm.routing); err != nil {
		return fmt.Errorf("KVM_SET_GSI_ROUTING, %d routes: %w", vm.routing.Nr, err)
	}
	return nil
}

// Pin is an input of the interrupt controllers.
type Pin struct {
	vm  *VM
	arg irqLevel // lives here so that Set allocates nothing
}

// Pin returns the input with number gsi, 0 to 23.
func (vm *VM) Pin(gsi uint32) *Pin { return &Pin{vm: vm, arg: irqLevel{IRQ: gsi}} }

// Set drives the pin high or low. Calls on one Pin must not overlap.
func (p *Pin) Set(high bool) error {
	p.arg.Level = 0
	if high {
		p.arg.Level = 1
	}
	if _, err := ioctlPtr(p.vm.fd, KVM_IRQ_LINE, &p.arg); err != nil {
		return fmt.Errorf("KVM_IRQ_LINE %d: %w", p.arg.IRQ, err)
	}
	return nil
}
