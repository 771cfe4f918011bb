package chipset

import "sync/atomic"

// PVPanicPort is where a guest reports its own crash.
const PVPanicPort = 0x505

// Panic is a set of events that a guest reports (QEMU docs/specs/pvpanic.rst).
type Panic uint8

// Events.
const (
	Panicked    Panic = 1 << 0 // the guest has panicked
	CrashLoaded Panic = 1 << 1 // a crash kernel has taken over
	Shutdown    Panic = 1 << 2 // the guest is about to power off

	panicAll = Panicked | CrashLoaded | Shutdown
)

// PVPanic is the pvpanic port.
type PVPanic struct {
	report func(Panic)
	seen   atomic.Uint32
}

// NewPVPanic makes a port that calls report for each event, once per event and
// machine: a guest cannot flood its host with them.
func NewPVPanic(report func(Panic)) *PVPanic { return &PVPanic{report: report} }

// Read implements bus.Device: it gives the events that can be reported.
func (p *PVPanic) Read(_ uint64, data []byte) {
	clear(data)
	data[0] = byte(panicAll)
}

// Write implements bus.Device.
func (p *PVPanic) Write(_ uint64, data []byte) {
	v := uint32(Panic(data[0]) & panicAll)
	if news := v &^ p.seen.Or(v); news != 0 && p.report != nil {
		p.report(Panic(news))
	}
}

// PVPanicState is everything a PVPanic remembers.
type PVPanicState struct {
	Seen Panic `cbor:"1,keyasint"` // events reported
}

// Save returns what the PVPanic remembers.
func (p *PVPanic) Save() PVPanicState { return PVPanicState{Panic(p.seen.Load())} }

// Restore puts back what Save returned; nothing is reported again.
func (p *PVPanic) Restore(s PVPanicState) error {
	if err := known("pvpanic", []field{{"event", uint64(s.Seen), uint64(panicAll)}}); err != nil {
		return err
	}
	p.seen.Store(uint32(s.Seen))
	return nil
}
