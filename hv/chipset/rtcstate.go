package chipset

import (
	"fmt"
	"time"
)

// RTCState is everything an RTC remembers, for saving and restoring it.
type RTCState struct {
	Index  uint8          `cbor:"1,keyasint"`
	Memory [cmosSize]byte `cbor:"2,keyasint"` // all but the time
	Offset int64          `cbor:"3,keyasint"` // seconds that the guest's clock is ahead
	Frozen [8]byte        `cbor:"4,keyasint"` // the clock while it is being set: see clock
	Phase  int64          `cbor:"5,keyasint"` // of the periodic interrupt, ns
	Second int64          `cbor:"6,keyasint"` // Unix time up to which the alarm was looked for
}

// Save returns what the RTC remembers.
func (r *RTC) Save() RTCState {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tick()
	r.update()
	s := RTCState{Index: r.index, Memory: r.ram, Offset: r.offset, Frozen: r.frozen, Second: r.second}
	if d := r.periodicRate(); d > 0 {
		s.Phase = int64(r.now().Sub(r.base) % d)
	}
	return s
}

// Restore puts back what Save returned. A battery has kept the clock going: it
// shows this host's time, and an alarm that was due in between comes now.
func (r *RTC) Restore(s RTCState) error {
	err := known("RTC", []field{
		{"index", uint64(s.Index), ^uint64(rtcNMI) & 0xff},
		{"register A", uint64(s.Memory[rtcA]), ^uint64(rtcUIP) & 0xff},
		{"register C", uint64(s.Memory[rtcC]), rtcIRQF | rtcPF | rtcAF | rtcUF},
	})
	if err != nil {
		return err
	}
	if s.Offset > maxOffset || s.Offset < -maxOffset {
		return fmt.Errorf("RTC: %d seconds from the host's time, at most %d", s.Offset, maxOffset)
	}
	if d := rateOf(s.Memory[rtcA]); s.Phase < 0 || s.Phase > 0 && s.Phase >= int64(d) {
		return fmt.Errorf("RTC: %d ns into a period of %d", s.Phase, d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index, r.ram, r.frozen, r.offset = s.Index, s.Memory, s.Frozen, s.Offset
	r.base, r.period = r.now().Add(-time.Duration(s.Phase)), 0
	r.second = s.Second
	r.tick()
	r.irq.restart()
	r.update()
	return nil
}
