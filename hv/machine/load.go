package machine

import (
	"crypto/rand"
	"errors"
	"fmt"

	"vmd/hv/acpi"
	"vmd/hv/boot"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/smbios"
)

// Boot says what a guest starts with: a kernel, or firmware.
type Boot struct {
	Kernel  boot.Image
	Initrd  *boot.Image // nil for none
	Cmdline string
	// NetMAC is the address of the interface that an OpenBSD kernel is to take
	// for the one it was booted from; nil for none.
	NetMAC *[6]byte

	// Firmware is started instead of a kernel if it is not nil. Device is what
	// it is to boot from; for BootNet it needs NetROM, as boot.NetROM returns
	// it.
	Firmware *boot.Image
	Device   BootDevice
	NetROM   []byte
}

// Load puts a kernel and the firmware tables into the guest's memory and makes
// the first vCPU start there, or the firmware. It follows the last AddVirtio,
// and is called once.
func (m *Machine) Load(b Boot) error {
	if m.current() != built {
		return errors.New("load a kernel: the machine has been started")
	}
	if m.arrived != notReceived {
		return errors.New("load a kernel: the machine has been received")
	}
	if err := m.encryption.mayBoot(&b); err != nil {
		return err
	}
	if b.Firmware != nil {
		return m.loadFirmware(&b)
	}
	rsdp, err := m.putTables()
	if err != nil {
		return err
	}
	e, err := boot.Load(boot.Params{
		Mem: m.mem, Kernel: b.Kernel, Initrd: b.Initrd, Cmdline: b.Cmdline, RSDP: rsdp, Seed: m.seed(),
		NetMAC: b.NetMAC, CBit: m.encryption.cBit(), Loaded: m.encryption.note,
	})
	if err != nil {
		return err
	}
	if e.Format == boot.OpenBSD {
		if err := m.setSignatures(openBSDFirst); err != nil {
			return err
		}
	}
	if err := setEntry(m.vcpus[0].kvm, e); err != nil {
		return err
	}
	return m.encryption.seal(m.mem)
}

// seed is for the kernel's random numbers. A guest whose owner does not trust us
// is given none: it would only make its digest another at each start.
func (m *Machine) seed() []byte {
	if m.encryption.guest != nil {
		return nil
	}
	seed := make([]byte, 32)
	rand.Read(seed)
	return seed
}

// putTables writes the ACPI and SMBIOS tables and returns where the former
// begin.
func (m *Machine) putTables() (rsdp mem.GPA, err error) {
	t, err := acpi.Build(m.acpiConfig())
	if err != nil {
		return 0, err
	}
	end, err := t.Load(m.mem, rsdpAddr)
	if err != nil {
		return 0, err
	}
	if end > smbiosAddr {
		return 0, fmt.Errorf("ACPI tables end at %#x, where SMBIOS tables begin", end)
	}
	s, err := smbios.Build(m.smbiosConfig())
	if err != nil {
		return 0, err
	}
	_, err = s.Load(m.mem, smbiosAddr)
	m.encryption.note(rsdpAddr, uint64(lowCopyEnd-rsdpAddr)) // what lies between is looked at, too
	return rsdpAddr, err
}

func (m *Machine) acpiConfig() acpi.Config {
	return acpi.Config{
		CPUs:    m.cfg.CPUs,
		MMIO32:  acpi.Window{Base: lowEnd, Size: m.windows.MMIO.Size},
		Links:   links,
		PVPanic: true,
	}
}

func (m *Machine) smbiosConfig() smbios.Config {
	return smbios.Config{
		UUID:       m.cfg.UUID,
		CPUs:       m.cfg.CPUs,
		LowMemory:  m.lowMemory(),
		HighMemory: m.cfg.Memory - m.lowMemory(),
	}
}

// links are the interrupts of the ACPI link devices: the slots with these
// numbers, less one, show how the bus is wired.
var links = [4]uint32{pci.GSI(1), pci.GSI(2), pci.GSI(3), pci.GSI(4)}

// lowMemory is how much RAM lies below the PCI window.
func (m *Machine) lowMemory() uint64 { return min(m.cfg.Memory, uint64(lowEnd)) }
