package kvm

import (
	"fmt"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// VCPU is a virtual CPU. All methods but Kick belong to the thread that runs
// it: KVM ties a vCPU to a thread as long as that thread runs it.
type VCPU struct {
	fd     int
	shared []byte // struct kvm_run and what follows
	run    *runPage
	io     *ioExit
	mmio   *mmioExit

	tscOffset uint64 // what the kernel reads and writes for TSCOffset
}

// CreateVCPU makes the vCPU with number (and APIC id) id.
func (vm *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := ioctl(vm.fd, KVM_CREATE_VCPU, uintptr(id))
	if err != nil {
		return nil, fmt.Errorf("KVM_CREATE_VCPU %d: %w", id, err)
	}
	b, err := unix.Mmap(int(fd), 0, vm.sys.runSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(int(fd))
		return nil, fmt.Errorf("map vCPU %d: %w", id, err)
	}
	v := &VCPU{fd: int(fd), shared: b, run: runOf(b)}
	v.io, v.mmio = exitAs[ioExit](v.run), exitAs[mmioExit](v.run)
	return v, nil
}

// Close frees the vCPU. Nobody may be in Run.
func (v *VCPU) Close() error {
	err := unix.Munmap(v.shared)
	v.shared, v.run, v.io, v.mmio = nil, nil, nil, nil
	if e := unix.Close(v.fd); err == nil {
		err = e
	}
	return err
}

// Run enters the guest until something needs us. It returns 0 and nil when a
// signal or Interrupt ended it, otherwise why the guest stopped.
//
// It goes through syscall.Syscall, not RawSyscall: with the latter Go believes
// the thread to be computing, keeps its P, and a guest that spins in each P
// stops every other goroutine of the process.
func (v *VCPU) Run() (ExitReason, error) {
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(v.fd), KVM_RUN, 0)
	switch errno {
	case 0:
		return ExitReason(v.run.ExitReason), nil
	case unix.EINTR, unix.EAGAIN: // EAGAIN: woken from its wait for SIPI
		return 0, nil
	}
	return 0, fmt.Errorf("KVM_RUN: %w", errno)
}

// Interrupt makes Run return at once, now if a signal follows and for every
// call to come, until Clear. Any thread may call it.
func (v *VCPU) Interrupt() { atomic.StoreUint32(&v.run.Control, immediateExit) }

// Clear undoes Interrupt.
func (v *VCPU) Clear() { atomic.StoreUint32(&v.run.Control, 0) }

// IO describes the port access of KVM_EXIT_IO: Count items of Size bytes each
// lie in Data, to be written to Port one after another if Out, else to be
// filled.
type IO struct {
	Out   bool
	Size  int
	Port  uint16
	Count int
	Data  []byte
}

// IO returns the port access of the last exit. Data is shared with the kernel
// and valid until the next Run.
func (v *VCPU) IO() IO {
	x := v.io
	size, count := int(x.Size), int(x.Count)
	off := x.DataOffset
	if n := uint64(size) * uint64(count); off > uint64(len(v.shared)) || n > uint64(len(v.shared))-off {
		return IO{} // the kernel keeps it within one page
	}
	return IO{Out: x.Direction == 1, Size: size, Port: x.Port, Count: count, Data: v.shared[off : off+uint64(size*count)]}
}

// MMIO returns the memory access of KVM_EXIT_MMIO: data is written to addr, or
// to be filled from there. It is shared with the kernel and valid until the next
// Run.
func (v *VCPU) MMIO() (addr uint64, write bool, data []byte) {
	x := v.mmio
	return x.PhysAddr, x.IsWrite != 0, x.Data[:min(x.Len, 8)]
}
