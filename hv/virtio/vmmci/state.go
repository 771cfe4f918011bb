package vmmci

import (
	"fmt"

	"vmd/hv/state"
)

// commandState is what the host has asked for, and the time as the driver is
// reading it.
type commandState struct {
	Pending Command                       `cbor:"1,keyasint"`
	Latched [configSize - offSeconds]byte `cbor:"2,keyasint"`
}

// SaveState implements virtio.Stateful.
func (d *Device) SaveState() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return state.Encode(commandState{d.pending, d.latched})
}

// RestoreState implements virtio.Stateful. A command that the driver has not
// heard yet is still there for it to hear; Config.Acked then tells of it.
func (d *Device) RestoreState(b []byte) error {
	var s commandState
	if err := state.Decode(b, &s); err != nil {
		return fmt.Errorf("control interface: %w", err)
	}
	if s.Pending > SyncRTC {
		return fmt.Errorf("control interface: command %d is not known", s.Pending)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.driver == nil && s.Pending != None {
		return fmt.Errorf("control interface: command %d for a driver that is not there", s.Pending)
	}
	d.pending, d.latched = s.Pending, s.Latched
	return nil
}
