package virtiopci

import (
	"errors"
	"fmt"

	"vmd/hv/virtio"
)

// State is what a Function remembers beside its PCI registers, for saving and
// restoring it.
type State struct {
	Type         uint16           `cbor:"1,keyasint"` // the virtio device id
	Core         virtio.CoreState `cbor:"2,keyasint"`
	DevSelect    uint32           `cbor:"3,keyasint"`
	DrvSelect    uint32           `cbor:"4,keyasint"`
	QueueSelect  uint16           `cbor:"5,keyasint"`
	ConfigVector uint16           `cbor:"6,keyasint"`
	QueueVectors []uint16         `cbor:"7,keyasint"`
	ISR          uint8            `cbor:"8,keyasint"`
	Device       []byte           `cbor:"9,keyasint"` // virtio.Stateful
}

// Save returns what the function remembers. The device must be paused.
func (f *Function) Save() (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := State{
		Type: f.dev.Type(), Core: f.core.Save(),
		DevSelect: f.devSelect, DrvSelect: f.drvSelect, QueueSelect: f.queue,
		ConfigVector: uint16(f.configVec.Load()),
	}
	for i := range f.queueVec {
		s.QueueVectors = append(s.QueueVectors, uint16(f.queueVec[i].Load()))
	}
	f.isrMu.Lock()
	s.ISR = f.isr
	f.isrMu.Unlock()
	if d, ok := f.dev.(virtio.Stateful); ok {
		var err error
		if s.Device, err = d.SaveState(); err != nil {
			return State{}, fmt.Errorf("virtio device %d: %w", s.Type, err)
		}
	}
	return s, nil
}

// Restore makes the function what it was when s was saved. It is for one that
// no guest has used, in a bus that has been restored. The device stands still
// until Resume; then the driver goes on where it was. After an error the
// function is to be closed.
func (f *Function) Restore(s State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.restore(&s); err != nil {
		return fmt.Errorf("virtio device %d: %w", f.dev.Type(), err)
	}
	return nil
}

func (f *Function) restore(s *State) error {
	if err := f.check(s); err != nil {
		return err
	}
	// Vectors first: vhost is given them when the device is activated.
	f.devSelect, f.drvSelect, f.queue = s.DevSelect, s.DrvSelect, s.QueueSelect
	f.configVec.Store(uint32(s.ConfigVector))
	for i, v := range s.QueueVectors {
		f.queueVec[i].Store(uint32(v))
	}
	if err := f.core.Restore(s.Core); err != nil {
		return err
	}
	if d, ok := f.dev.(virtio.Stateful); ok {
		if err := d.RestoreState(s.Device); err != nil {
			return err
		}
	}
	f.isrMu.Lock()
	f.isr |= s.ISR // the device may have something to tell already
	f.pci.SetINTx(f.isr != 0)
	f.isrMu.Unlock()
	f.restored = true
	f.syncBells()
	return nil
}

// check holds s against what this function can be.
func (f *Function) check(s *State) error {
	_, stateful := f.dev.(virtio.Stateful)
	switch {
	case s.Type != f.dev.Type():
		return fmt.Errorf("there it is a device %d", s.Type)
	case len(s.QueueVectors) != len(f.queueVec):
		return fmt.Errorf("%d queues there and %d here", len(s.QueueVectors), len(f.queueVec))
	case s.ISR&^(isrQueue|isrConfig) != 0:
		return fmt.Errorf("ISR %#x: has bits that it cannot have", s.ISR)
	case s.Core.Legacy && !f.hasLegacy:
		return errors.New("its driver uses the legacy interface, which it has not got here")
	case !stateful && len(s.Device) != 0:
		return errors.New("it has state of its own, which it has not got here")
	}
	for _, v := range append([]uint16{s.ConfigVector}, s.QueueVectors...) {
		if f.vector(uint64(v)) != uint32(v) {
			return fmt.Errorf("interrupt vector %d: there is none", v)
		}
	}
	return nil
}

// catchUp sends what messages may have been on their way when the state was
// saved: a driver takes one too many for nothing, and waits for ever for one
// that is lost. The pin needs none of this, for it has a level.
func (f *Function) catchUp() {
	if !f.restored {
		return
	}
	f.restored = false
	if !f.usesMSIX() {
		return
	}
	f.pci.MSIX().Signal(uint16(f.configVec.Load()))
	for i := range f.queueVec {
		if f.core.Queue(i).Enabled {
			f.pci.MSIX().Signal(uint16(f.queueVec[i].Load()))
		}
	}
}

// Track tells the device whether pages that are written must be marked: with
// true after mem.Memory.Track(true), with false before Track(false). It may be
// called while the guest runs. If it fails with true not every page would be
// marked.
func (f *Function) Track(on bool) error {
	t, ok := f.dev.(virtio.Tracker)
	if !ok {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := t.Track(on); err != nil {
		return fmt.Errorf("virtio device %d: %w", f.dev.Type(), err)
	}
	return nil
}
