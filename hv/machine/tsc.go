package machine

import (
	"fmt"

	"vmd/hv/kvm"
)

// readTSC reads the counter of v, and when that was.
func (v *vcpu) readTSC() (tsc uint64, at int64, err error) {
	r := []kvm.MSR{{Index: msrTSC}}
	if err := v.kvm.MSRs(r); err != nil {
		return 0, 0, err
	}
	return r[0].Data, hostTime(), nil
}

// saveTSCs notes what each vCPU's counter showed when the clocks were stopped.
// Counters that are as far from each other as their offsets say stay so to the
// cycle: a guest takes a counter that is behind another one's for broken.
func (m *Machine) saveTSCs(states []vcpuState) error {
	first := m.vcpus[0]
	khz, err := first.kvm.TSCKHz()
	if err != nil {
		return err
	}
	base, offsetErr := first.kvm.TSCOffset()
	for i, v := range m.vcpus {
		if i > 0 && offsetErr == nil {
			o, err := v.kvm.TSCOffset()
			if err != nil {
				return fmt.Errorf("vCPU %d: %w", i, err)
			}
			states[i].TSC = states[0].TSC + (o - base)
			continue
		}
		tsc, at, err := v.readTSC()
		if err != nil {
			return fmt.Errorf("vCPU %d: %w", i, err)
		}
		states[i].TSC = tsc - cycles(uint64(max(0, at-m.clocks.since)), uint64(khz))
	}
	return nil
}

// restoreTSCs sets the counters to what they showed, from where startClocks goes
// on as after any pause. KVM takes a counter that is written soon after another
// one for one that is to run with it, and where it tells offsets they are set.
func (m *Machine) restoreTSCs(states []vcpuState) error {
	for i, v := range m.vcpus {
		if err := v.kvm.SetMSRs([]kvm.MSR{{Index: msrTSC, Data: states[i].TSC}}); err != nil {
			return fmt.Errorf("vCPU %d: %w", i, err)
		}
		if i == 0 {
			m.clocks.since = hostTime()
		}
	}
	base, err := m.vcpus[0].kvm.TSCOffset()
	if err != nil {
		return nil // an old KVM
	}
	for i, v := range m.vcpus {
		if err := v.kvm.SetTSCOffset(base + (states[i].TSC - states[0].TSC)); err != nil {
			return fmt.Errorf("vCPU %d: %w", i, err)
		}
	}
	return nil
}

// restoreDeadlines starts the TSC-deadline timers, now that the counters are
// right.
func (m *Machine) restoreDeadlines() error {
	for _, v := range m.vcpus {
		if v.deadline == 0 {
			continue
		}
		if err := v.kvm.SetMSRs([]kvm.MSR{{Index: msrTSCDeadline, Data: v.deadline}}); err != nil {
			return fmt.Errorf("vCPU %d: timer: %w", v.id, err)
		}
		v.deadline = 0
	}
	return nil
}
