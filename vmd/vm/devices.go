package vm

import (
	"errors"
	"fmt"
	"strconv"

	"vmd/hv/disk"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/vioscsi"
	"vmd/internal/counters"
	"vmd/internal/vmop"
)

// PCI slots of the devices. They are part of the machine's ABI: a guest names
// its interfaces after them (enp0s8, systemd.net-naming-scheme(7)).
const (
	slotCD   = 3
	slotDisk = 4
	slotNIC  = 8
	slotRNG  = 16
)

// addDevices puts the guest's devices into their slots.
func (v *vm) addDevices() error {
	if err := v.openDrives(); err != nil {
		return err
	}
	for i := range v.drives {
		if err := v.addDisk(i); err != nil {
			return &coded{vmop.ErrDisk, fmt.Errorf("disk %d: %w", i, err)}
		}
	}
	if err := v.addCD(); err != nil {
		return &coded{vmop.ErrCDROM, fmt.Errorf("cdrom: %w", err)}
	}
	for i, n := range v.spec.NICs {
		if err := v.addNIC(i, n); err != nil {
			return &coded{vmop.ErrNetwork, fmt.Errorf("interface %d: %w", i, err)}
		}
	}
	return errors.Join(
		v.addVirtio(slotRNG, "viornd0", viornd.New()),
		v.addBalloon(),
		v.addControl(),
	)
}

// addVirtio adds a device with the registers that the definition wants.
func (v *vm) addVirtio(slot int, name string, dev virtio.Device) error {
	if v.spec.Transitional {
		return v.machine.AddTransitional(slot, name, dev)
	}
	return v.machine.AddVirtio(slot, name, dev)
}

func (v *vm) addDisk(i int) error {
	c := vioblk.Config{Serial: v.spec.Disks[i].Serial, ReadOnly: v.spec.Disks[i].ReadOnly}
	if i < counters.MaxDisks {
		c.Counters = (*vioblk.Counters)(&v.page.Disk[i])
	}
	dev, err := vioblk.New(v.drives[i].image, c)
	if err != nil {
		return err
	}
	return v.addVirtio(slotDisk+i, "vioblk"+strconv.Itoa(i), dev)
}

// addCD adds a drive if there is something to put into it.
func (v *vm) addCD() error {
	f := v.files.take("cdrom")
	if f == nil {
		return nil
	}
	img, err := disk.NewRaw(f, true)
	if err != nil {
		return err
	}
	return v.addVirtio(slotCD, "vioscsi0", vioscsi.New(img))
}
