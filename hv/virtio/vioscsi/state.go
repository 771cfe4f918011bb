package vioscsi

import (
	"errors"
	"fmt"

	"vmd/hv/state"
)

// driveState is what a drive remembers between two commands.
type driveState struct {
	Blocks uint64 `cbor:"1,keyasint"` // of the medium
	Loaded bool   `cbor:"2,keyasint"`
	Locked bool   `cbor:"3,keyasint"`
	Event  byte   `cbor:"4,keyasint"` // not yet told
}

// SaveState implements virtio.Stateful.
func (d *Device) SaveState() ([]byte, error) {
	return state.Encode(driveState{d.blocks(), d.drive.loaded, d.drive.locked, d.drive.event})
}

// RestoreState implements virtio.Stateful. The medium must be as long as the one
// that the driver knows.
func (d *Device) RestoreState(b []byte) error {
	var s driveState
	if err := state.Decode(b, &s); err != nil {
		return fmt.Errorf("drive: %w", err)
	}
	if s.Blocks != d.blocks() {
		return fmt.Errorf("medium of %d blocks there and of %d here", s.Blocks, d.blocks())
	}
	if s.Event != eventNone && s.Event != eventNew && s.Event != eventRemoved {
		return errors.New("drive with an event that there is not")
	}
	d.drive = drive{s.Blocks, s.Loaded, s.Locked, s.Event}
	return nil
}
