package viomb

import (
	"fmt"
	"sync/atomic"

	"vmd/hv/state"
)

// balloonState is what is agreed with the driver, in pages. What is in the
// balloon are pages that read as zero.
type balloonState struct {
	Target uint32 `cbor:"1,keyasint"`
	Actual uint32 `cbor:"2,keyasint"` // as the driver says
	// What the driver has said of the guest's memory, in bytes.
	Total     uint64 `cbor:"3,keyasint"`
	Free      uint64 `cbor:"4,keyasint"`
	Available uint64 `cbor:"5,keyasint"`
}

// SaveState implements virtio.Stateful.
func (d *Device) SaveState() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return state.Encode(balloonState{
		Target: d.target, Actual: d.actual,
		Total:     atomic.LoadUint64(&d.counters.Total),
		Free:      atomic.LoadUint64(&d.counters.Free),
		Available: atomic.LoadUint64(&d.counters.Available),
	})
}

// RestoreState implements virtio.Stateful. The target comes along; whoever wants
// another here sets it.
func (d *Device) RestoreState(b []byte) error {
	var s balloonState
	if err := state.Decode(b, &s); err != nil {
		return fmt.Errorf("balloon: %w", err)
	}
	if uint64(s.Target)<<pageShift > d.limit() {
		return fmt.Errorf("balloon: target of %d pages, more than the guest can spare", s.Target)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = s.Target
	d.setActual(s.Actual)
	atomic.StoreUint64(&d.counters.Total, s.Total)
	atomic.StoreUint64(&d.counters.Free, s.Free)
	atomic.StoreUint64(&d.counters.Available, s.Available)
	return nil
}
