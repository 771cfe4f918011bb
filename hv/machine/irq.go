package machine

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"vmd/hv/bus"
	"vmd/hv/chipset"
	"vmd/hv/kvm"
	"vmd/hv/pci"
)

// irqs are the interrupts of a machine: pins of the interrupt controllers and
// messages. They implement most of pci.Host.
type irqs struct {
	vm    *kvm.VM
	lines [kvm.FirstMSI]line

	mu   sync.Mutex
	msis []*msi
}

func (q *irqs) init(vm *kvm.VM) {
	q.vm = vm
	for gsi := range q.lines {
		q.lines[gsi].pin = vm.Pin(uint32(gsi))
	}
}

func (q *irqs) close() error {
	var errs []error
	for _, s := range q.msis {
		errs = append(errs, unix.Close(s.fd))
	}
	q.msis = nil
	return errors.Join(errs...)
}

// line is an interrupt pin that several devices may hold up.
type line struct {
	mu  sync.Mutex
	pin *kvm.Pin
	up  int // shares that are high
}

// lineShare is one device's share of a line.
type lineShare struct {
	l    *line
	high bool // guarded by l.mu
}

var _ chipset.Line = (*lineShare)(nil)

// Set implements pci.Line and chipset.Line. Only the first share to rise and the last to fall
// reach the kernel.
func (s *lineShare) Set(high bool) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if high == s.high {
		return
	}
	s.high = high
	old := s.l.up
	if high {
		s.l.up++
	} else {
		s.l.up--
	}
	if (old == 0) != (s.l.up == 0) {
		_ = s.l.pin.Set(high) // KVM refuses only unknown pins
	}
}

func (q *irqs) line(gsi uint32) *lineShare {
	if gsi >= kvm.FirstMSI {
		panic(fmt.Sprintf("interrupt line %d: the I/O APIC has %d", gsi, kvm.FirstMSI))
	}
	return &lineShare{l: &q.lines[gsi]}
}

// msi is an interrupt message: an irqfd with a GSI of its own.
type msi struct {
	vm  *kvm.VM
	gsi uint32
	fd  int
}

func (q *irqs) newMSI() (*msi, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	s := &msi{vm: q.vm, gsi: kvm.FirstMSI + uint32(len(q.msis)), fd: fd}
	if err := q.vm.AddIRQFD(fd, s.gsi); err != nil {
		unix.Close(fd)
		return nil, err
	}
	q.msis = append(q.msis, s)
	return s, nil
}

// Addresses of messages to a local APIC (Intel SDM vol. 3, 11.11.1).
const (
	msiBase = 0xfee0_0000
	msiEnd  = 0xfef0_0000
)

// Route implements pci.MSI.
func (s *msi) Route(addr uint64, data uint32) error {
	if addr < msiBase || addr >= msiEnd {
		return s.vm.ClearMSI(s.gsi)
	}
	return s.vm.SetMSI(s.gsi, addr, data)
}

// FD implements pci.MSI.
func (s *msi) FD() int { return s.fd }

// one is what is added to an eventfd.
var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// Signal implements pci.MSI. Should the counter ever be full, the interrupt is
// on its way already.
func (s *msi) Signal() { _, _ = unix.Write(s.fd, one) }

// host is what a Machine is to its PCI functions.
type host struct{ *Machine }

var _ pci.Host = host{}

// Ports implements pci.Host.
func (h host) Ports() *bus.Bus { return &h.ports }

// MMIO implements pci.Host.
func (h host) MMIO() *bus.Bus { return &h.mmio }

// MSI implements pci.Host.
func (h host) MSI() (pci.MSI, error) { return h.irqs.newMSI() }

// Line implements pci.Host.
func (h host) Line(gsi uint32) pci.Line { return h.irqs.line(gsi) }

// AddDoorbell implements pci.Host.
func (h host) AddDoorbell(d pci.Doorbell) error { return h.vm.AddIOEventFD(ioEvent(d)) }

// RemoveDoorbell implements pci.Host.
func (h host) RemoveDoorbell(d pci.Doorbell) error { return h.vm.RemoveIOEventFD(ioEvent(d)) }

func ioEvent(d pci.Doorbell) kvm.IOEvent {
	return kvm.IOEvent{Addr: d.Addr, Port: d.Port, Size: d.Size, Match: d.Match, Data: d.Data, FD: d.FD}
}
