package vioblk

import (
	"fmt"

	"vmd/hv/state"
)

// diskState is what a driver knows of a disk, and counts on.
type diskState struct {
	Sectors  uint64       `cbor:"1,keyasint"`
	ReadOnly bool         `cbor:"2,keyasint"`
	Serial   [idSize]byte `cbor:"3,keyasint"`
}

// SaveState implements virtio.Stateful. A paused disk has no request in flight,
// so all that is left is what it is.
func (d *Device) SaveState() ([]byte, error) {
	return state.Encode(diskState{d.sectors(), d.readOnly, d.serial})
}

// RestoreState implements virtio.Stateful. The disk must be as large as the one
// that the driver knows; it takes over its id.
func (d *Device) RestoreState(b []byte) error {
	var s diskState
	if err := state.Decode(b, &s); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if s.Sectors != d.sectors() {
		return fmt.Errorf("disk of %d sectors there and of %d here", s.Sectors, d.sectors())
	}
	if s.ReadOnly != d.readOnly {
		return fmt.Errorf("disk that is read-only %v there and %v here", s.ReadOnly, d.readOnly)
	}
	d.serial = s.Serial
	return nil
}
