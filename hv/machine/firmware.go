package machine

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vmd/hv/acpi"
	"vmd/hv/boot"
	"vmd/hv/chipset"
	"vmd/hv/kvm"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/smbios"
)

// BootDevice is what firmware is to boot from, and from nothing else.
type BootDevice uint8

// The boot devices. The zero value leaves the order to firmware.
const (
	BootAny BootDevice = iota
	BootDisk
	BootCD
	BootNet
)

// firmwareSlot is the KVM memory slot of the firmware: RAM has the first two.
const firmwareSlot = 2

// lowCopy is how much of the firmware, from its end, a PC shows below 1 MiB too.
const (
	romPage    = 4096
	lowCopy    = 128 << 10
	lowCopyEnd = mem.GPA(1 << 20)
)

// Files of fw_cfg that SeaBIOS reads beside ACPI's and SMBIOS's (SeaBIOS
// docs/Runtime_config.md).
const (
	fileE820         = "etc/e820"
	fileLoader       = "etc/table-loader"
	fileAnchor       = "etc/smbios/smbios-anchor"
	fileSMBIOS       = "etc/smbios/smbios-tables"
	fileSerial       = "etc/sercon-port"
	fileMenu         = "etc/show-boot-menu"
	fileScreenDebug  = "etc/screen-and-debug"
	fileFailWait     = "etc/boot-fail-wait"
	fileBootOrder    = "bootorder"
	waitForEver      = ^uint64(0)
	bootHalt         = "HALT" // nothing but what is above
	fileROMOfDevice  = "pci%04x,%04x.rom"
	e820EntrySize    = 20
	pathOfSlot       = "/pci@i0cf8/*@%x"
	pathOfFirstOfBus = "/*@0/*@0,0" // target 0, logical unit 0
)

// loadFirmware makes the first vCPU start as a PC does after power-on: KVM has
// left it at the reset vector, 16 bytes below 4 GiB. PCI functions get their
// addresses from the firmware.
func (m *Machine) loadFirmware(b *Boot) error {
	if err := m.mapFirmware(*b.Firmware); err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	m.bootDevice = b.Device
	if b.Device == BootNet {
		m.netROM = b.NetROM
	}
	if err := m.addFirmwareParts(); err != nil {
		return err
	}
	return m.setSignatures(openBSDFirst)
}

// addFirmwareParts adds what only firmware looks at. It comes after the last
// AddVirtio.
func (m *Machine) addFirmwareParts() error {
	if err := m.pci.AddSouthBridge(); err != nil {
		return err
	}
	files, err := m.firmwareFiles(m.bootDevice)
	if err != nil {
		return err
	}
	m.board.fwcfg, err = chipset.NewFWCfg(chipset.FWCfgConfig{Mem: m.mem, UUID: m.cfg.UUID, CPUs: m.cfg.CPUs, Files: files})
	if err != nil {
		return err
	}
	if err := m.port(chipset.FWCfgPort, chipset.FWCfgSize, m.board.fwcfg); err != nil {
		return err
	}
	if m.cfg.FirmwareLog != nil {
		if err := m.port(chipset.DebugPort, 1, chipset.NewDebugPort(m.cfg.FirmwareLog)); err != nil {
			return err
		}
	}
	return nil
}

// mapFirmware puts the image where it ends at 4 GiB, and its end where it ends
// at 1 MiB: the first instruction jumps there.
func (m *Machine) mapFirmware(f boot.Image) error {
	if f.Size < boot.MinFirmware || f.Size > boot.MaxFirmware {
		return fmt.Errorf("%d bytes, want %d to %d", f.Size, boot.MinFirmware, boot.MaxFirmware)
	}
	b, err := m.mapROM((int(f.Size) + romPage - 1) &^ (romPage - 1))
	if err != nil {
		return err
	}
	image := b[len(b)-int(f.Size):]
	if n, err := f.R.ReadAt(image, 0); n < len(image) {
		return fmt.Errorf("read %d bytes: got %d: %w", len(image), n, err)
	}
	low := image[max(0, len(image)-lowCopy):]
	if err := m.mem.Write(lowCopyEnd-mem.GPA(len(low)), low); err != nil {
		return fmt.Errorf("guest has %d KiB of memory, needs 1 MiB: %w", m.mem.Size()>>10, err)
	}
	return nil
}

// mapROM shows the guest size bytes, whole pages, that end at 4 GiB.
func (m *Machine) mapROM(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	m.rom = b // free unmaps it
	var flags uint32
	if m.vm.Check(kvm.KVM_CAP_READONLY_MEM) != 0 {
		flags = kvm.KVM_MEM_READONLY
	}
	return b, m.vm.SetMemory(firmwareSlot, highBase-mem.GPA(size), b, flags)
}

// firmwareFiles are what firmware is told.
func (m *Machine) firmwareFiles(dev BootDevice) ([]chipset.FWCfgFile, error) {
	c := m.acpiConfig()
	c.FWCfg = true
	c.MMIO64 = acpi.Window{Base: mem.GPA(m.windows.MMIO64.Base), Size: m.windows.MMIO64.Size}
	a, err := acpi.Build(c)
	if err != nil {
		return nil, err
	}
	s, err := smbios.Build(m.smbiosConfig())
	if err != nil {
		return nil, err
	}
	files := []chipset.FWCfgFile{
		{Name: fileE820, Data: e820(m.mem)},
		{Name: acpi.TablesFile, Data: a.Blob},
		{Name: acpi.RSDPFile, Data: a.RSDP},
		{Name: fileLoader, Data: a.Script()},
		{Name: fileAnchor, Data: s.Anchor},
		{Name: fileSMBIOS, Data: s.Blob},
		{Name: fileSerial, Data: number(chipset.COM1)},
		{Name: fileMenu, Data: number(0)}, // or it waits for a key
		{Name: fileScreenDebug, Data: number(0)},
		// What has nothing to boot from says so and stays.
		{Name: fileFailWait, Data: number(waitForEver)},
	}
	if order := m.bootOrder(dev); order != "" {
		files = append(files, chipset.FWCfgFile{Name: fileBootOrder, Data: append([]byte(order), 0)})
	}
	return append(files, m.netROMFiles()...), nil
}

// netROMFiles are the ROM under the names by which SeaBIOS looks for one for a
// PCI function (SeaBIOS src/optionroms.c, init_pcirom): it copies and initialises
// the ROM once for each, and then boots with that of the function in
// fileBootOrder.
func (m *Machine) netROMFiles() (files []chipset.FWCfgFile) {
	if m.netROM == nil {
		return nil
	}
	var names []string
	m.pci.Functions(func(slot int, f *pci.Function) {
		if slot >= pci.SlotNIC && slot < pci.SlotRNG {
			names = append(names, fmt.Sprintf(fileROMOfDevice, f.ID().Vendor, f.ID().Device))
		}
	})
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		files = append(files, chipset.FWCfgFile{Name: name, Data: m.netROM})
	}
	return files
}

// bootOrder is the content of fileBootOrder: the path of the one device and
// HALT, one a line; HALT alone where there is no such device, or no ROM to boot
// from the network with. It is empty where firmware is to choose.
func (m *Machine) bootOrder(dev BootDevice) string {
	if dev == BootAny {
		return ""
	}
	first := map[BootDevice]struct{ slot, end int }{
		BootDisk: {pci.SlotDisk, pci.SlotNIC},
		BootCD:   {pci.SlotCD, pci.SlotCD + 1},
		BootNet:  {pci.SlotNIC, pci.SlotRNG},
	}[dev]
	if dev == BootNet && m.netROM == nil {
		return bootHalt
	}
	found := -1
	m.pci.Functions(func(slot int, _ *pci.Function) {
		if found < 0 && slot >= first.slot && slot < first.end {
			found = slot
		}
	})
	if found < 0 {
		return bootHalt
	}
	path := fmt.Sprintf(pathOfSlot, found)
	if dev == BootCD {
		path += pathOfFirstOfBus
	}
	return strings.Join([]string{path, bootHalt}, "\n")
}

// e820 lists the RAM for firmware, which takes out what it uses itself.
func e820(m *mem.Memory) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, 2*e820EntrySize)
	for _, r := range m.Regions() {
		b = le.AppendUint64(b, uint64(r.Base))
		b = le.AppendUint64(b, uint64(len(r.Bytes)))
		b = le.AppendUint32(b, uint32(boot.RAM))
	}
	return b
}

func number(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
