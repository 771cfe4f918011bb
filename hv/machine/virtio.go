package machine

import (
	"errors"
	"fmt"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
)

// AddVirtio puts a device into a PCI slot (pci.SlotDisk and so on). name is what
// Config.Warn is told. The device stays its maker's, to be closed after Close.
func (m *Machine) AddVirtio(slot int, name string, dev virtio.Device) error {
	return m.addVirtio(slot, name, dev, virtiopci.Options{})
}

// AddTransitional is AddVirtio for a guest that may know no virtio but 0.9. The
// guest sees another machine: ids and registers differ.
func (m *Machine) AddTransitional(slot int, name string, dev virtio.Device) error {
	return m.addVirtio(slot, name, dev, virtiopci.Options{Interface: virtiopci.Transitional})
}

// AddLegacy is AddVirtio for a device that exists in virtio 0.9 alone, and is
// known as id.
func (m *Machine) AddLegacy(slot int, name string, dev virtio.Device, id pci.ID) error {
	return m.addVirtio(slot, name, dev, virtiopci.Options{Interface: virtiopci.Legacy, ID: id})
}

func (m *Machine) addVirtio(slot int, name string, dev virtio.Device, o virtiopci.Options) error {
	if m.current() != built {
		return fmt.Errorf("add %s: the machine has been started", name)
	}
	if err := m.encryption.mayHave(dev, o.Interface == virtiopci.Modern); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	o.LimitedAccess = m.encryption.guest != nil
	o.Warn = func(err error) { m.cfg.Warn(name, err.Error()) }
	f, err := virtiopci.New(host{m}, m.mem, dev, o)
	if err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	if err := m.pci.Add(slot, f.PCI()); err != nil {
		return errors.Join(fmt.Errorf("add %s: %w", name, err), f.Close())
	}
	m.virtio, m.slots = append(m.virtio, f), append(m.slots, slot)
	return nil
}
