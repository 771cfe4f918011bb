package machine

import (
	"fmt"

	"vmd/hv/state"
	"vmd/hv/virtio/virtiopci"
)

// part is something on the board that remembers something.
type part struct {
	name    string
	save    func() ([]byte, error)
	restore func([]byte) error
}

// partState is the section Device of a stream.
type partState struct {
	Name  string `cbor:"1,keyasint"`
	State []byte `cbor:"2,keyasint"`
}

// partOf makes a part of two methods.
func partOf[S any](name string, save func() S, restore func(S) error) part {
	return part{name,
		func() ([]byte, error) { return state.Encode(save()) },
		func(b []byte) error {
			var s S
			if err := state.Decode(b, &s); err != nil {
				return err
			}
			return restore(s)
		},
	}
}

// parts lists them in the order in which they are saved and restored: the bus
// before what sits on it. It is complete once the last device is there.
func (m *Machine) parts() []part {
	b := &m.board
	p := []part{
		partOf("pci", m.pci.Save, m.pci.Restore),
		partOf("uart", b.uart.Save, b.uart.Restore),
		partOf("rtc", b.rtc.Save, b.rtc.Restore),
		partOf("pm", b.pm.Save, b.pm.Restore),
		partOf("post", b.post.Save, b.post.Restore),
		partOf("a20", b.a20.Save, b.a20.Restore),
		partOf("reset", b.reset.Save, b.reset.Restore),
		partOf("pvpanic", b.panics.Save, b.panics.Restore),
	}
	if b.fwcfg != nil {
		p = append(p, partOf("fw_cfg", b.fwcfg.Save, b.fwcfg.Restore))
	}
	for i, f := range m.virtio {
		p = append(p, virtioPart(m.slots[i], f))
	}
	return p
}

// virtioPart is the device in a PCI slot, with its name in the stream.
func virtioPart(slot int, f *virtiopci.Function) part {
	return part{fmt.Sprintf("virtio%d", slot),
		func() ([]byte, error) {
			s, err := f.Save()
			if err != nil {
				return nil, err
			}
			return state.Encode(s)
		},
		func(b []byte) error {
			var s virtiopci.State
			if err := state.Decode(b, &s); err != nil {
				return err
			}
			return f.Restore(s)
		},
	}
}

func (m *Machine) saveParts(w *state.Writer) error {
	for _, p := range m.parts() {
		b, err := p.save()
		if err != nil {
			return fmt.Errorf("save %s: %w", p.name, err)
		}
		if err := w.Put(state.Device, partState{p.name, b}); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) restoreParts(r *state.Reader) error {
	for _, p := range m.parts() {
		var s partState
		if err := r.Get(state.Device, &s); err != nil {
			return fmt.Errorf("restore %s: %w", p.name, err)
		}
		if s.Name != p.name {
			return fmt.Errorf("restore %s: there it is %.20q", p.name, s.Name)
		}
		if err := p.restore(s.State); err != nil {
			return fmt.Errorf("restore %s: %w", p.name, err)
		}
	}
	return nil
}
