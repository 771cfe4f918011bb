package pci

import "errors"

// Ids of the chipset's functions. SeaBIOS takes its "QEMU hardware" paths only
// with this subsystem id.
const (
	vendorIntel  = 0x8086
	subVendorPC  = 0x1af4
	subDevicePC  = 0x1100
	deviceI440FX = 0x1237
	devicePIIX3  = 0x7000
	devicePIIX4  = 0x7113
)

// AddHostBridge puts the i440FX host bridge into slot 0. It holds registers
// that firmware writes and reads back; what those stand for is wired elsewhere.
func (b *Bus) AddHostBridge() error {
	return b.addPart(SlotHostBridge, deviceI440FX, 0x060000, 2, []register{
		{0x59, make([]byte, 7), 0xff}, // PAM0-6: shadow RAM is always RAM here
		{0x72, []byte{0x02}, 0xff},    // SMRAM
	})
}

// AddSouthBridge puts the PIIX3 and the power management function of the PIIX4
// into slots 1 and 2, for firmware that looks for them. A kernel that is booted
// directly finds what they stand for in its ACPI tables, and is spared some 300
// accesses to them.
func (b *Bus) AddSouthBridge() error {
	return errors.Join(
		b.addPart(SlotISABridge, devicePIIX3, 0x060100, 0, []register{
			{0x60, []byte{0x80, 0x80, 0x80, 0x80}, 0xff}, // PIRQA-D, unrouted
		}),
		b.addPart(SlotPM, devicePIIX4, 0x068000, 3, []register{
			// PMBASE: the block is always at 0x600, where SeaBIOS moves it
			// when it is given ACPI tables.
			{0x40, []byte{0x01, 0x06, 0, 0}, 0},
			// DEVACTB: APMC_EN reads as set, which tells SeaBIOS that system
			// management mode is taken care of; else it waits for an SMI for ever.
			{0x58, []byte{0, 0, 0, 0x02}, 0xff},
			{0x80, []byte{0x01, 0, 0, 0}, 0xff}, // PMREGMISC: PM block decoded
			{0x90, make([]byte, 4), 0xff},       // SMBBASE
			{0xd2, make([]byte, 1), 0xff},       // SMBus host configuration
		}),
	)
}

// register is a run of plain bytes that all have the same write mask.
type register struct {
	off   int
	value []byte
	mask  byte
}

func (b *Bus) addPart(slot int, device uint16, class uint32, rev uint8, regs []register) error {
	f := NewFunction(b.host, ID{
		Vendor: vendorIntel, Device: device, Class: class, Revision: rev,
		SubVendor: subVendorPC, SubDevice: subDevicePC,
	})
	for _, r := range regs {
		mask := make([]byte, len(r.value))
		for i := range mask {
			mask[i] = r.mask
		}
		if err := f.SetRegister(r.off, r.value, mask); err != nil {
			return err
		}
	}
	if slot == SlotPM {
		// The SCI is wired to IRQ 9, whatever is written there.
		f.power[regIntPin], f.power[regIntLine] = 1, 9
		f.cfg = f.power
	}
	return b.Add(slot, f)
}
