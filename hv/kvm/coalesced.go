package kvm

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Coalesced is a VM's ring of port writes that the kernel took from the guest
// without an exit (api.rst, KVM_REGISTER_COALESCED_MMIO). They happened before
// whatever the next exit is about, so Drain comes first there. Its zero value
// is a ring in which nothing ever is.
type Coalesced struct {
	mu   sync.Mutex // held while writes are carried out, in their order
	ring atomic.Pointer[coalescedRing]
}

// PortWriter carries out a guest's write to a port.
type PortWriter interface {
	Write(port uint64, data []byte)
}

// CoalescePorts makes c collect the guest's writes to the ports [base,
// base+size). v is any vCPU of the VM; c must be closed before v is. A host
// whose KVM cannot do it says so in the error, and the guest exits as before.
func (vm *VM) CoalescePorts(c *Coalesced, v *VCPU, base uint16, size uint32) error {
	page := vm.Check(KVM_CAP_COALESCED_MMIO)
	end := (page + 1) * pageSize
	if page == 0 || end > len(v.shared) || vm.Check(KVM_CAP_COALESCED_PIO) == 0 {
		return fmt.Errorf("coalesce ports from %#x: not in this KVM", base)
	}
	z := coalescedZone{Addr: uint64(base), Size: size, PIO: 1}
	if _, err := ioctlPtr(vm.fd, KVM_REGISTER_COALESCED_MMIO, &z); err != nil {
		return fmt.Errorf("KVM_REGISTER_COALESCED_MMIO %#x: %w", base, err)
	}
	c.ring.Store(coalescedRingOf(v.shared[page*pageSize : end]))
	return nil
}

// Drain carries out what is in the ring, on w. When it returns, all that was in
// the ring at the call has been carried out, by this call or another's.
func (c *Coalesced) Drain(w PortWriter) {
	r := c.ring.Load()
	if r == nil || atomic.LoadUint32(&r.First) == atomic.LoadUint32(&r.Last) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ring.Load() == nil {
		return
	}
	// The kernel adds entries under a lock of its own, and never one that
	// would make the ring look empty.
	for i := r.First % coalescedMax; i != atomic.LoadUint32(&r.Last)%coalescedMax; {
		e := &r.Entries[i]
		w.Write(e.PhysAddr, e.Data[:min(e.Len, 8)])
		i = (i + 1) % coalescedMax
		atomic.StoreUint32(&r.First, i)
	}
}

// Close forgets the ring: nobody drains it any more.
func (c *Coalesced) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring.Store(nil)
}
