package pci

import (
	"bytes"
	"errors"
	"fmt"
)

// BusState is what a bus and the functions on it remember, for saving and
// restoring it. What a device asks for on its pin is the device's to restore.
type BusState struct {
	Address   uint32          `cbor:"1,keyasint"` // CONFIG_ADDRESS
	Functions []FunctionState `cbor:"2,keyasint"` // lowest slot first
}

// FunctionState is what a function remembers.
type FunctionState struct {
	Slot    int           `cbor:"1,keyasint"`
	Config  []byte        `cbor:"2,keyasint"` // all of configuration space
	Vectors []VectorState `cbor:"3,keyasint"` // of MSI-X, if it has it
}

// VectorState is an entry of an MSI-X table with its pending bit.
type VectorState struct {
	Addr    uint64 `cbor:"1,keyasint"`
	Data    uint32 `cbor:"2,keyasint"`
	Masked  bool   `cbor:"3,keyasint"`
	Pending bool   `cbor:"4,keyasint"`
}

// errOther says that a saved function is not the one that is here.
var errOther = errors.New("another device than here")

// Save returns what the bus remembers. No vCPU may be running, and every device
// must be paused.
func (b *Bus) Save() BusState {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := BusState{Address: b.address}
	b.Functions(func(slot int, f *Function) {
		fs := FunctionState{Slot: slot, Config: bytes.Clone(f.cfg[:])}
		if f.msix != nil {
			fs.Vectors = f.msix.save()
		}
		s.Functions = append(s.Functions, fs)
	})
	return s
}

// Restore makes the bus what it was when s was saved: BARs are where they were
// and answer there, interrupts go where they went. It is for a bus that no
// guest has used, with the same functions in the same slots, and comes before
// the devices are restored.
func (b *Bus) Restore(s BusState) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.Address&addressReserved != 0 {
		return fmt.Errorf("PCI configuration address %#x: has bits that it cannot have", s.Address)
	}
	next := s.Functions
	var errs []error
	b.Functions(func(slot int, f *Function) {
		if len(next) == 0 || next[0].Slot != slot {
			errs = append(errs, fmt.Errorf("PCI slot %d: there was nothing in it", slot))
			return
		}
		if err := f.check(&next[0]); err != nil {
			errs = append(errs, fmt.Errorf("PCI slot %d: %w", slot, err))
		}
		next = next[1:]
	})
	if len(next) > 0 {
		errs = append(errs, fmt.Errorf("PCI slot %d: there is no such device here", next[0].Slot))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	b.address = s.Address
	i := 0
	b.Functions(func(_ int, f *Function) {
		f.restore(&s.Functions[i])
		i++
	})
	b.remap()
	return nil
}

// check says whether s can be f's: a guest has changed what it may change, and
// nothing else.
func (f *Function) check(s *FunctionState) error {
	if len(s.Config) != configSize {
		return fmt.Errorf("%d bytes of configuration space, want %d", len(s.Config), configSize)
	}
	for i, v := range s.Config {
		if fixed := ^f.mask[i]; v&fixed != f.cfg[i]&fixed {
			return fmt.Errorf("%w: register %#x is %#x there and %#x here", errOther, i, v&fixed, f.cfg[i]&fixed)
		}
	}
	vectors := 0
	if f.msix != nil {
		vectors = len(f.msix.vectors)
	}
	if len(s.Vectors) != vectors {
		return fmt.Errorf("%w: %d MSI-X vectors there and %d here", errOther, len(s.Vectors), vectors)
	}
	for i := range s.Vectors {
		if v := &s.Vectors[i]; v.Addr&3 != 0 {
			return fmt.Errorf("MSI-X vector %d: address %#x, which it cannot have", i, v.Addr)
		}
	}
	return nil
}

// restore makes f what s says, which was checked. What its BARs map follows.
func (f *Function) restore(s *FunctionState) {
	copy(f.cfg[:], s.Config)
	f.intx.mask(f.command()&cmdINTxDisable != 0)
	if f.msix != nil {
		f.msix.load(s.Vectors)
		f.applyMSIX()
	}
}

func (m *MSIX) save() []VectorState {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := make([]VectorState, len(m.vectors))
	for i := range m.vectors {
		e := &m.vectors[i]
		// One that is sent without us, and silenced, may have missed something.
		missed := m.enabled.Load() && e.direct && !e.routed
		s[i] = VectorState{e.addr, e.data, e.masked, e.pending || missed}
	}
	return s
}

// load fills the table of a function whose MSI-X is off. What is pending while
// MSI-X stays off is dropped with the next change of control.
func (m *MSIX) load(s []VectorState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.vectors {
		e := &m.vectors[i]
		e.addr, e.data, e.masked, e.pending = s[i].Addr, s[i].Data, s[i].Masked, s[i].Pending
	}
}
