package machine

import (
	"testing"
	"time"

	"vmd/hv/kvm"
	"vmd/internal/testenv"
)

func tsc(t *testing.T, v *vcpu) int64 {
	t.Helper()
	r := []kvm.MSR{{Index: msrTSC}}
	if err := v.kvm.MSRs(r); err != nil {
		t.Fatal(err)
	}
	return int64(r[0].Data)
}

// TestClocksStandStill lets an hour of pause pass in no time: the clocks of the
// guest then go an hour back, all by the same.
func TestClocksStandStill(t *testing.T) {
	m, out := newMachine(t, func(c *Config) { c.CPUs = 2 })
	put(t, m, cat(outb(0x3f8, '!'), spin)...)
	start(t, m)
	out.wait(t, "!")
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	var before [2]int64
	for i, v := range m.vcpus {
		before[i] = tsc(t, v)
	}
	late := hostTime() - m.clocks.since // by which before may be beyond the pause
	shown := m.clocks.kvm
	m.clocks.since -= int64(time.Hour)
	m.startClocks()
	khz, err := m.vcpus[0].kvm.TSCKHz()
	if err != nil {
		t.Fatal(err)
	}
	hour := int64(time.Hour/time.Millisecond) * int64(khz)
	for i, v := range m.vcpus {
		if !testenv.RealKVM() {
			break // it takes the offset, and leaves the TSC as it is
		}
		most := hour + int64(cycles(uint64(late), uint64(khz)))
		if d := before[i] - tsc(t, v); d > most || d < hour-hour/60 {
			t.Errorf("vCPU %d: the TSC went back by %d, want %d to %d", i, d, hour-hour/60, most)
		}
	}
	now, err := m.vm.Clock()
	if err != nil || now < shown || now > shown+uint64(time.Minute) {
		t.Errorf("kvmclock shows %d, showed %d, %v", now, shown, err)
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
}

func TestCycles(t *testing.T) {
	for _, c := range []struct{ ns, khz, want uint64 }{
		{0, 2_000_000, 0},
		{1_000_000_000, 2_596_000, 2_596_000_000},
		{365 * 24 * 3600 * 1e9, 4_000_000, 365 * 24 * 3600 * 4e9},
	} {
		if got := cycles(c.ns, c.khz); got != c.want {
			t.Errorf("%d ns at %d kHz: %d, want %d", c.ns, c.khz, got, c.want)
		}
	}
	cycles(1<<64-1, 1<<64-1) // must not panic
}
