package kvm

import "fmt"

// What follows is read while no vCPU runs, and written before the first one
// does (Documentation/virt/kvm/api.rst).

// MSRIndices are the registers that this KVM can save and restore.
func (s *System) MSRIndices() ([]uint32, error) {
	l := msrList{Nmsrs: maxMSRIndices}
	if _, err := ioctlPtr(s.fd, KVM_GET_MSR_INDEX_LIST, &l); err != nil {
		return nil, fmt.Errorf("KVM_GET_MSR_INDEX_LIST: %w", err)
	}
	return append([]uint32(nil), l.Indices[:min(l.Nmsrs, maxMSRIndices)]...), nil
}

// IRQChip reads an interrupt controller, one of KVM_IRQCHIP_*.
func (vm *VM) IRQChip(id uint32) (IRQChip, error) {
	c := IRQChip{ID: id}
	if _, err := ioctlPtr(vm.fd, KVM_GET_IRQCHIP, &c); err != nil {
		return c, fmt.Errorf("KVM_GET_IRQCHIP %d: %w", id, err)
	}
	return c, nil
}

// SetIRQChip writes what IRQChip reads.
func (vm *VM) SetIRQChip(c IRQChip) error {
	if _, err := ioctlPtr(vm.fd, KVM_SET_IRQCHIP, &c); err != nil {
		return fmt.Errorf("KVM_SET_IRQCHIP %d: %w", c.ID, err)
	}
	return nil
}

// PIT reads the interval timer.
func (vm *VM) PIT() (p PIT, err error) {
	if _, err := ioctlPtr(vm.fd, KVM_GET_PIT2, &p); err != nil {
		return p, fmt.Errorf("KVM_GET_PIT2: %w", err)
	}
	return p, nil
}

// SetPIT writes the interval timer, which counts on from now.
func (vm *VM) SetPIT(p PIT) error {
	if _, err := ioctlPtr(vm.fd, KVM_SET_PIT2, &p); err != nil {
		return fmt.Errorf("KVM_SET_PIT2: %w", err)
	}
	return nil
}

// XSAVESize is how many bytes XSAVE returns.
func (vm *VM) XSAVESize() int {
	return min(max(vm.Check(KVM_CAP_XSAVE2), xsaveSize), maxXSAVE)
}

// maxXSAVE is far above what processors have: AMX tiles and all come to 11 KiB.
const maxXSAVE = 64 << 10

// XSAVE reads the floating point and vector registers, in size bytes
// (VM.XSAVESize) as XSAVE lays them out.
func (v *VCPU) XSAVE(size int) ([]byte, error) {
	b := make([]byte, max(size, xsaveSize))
	req, name := uintptr(KVM_GET_XSAVE2), "KVM_GET_XSAVE2"
	if size <= xsaveSize {
		req, name = KVM_GET_XSAVE, "KVM_GET_XSAVE" // older than the other
	}
	if err := exchange(v, req, name, &b[0]); err != nil {
		return nil, err
	}
	return b, nil
}

// SetXSAVE writes what XSAVE reads, in size bytes at most (VM.XSAVESize).
func (v *VCPU) SetXSAVE(state []byte, size int) error {
	if len(state) > size {
		return fmt.Errorf("KVM_SET_XSAVE: %d bytes, this host has %d", len(state), size)
	}
	b := make([]byte, max(size, xsaveSize)) // what KVM reads, whatever came
	copy(b, state)
	return exchange(v, KVM_SET_XSAVE, "KVM_SET_XSAVE", &b[0])
}

// XCRs reads the extended control registers: none where the host has none.
func (v *VCPU) XCRs() (x XCRs, err error) {
	err = exchange(v, KVM_GET_XCRS, "KVM_GET_XCRS", &x)
	return x, err
}

// SetXCRs writes the extended control registers.
func (v *VCPU) SetXCRs(x XCRs) error { return exchange(v, KVM_SET_XCRS, "KVM_SET_XCRS", &x) }

// DebugRegs reads the debug registers.
func (v *VCPU) DebugRegs() (d DebugRegs, err error) {
	err = exchange(v, KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", &d)
	return d, err
}

// SetDebugRegs writes the debug registers.
func (v *VCPU) SetDebugRegs(d DebugRegs) error {
	return exchange(v, KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", &d)
}

// ReadableMSRs reads those registers of indices that this vCPU has. A list that
// KVM gives need not be right for each vCPU, and a processor may lack what
// another has.
func (v *VCPU) ReadableMSRs(indices []uint32) ([]MSR, error) {
	var out []MSR
	for len(indices) > 0 {
		var m msrs
		n := min(len(indices), maxMSRs)
		for i, x := range indices[:n] {
			m.Entries[i].Index = x
		}
		m.Nmsrs = uint32(n)
		done, err := ioctlPtr(v.fd, KVM_GET_MSRS, &m)
		if err != nil {
			return nil, fmt.Errorf("KVM_GET_MSRS: %w", err)
		}
		done = min(done, uintptr(n))
		out = append(out, m.Entries[:done]...)
		if int(done) < n {
			done++ // the one that stopped it
		}
		indices = indices[done:]
	}
	return out, nil
}

// SetTSCKHz makes the vCPU's time stamp counter run at a rate of its own.
// Without KVM_CAP_TSC_CONTROL only the host's rate, or nearly, will do.
func (v *VCPU) SetTSCKHz(khz int) error {
	if _, err := ioctl(v.fd, KVM_SET_TSC_KHZ, uintptr(khz)); err != nil {
		return fmt.Errorf("KVM_SET_TSC_KHZ %d: %w", khz, err)
	}
	return nil
}

// TSCOffset is what KVM adds to the host's time stamp counter for the guest's.
// KVMs before Linux 5.16 don't tell.
func (v *VCPU) TSCOffset() (uint64, error) {
	offset := &v.tscOffset // the kernel needs memory that does not move
	if err := ioctlAttr(v.fd, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, offset); err != nil {
		return 0, fmt.Errorf("KVM_GET_DEVICE_ATTR: TSC offset: %w", err)
	}
	return *offset, nil
}

// SetTSCOffset writes what TSCOffset reads.
func (v *VCPU) SetTSCOffset(n uint64) error {
	v.tscOffset = n
	if err := ioctlAttr(v.fd, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &v.tscOffset); err != nil {
		return fmt.Errorf("KVM_SET_DEVICE_ATTR: TSC offset: %w", err)
	}
	return nil
}
