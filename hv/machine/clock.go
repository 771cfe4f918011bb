package machine

import (
	"math/bits"
	"time"

	"golang.org/x/sys/unix"
)

// clocks is what the guest's clocks showed when it was paused. While it is,
// none of those that measure time goes on: kvmclock, TSC and the ACPI timer. A
// guest's timers and time-outs so take a pause for nothing; its wall clock is
// late by it, as after a suspend. The RTC, which a battery would drive, is not.
//
// Guarded by Machine.ctl.
type clocks struct {
	kvm   uint64 // kvmclock, ns
	valid bool
	since int64 // hostTime
}

// hostTime is a clock that nobody sets or slews. All vCPUs lose the same time by
// it, so that their counters stay in step.
func hostTime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts) // known to every kernel
	return ts.Nano()
}

// stopClocks notes what the clocks show.
func (m *Machine) stopClocks() {
	ns, err := m.vm.Clock()
	m.clocks = clocks{kvm: ns, valid: err == nil, since: hostTime()}
}

// startClocks sets them back to that. Where KVM does not let us, a clock jumps
// ahead by the length of the pause, which guests survive.
func (m *Machine) startClocks() {
	d := max(0, hostTime()-m.clocks.since)
	for _, v := range m.vcpus {
		if khz, err := v.kvm.TSCKHz(); err == nil {
			_ = v.kvm.SetBackTSC(cycles(uint64(d), uint64(khz)))
		}
	}
	if m.clocks.valid {
		_ = m.vm.SetClock(m.clocks.kvm)
	}
	m.board.pm.Skip(time.Duration(d))
}

// cycles is how far a counter of khz gets in ns.
func cycles(ns, khz uint64) uint64 {
	hi, lo := bits.Mul64(ns, khz)
	q, _ := bits.Div64(hi%1e6, lo, 1e6)
	return q
}
