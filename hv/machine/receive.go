package machine

import (
	"errors"
	"fmt"
	"io"

	"vmd/hv/state"
)

// arrival is how much of a machine that is being received is here.
type arrival uint8

const (
	notReceived arrival = iota
	partly              // or it has failed
	memoryOnly
	complete
)

// ReceiveMemory reads what Send has written up to where the guest was paused and
// all its memory is here. It follows New, and comes before the first AddVirtio.
// The stream is not trusted; after an error the machine is good for Close only.
func (m *Machine) ReceiveMemory(r *state.Reader) error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if m.current() != built || m.arrived != notReceived || m.rom != nil || len(m.virtio) > 0 {
		return errors.New("receive a machine: this one is not new")
	}
	if err := m.encryption.mayMove(); err != nil {
		return fmt.Errorf("receive a machine: %w", err)
	}
	m.arrived = partly
	var s shape
	if err := r.Get(state.Machine, &s); err != nil {
		return fmt.Errorf("receive a machine: %w", err)
	}
	if err := m.fits(&s); err != nil {
		return fmt.Errorf("receive a machine: %w", err)
	}
	if err := m.become(&s); err != nil {
		return fmt.Errorf("receive a machine: %w", err)
	}
	if err := m.receivePages(r); err != nil {
		return fmt.Errorf("receive a machine's memory: %w", err)
	}
	m.arrived = memoryOnly
	return nil
}

// receivePages takes all sections up to Memory, with Paused before it.
func (m *Machine) receivePages(r *state.Reader) error {
	all, err := m.everything()
	if err != nil {
		return err
	}
	p := state.NewPageReader(all)
	defer p.Close()
	for paused := false; ; {
		tag, b, err := r.Next()
		switch {
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case tag == state.Pages:
			err = p.Apply(b)
		case tag == state.Round && !paused:
			var round roundState
			err = state.Decode(b, &round)
		case tag == state.Paused && !paused:
			paused = true
		case tag == state.Memory && paused:
			return nil
		default:
			return state.Unexpected(tag, b)
		}
		if err != nil {
			return err
		}
	}
}

// Restore reads the rest of what Send has written, once every device is there as
// it was. Start then lets the guest go on from where it was, instead of from a
// boot: Load is not called. Its clocks have stood still. The stream is not
// trusted; after an error the machine is good for Close only.
func (m *Machine) Restore(r *state.Reader) error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if m.current() != built || m.arrived != memoryOnly {
		return errPart
	}
	m.arrived = partly
	if m.rom != nil {
		if err := m.addFirmwareParts(); err != nil {
			return err
		}
	}
	if err := m.restoreState(r); err != nil {
		return fmt.Errorf("receive a machine: %w", err)
	}
	m.arrived = complete
	return nil
}

// restoreState reads what saveState has written, and puts it where it belongs in
// the same order.
func (m *Machine) restoreState(r *state.Reader) error {
	if err := m.restoreParts(r); err != nil {
		return err
	}
	var chip chipState
	if err := r.Get(state.Chip, &chip); err != nil {
		return err
	}
	if err := m.restoreChips(&chip); err != nil {
		return err
	}
	states := make([]vcpuState, len(m.vcpus))
	for i, v := range m.vcpus {
		if err := r.Get(state.VCPU, &states[i]); err != nil {
			return err
		}
		if err := v.restore(&states[i]); err != nil {
			return fmt.Errorf("restore vCPU %d: %w", i, err)
		}
	}
	if _, err := r.Expect(state.MachineEnd); err != nil {
		return err
	}
	m.clocks = clocks{kvm: chip.Clock, valid: true, since: hostTime()}
	return m.restoreTSCs(states)
}

// goOn is Start's part for a machine that Restore has filled: what Resume does
// after a pause, or will do.
func (m *Machine) goOn(next phase) error {
	m.startClocks()
	if err := m.restoreDeadlines(); err != nil {
		return err
	}
	if next == paused {
		m.stopClocks()
		return nil
	}
	for _, v := range m.vcpus {
		v.kvm.ClockPaused()
	}
	for _, f := range m.virtio {
		f.Resume()
	}
	return nil
}
