package pci

import "vmd/hv/bus"

// Host is what a PCI function needs of the machine it sits in. hv/machine
// implements it over KVM; tests implement it over plain eventfds.
type Host interface {
	// Ports and MMIO are the address spaces that BARs are mapped into.
	Ports() *bus.Bus
	MMIO() *bus.Bus

	// MSI reserves a message-signalled interrupt. It is called while the
	// machine is built, never on behalf of a running guest.
	MSI() (MSI, error)

	// Line returns the level-triggered interrupt line with the number gsi.
	// Functions may share a line; it is up while any of them holds it up.
	Line(gsi uint32) Line

	// AddDoorbell makes every guest write of d.Size bytes at d.Addr add one to
	// the eventfd d.FD instead of leaving the guest. RemoveDoorbell takes the
	// same value to undo it. Both are for the control path.
	AddDoorbell(d Doorbell) error
	RemoveDoorbell(d Doorbell) error
}

// Doorbell describes one ioeventfd (Documentation/virt/kvm/api.rst,
// KVM_IOEVENTFD).
type Doorbell struct {
	Addr  uint64 // guest physical address, or port number if Port
	Port  bool
	Size  uint32 // 1, 2, 4 or 8; 0 matches any size
	Match bool   // only writes of the value Data count
	Data  uint64
	FD    int
}

// MSI is one interrupt message on its way to the guest.
type MSI interface {
	// Route sets the message: address and data as the guest wrote them into
	// its MSI-X table. An address outside 0xfee00000-0xfeefffff silences the
	// interrupt. Control path.
	Route(addr uint64, data uint32) error
	// FD is the eventfd (an irqfd) that sends the message when written to.
	// It belongs to the machine: do not close it.
	FD() int
	// Signal sends the message: one write to FD. It does not block or
	// allocate, and may be called from any goroutine.
	Signal()
}

// Line is one user's share of a level-triggered interrupt line.
type Line interface {
	// Set raises or lowers this user's share. Setting the same level twice
	// does nothing the second time.
	Set(high bool)
}
