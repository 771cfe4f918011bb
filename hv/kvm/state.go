package kvm

import "fmt"

// exchange moves one struct between us and the vCPU, whichever way req goes.
func exchange[T any](v *VCPU, req uintptr, name string, p *T) error {
	if _, err := ioctlPtr(v.fd, req, p); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Regs reads the general registers.
func (v *VCPU) Regs() (r Regs, err error) {
	err = exchange(v, KVM_GET_REGS, "KVM_GET_REGS", &r)
	return r, err
}

// SetRegs writes the general registers.
func (v *VCPU) SetRegs(r Regs) error { return exchange(v, KVM_SET_REGS, "KVM_SET_REGS", &r) }

// Sregs reads segments and control registers.
func (v *VCPU) Sregs() (s Sregs, err error) {
	err = exchange(v, KVM_GET_SREGS, "KVM_GET_SREGS", &s)
	return s, err
}

// SetSregs writes segments and control registers.
func (v *VCPU) SetSregs(s Sregs) error { return exchange(v, KVM_SET_SREGS, "KVM_SET_SREGS", &s) }

// Events reads what is on its way into the vCPU.
func (v *VCPU) Events() (e Events, err error) {
	err = exchange(v, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &e)
	return e, err
}

// SetEvents writes what is on its way into the vCPU.
func (v *VCPU) SetEvents(e Events) error {
	return exchange(v, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &e)
}

// MPState reads whether the vCPU runs, halts or waits for its SIPI:
// KVM_MP_STATE_*.
func (v *VCPU) MPState() (uint32, error) {
	var s mpState
	err := exchange(v, KVM_GET_MP_STATE, "KVM_GET_MP_STATE", &s)
	return s.MPState, err
}

// SetMPState writes what MPState reads.
func (v *VCPU) SetMPState(state uint32) error {
	return exchange(v, KVM_SET_MP_STATE, "KVM_SET_MP_STATE", &mpState{state})
}

// LAPIC reads the local APIC.
func (v *VCPU) LAPIC() (l LAPIC, err error) {
	err = exchange(v, KVM_GET_LAPIC, "KVM_GET_LAPIC", &l)
	return l, err
}

// SetLAPIC writes the local APIC.
func (v *VCPU) SetLAPIC(l LAPIC) error { return exchange(v, KVM_SET_LAPIC, "KVM_SET_LAPIC", &l) }

// SetCPUID decides what CPUID answers. It comes before MSRs and Run.
func (v *VCPU) SetCPUID(entries []CPUIDEntry) error {
	if len(entries) > maxCPUID {
		return fmt.Errorf("KVM_SET_CPUID2: %d entries, at most %d", len(entries), maxCPUID)
	}
	var c cpuid2
	c.Nent = uint32(copy(c.Entries[:], entries))
	return exchange(v, KVM_SET_CPUID2, "KVM_SET_CPUID2", &c)
}

// MSRs reads the registers that list names into its Data.
func (v *VCPU) MSRs(list []MSR) error { return v.msrs(KVM_GET_MSRS, "KVM_GET_MSRS", list) }

// SetMSRs writes the registers of list.
func (v *VCPU) SetMSRs(list []MSR) error { return v.msrs(KVM_SET_MSRS, "KVM_SET_MSRS", list) }

func (v *VCPU) msrs(req uintptr, name string, list []MSR) error {
	if len(list) > maxMSRs {
		return fmt.Errorf("%s: %d registers, at most %d", name, len(list), maxMSRs)
	}
	var m msrs
	m.Nmsrs = uint32(copy(m.Entries[:], list))
	n, err := ioctlPtr(v.fd, req, &m)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	copy(list, m.Entries[:])
	if int(n) < len(list) {
		return fmt.Errorf("%s: no register %#x", name, list[n].Index)
	}
	return nil
}

// TSCKHz is the rate of the vCPU's time stamp counter.
func (v *VCPU) TSCKHz() (int, error) {
	n, err := ioctl(v.fd, KVM_GET_TSC_KHZ, 0)
	if err != nil {
		return 0, fmt.Errorf("KVM_GET_TSC_KHZ: %w", err)
	}
	return int(n), nil
}

// ClockPaused tells the guest that it stood still for a while, so that its
// watchdogs don't bark (api.rst, KVM_KVMCLOCK_CTRL). A guest without a
// kvmclock answers EINVAL, which is no error to the caller.
func (v *VCPU) ClockPaused() { _, _ = ioctl(v.fd, KVM_KVMCLOCK_CTRL, 0) }

// NMI sends a non-maskable interrupt.
func (v *VCPU) NMI() error {
	if _, err := ioctl(v.fd, KVM_NMI, 0); err != nil {
		return fmt.Errorf("KVM_NMI: %w", err)
	}
	return nil
}

// Translate walks the guest's page tables for a linear address.
func (v *VCPU) Translate(linear uint64) (physical uint64, ok bool) {
	t := translation{LinearAddress: linear}
	if err := exchange(v, KVM_TRANSLATE, "KVM_TRANSLATE", &t); err != nil {
		return 0, false
	}
	return t.PhysicalAddress, t.Valid != 0
}

// SetBackTSC takes cycles off the vCPU's time stamp counter, as if it had stood
// still for so long. KVMs before Linux 5.16 cannot: their guests see it go on
// (Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_CTRL).
func (v *VCPU) SetBackTSC(cycles uint64) error {
	offset, err := v.TSCOffset()
	if err != nil {
		return err
	}
	return v.SetTSCOffset(offset - cycles)
}
