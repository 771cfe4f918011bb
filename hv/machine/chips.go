package machine

import (
	"encoding/binary"
	"fmt"

	"vmd/hv/kvm"
	"vmd/hv/state"
)

// chipState is the section Chip of a stream: what KVM keeps for the whole
// machine. Structs of the kernel's travel as it lays them out.
type chipState struct {
	Clock uint64   `cbor:"1,keyasint"` // kvmclock, ns
	Chips [][]byte `cbor:"2,keyasint"` // two PICs and the I/O APIC
	PIT   []byte   `cbor:"3,keyasint"`
}

// chips are the interrupt controllers that KVM has.
var chips = [...]uint32{kvm.KVM_IRQCHIP_PIC_MASTER, kvm.KVM_IRQCHIP_PIC_SLAVE, kvm.KVM_IRQCHIP_IOAPIC}

func (m *Machine) saveChips() (chipState, error) {
	s := chipState{Clock: m.clocks.kvm}
	for _, id := range chips {
		c, err := m.vm.IRQChip(id)
		if err != nil {
			return s, err
		}
		s.Chips = append(s.Chips, c.Chip[:])
	}
	p, err := m.vm.PIT()
	if err != nil {
		return s, err
	}
	s.PIT, err = pack(p)
	return s, err
}

// restoreChips follows the devices, which have set their lines: what the
// controllers make of these is overwritten by what they had made of them.
func (m *Machine) restoreChips(s *chipState) error {
	if len(s.Chips) != len(chips) {
		return fmt.Errorf("%w: %d interrupt controllers", state.ErrFormat, len(s.Chips))
	}
	if err := m.vm.SetClock(s.Clock); err != nil {
		return err
	}
	for i, b := range s.Chips {
		c := kvm.IRQChip{ID: chips[i]}
		if len(b) != len(c.Chip) {
			return fmt.Errorf("%w: interrupt controller of %d bytes", state.ErrFormat, len(b))
		}
		copy(c.Chip[:], b)
		if err := m.vm.SetIRQChip(c); err != nil {
			return err
		}
	}
	var p kvm.PIT
	if err := unpack(s.PIT, &p); err != nil {
		return err
	}
	return m.vm.SetPIT(p)
}

// pack is a struct of the kernel's as it lays it out.
func pack(v any) ([]byte, error) {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		return nil, fmt.Errorf("pack %T: %w", v, err)
	}
	return b, nil
}

// unpack fills v, a pointer to such a struct, from exactly its bytes.
func unpack(b []byte, v any) error {
	if len(b) != binary.Size(v) {
		return fmt.Errorf("%w: %d bytes for a %T", state.ErrFormat, len(b), v)
	}
	_, err := binary.Decode(b, binary.LittleEndian, v)
	return err
}
