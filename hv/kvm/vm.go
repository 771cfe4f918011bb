package kvm

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"vmd/hv/mem"
)

// VM is one guest: its memory slots, interrupt controllers and vCPUs.
type VM struct {
	sys *System
	fd  int

	mu      sync.Mutex // guards routing and fd's closing against its users below
	routing irqRouting
}

// CreateVM makes a VM with no memory and no vCPUs, but with PIC, IOAPIC, PIT
// and the usual wiring of a PC (routing.go). tss and identity are where KVM may
// put three pages and one page of its own on Intel hosts (api.rst,
// KVM_SET_TSS_ADDR, KVM_SET_IDENTITY_MAP_ADDR): below 4 GiB, outside RAM.
func (s *System) CreateVM(tss, identity mem.GPA) (*VM, error) {
	return s.CreateVMOf(KVM_X86_DEFAULT_VM, tss, identity)
}

// CreateVMOf is CreateVM for a VM of a certain type: KVM_X86_*_VM.
func (s *System) CreateVMOf(t VMType, tss, identity mem.GPA) (*VM, error) {
	fd, err := ioctl(s.fd, KVM_CREATE_VM, uintptr(t))
	if err != nil {
		return nil, fmt.Errorf("KVM_CREATE_VM of type %d: %w", t, err)
	}
	vm := &VM{sys: s, fd: int(fd)}
	if err := vm.init(tss, identity); err != nil {
		vm.Close()
		return nil, err
	}
	return vm, nil
}

// init takes the steps that must come before the first vCPU.
func (vm *VM) init(tss, identity mem.GPA) error {
	if _, err := ioctl(vm.fd, KVM_SET_TSS_ADDR, uintptr(tss)); err != nil {
		return fmt.Errorf("KVM_SET_TSS_ADDR %#x: %w", tss, err)
	}
	addr := uint64(identity)
	if _, err := ioctlPtr(vm.fd, KVM_SET_IDENTITY_MAP_ADDR, &addr); err != nil {
		return fmt.Errorf("KVM_SET_IDENTITY_MAP_ADDR %#x: %w", identity, err)
	}
	if _, err := ioctl(vm.fd, KVM_CREATE_IRQCHIP, 0); err != nil {
		return fmt.Errorf("KVM_CREATE_IRQCHIP: %w", err)
	}
	pit := pitConfig{Flags: KVM_PIT_SPEAKER_DUMMY} // KVM then answers port 0x61 too
	if _, err := ioctlPtr(vm.fd, KVM_CREATE_PIT2, &pit); err != nil {
		return fmt.Errorf("KVM_CREATE_PIT2: %w", err)
	}
	vm.routing.pc()
	if err := vm.setRouting(); err != nil {
		return err
	}
	return nil
}

// Close closes the VM. Its vCPUs must have been closed before; the memory of
// its slots must outlive it.
func (vm *VM) Close() error { return unix.Close(vm.fd) }

// Check asks for a capability of this VM.
func (vm *VM) Check(c Cap) int { return check(vm.fd, c) }

// EnableCap switches an optional capability on.
func (vm *VM) EnableCap(c Cap, args ...uint64) error {
	e := enableCap{Cap: uint32(c)}
	copy(e.Args[:], args)
	if _, err := ioctlPtr(vm.fd, KVM_ENABLE_CAP, &e); err != nil {
		return fmt.Errorf("KVM_ENABLE_CAP %d: %w", c, err)
	}
	return nil
}

// SetMemory puts b into the guest's memory at base, as slot number slot. b must
// be mapped memory, a multiple of the page size in length and address, and stay
// mapped until the VM is closed. flags are KVM_MEM_*.
func (vm *VM) SetMemory(slot uint32, base mem.GPA, b []byte, flags uint32) error {
	r := userspaceMemoryRegion{
		Slot:          slot,
		Flags:         flags,
		GuestPhysAddr: uint64(base),
		MemorySize:    uint64(len(b)),
		UserspaceAddr: addressOf(b),
	}
	if _, err := ioctlPtr(vm.fd, KVM_SET_USER_MEMORY_REGION, &r); err != nil {
		return fmt.Errorf("KVM_SET_USER_MEMORY_REGION %d at %#x, %d bytes: %w", slot, base, len(b), err)
	}
	return nil
}

// AddIRQFD makes each write to the eventfd fd raise interrupt gsi.
func (vm *VM) AddIRQFD(fd int, gsi uint32) error {
	return vm.irqfd(fd, gsi, 0)
}

// RemoveIRQFD undoes AddIRQFD.
func (vm *VM) RemoveIRQFD(fd int, gsi uint32) error {
	return vm.irqfd(fd, gsi, KVM_IRQFD_FLAG_DEASSIGN)
}

func (vm *VM) irqfd(fd int, gsi, flags uint32) error {
	a := irqfd{FD: uint32(fd), GSI: gsi, Flags: flags}
	if _, err := ioctlPtr(vm.fd, KVM_IRQFD, &a); err != nil {
		return fmt.Errorf("KVM_IRQFD %d: %w", gsi, err)
	}
	return nil
}

// IOEvent describes the guest's writes that signal an eventfd.
type IOEvent struct {
	Addr  uint64 // guest physical address, or port number if Port
	Port  bool
	Size  uint32 // bytes written: 1, 2, 4 or 8; 0 for any, which on ports needs KVM_CAP_IOEVENTFD_ANY_LENGTH
	Match bool   // only writes of Data
	Data  uint64
	FD    int
}

// AddIOEventFD makes the guest's writes as described by e add one to the
// eventfd e.FD without leaving the guest.
func (vm *VM) AddIOEventFD(e IOEvent) error { return vm.ioeventfd(e, 0) }

// RemoveIOEventFD undoes AddIOEventFD of the same e.
func (vm *VM) RemoveIOEventFD(e IOEvent) error {
	return vm.ioeventfd(e, KVM_IOEVENTFD_FLAG_DEASSIGN)
}

func (vm *VM) ioeventfd(e IOEvent, flags uint32) error {
	if e.Port {
		flags |= KVM_IOEVENTFD_FLAG_PIO
	}
	if e.Match {
		flags |= KVM_IOEVENTFD_FLAG_DATAMATCH
	}
	a := ioeventfd{Datamatch: e.Data, Addr: e.Addr, Len: e.Size, FD: int32(e.FD), Flags: flags}
	if _, err := ioctlPtr(vm.fd, KVM_IOEVENTFD, &a); err != nil {
		return fmt.Errorf("KVM_IOEVENTFD at %#x: %w", e.Addr, err)
	}
	return nil
}

// Clock is what the guest's kvmclock shows, in nanoseconds since the VM was
// made.
func (vm *VM) Clock() (uint64, error) {
	var c clockData
	if _, err := ioctlPtr(vm.fd, KVM_GET_CLOCK, &c); err != nil {
		return 0, fmt.Errorf("KVM_GET_CLOCK: %w", err)
	}
	return c.Clock, nil
}

// SetClock makes the guest's kvmclock go on from ns.
func (vm *VM) SetClock(ns uint64) error {
	if _, err := ioctlPtr(vm.fd, KVM_SET_CLOCK, &clockData{Clock: ns}); err != nil {
		return fmt.Errorf("KVM_SET_CLOCK: %w", err)
	}
	return nil
}
