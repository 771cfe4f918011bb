package machine

import (
	"fmt"

	"vmd/hv/boot"
	"vmd/hv/kvm"
	"vmd/hv/mem"
	"vmd/internal/notation"
)

// shape is the section Machine of a stream: what the receiver must offer so
// that the guest does not see that it is elsewhere.
type shape struct {
	Version  uint32      `cbor:"1,keyasint"`
	Memory   uint64      `cbor:"2,keyasint"` // bytes
	CPUs     int         `cbor:"3,keyasint"`
	UUID     [16]byte    `cbor:"4,keyasint"`
	ROM      uint32      `cbor:"5,keyasint"` // bytes of firmware; 0 for a kernel
	Device   BootDevice  `cbor:"6,keyasint"` // what firmware boots from
	PhysBits int         `cbor:"7,keyasint"` // where the PCI window ends
	TSCKHz   int         `cbor:"8,keyasint"`
	CPUID    []cpuidLeaf `cbor:"9,keyasint"` // of the first vCPU

	// NetROM is what firmware boots from the network with. It travels because
	// firmware may be reading it, and the receiver's may be another.
	NetROM []byte `cbor:"10,keyasint,omitempty"`
}

// cpuidLeaf is kvm.CPUIDEntry in a stream.
type cpuidLeaf struct {
	_        struct{} `cbor:",toarray"`
	Function uint32
	Index    uint32
	Flags    uint32
	EAX      uint32
	EBX      uint32
	ECX      uint32
	EDX      uint32
}

// shape describes m. It asks no vCPU: one that runs does not answer before it
// leaves the guest.
func (m *Machine) shape() shape {
	s := shape{
		Version: Version, Memory: m.cfg.Memory, CPUs: m.cfg.CPUs, UUID: m.cfg.UUID,
		ROM: uint32(len(m.rom)), Device: m.bootDevice, PhysBits: m.physBits, TSCKHz: m.tscKHz,
		NetROM: m.netROM,
	}
	for _, e := range m.vcpus[0].cpuid {
		s.CPUID = append(s.CPUID, cpuidLeaf{
			Function: e.Function, Index: e.Index, Flags: e.Flags, EAX: e.EAX, EBX: e.EBX, ECX: e.ECX, EDX: e.EDX,
		})
	}
	return s
}

func (s *shape) cpuid() []kvm.CPUIDEntry {
	out := make([]kvm.CPUIDEntry, len(s.CPUID))
	for i, l := range s.CPUID {
		out[i] = kvm.CPUIDEntry{
			Function: l.Function, Index: l.Index, Flags: l.Flags, EAX: l.EAX, EBX: l.EBX, ECX: l.ECX, EDX: l.EDX,
		}
	}
	return out
}

// fits says why a machine of shape s cannot go on as m, which is new.
func (m *Machine) fits(s *shape) error {
	switch {
	case s.Version != Version:
		return fmt.Errorf("machine version %d there and %d here", s.Version, Version)
	case s.Memory != m.cfg.Memory:
		return fmt.Errorf("%d bytes of memory there and %d here", s.Memory, m.cfg.Memory)
	case s.CPUs != m.cfg.CPUs:
		return fmt.Errorf("%d vCPUs there and %d here", s.CPUs, m.cfg.CPUs)
	case s.UUID != m.cfg.UUID:
		return fmt.Errorf("the machine is %s there and %s here", notation.UUID(s.UUID), notation.UUID(m.cfg.UUID))
	case s.ROM%romPage != 0 || s.ROM > boot.MaxFirmware:
		return fmt.Errorf("%d bytes of firmware", s.ROM)
	case s.Device > BootNet:
		return fmt.Errorf("boot device %d", s.Device)
	case s.NetROM != nil && !s.hasNetROM():
		return fmt.Errorf("network boot ROM of %d bytes", len(s.NetROM))
	case s.PhysBits > m.physBits:
		return fmt.Errorf("guest was told of %d address bits, this host has %d", s.PhysBits, m.physBits)
	}
	return offers(m.cpuid, s.cpuid(), cpuTopology{count: s.CPUs, tscKHz: s.TSCKHz, deadline: m.timer})
}

// hasNetROM says whether the ROM is one to be booted from, and could be.
func (s *shape) hasNetROM() bool {
	return s.Device == BootNet && s.ROM != 0 && boot.CheckNetROM(s.NetROM) == nil
}

// tscTolerance is how far two rates may differ, in millionths, and be taken for
// the same: KVM's own limit (arch/x86/kvm/x86.c, tsc_tolerance_ppm).
const tscTolerance = 250

// become makes the new machine m one of shape s, which fits.
func (m *Machine) become(s *shape) error {
	khz := m.tscKHz
	d := int64(khz) - int64(s.TSCKHz)
	equal := s.TSCKHz > 0 && max(d, -d) <= int64(khz)*tscTolerance/1e6
	if !equal && (s.TSCKHz <= 0 || s.TSCKHz > 1<<31-1 || !m.saving.scaling) {
		return fmt.Errorf("time stamp counter ran at %d kHz, this host's run at %d and cannot do otherwise", s.TSCKHz, khz)
	}
	entries := s.cpuid()
	for _, v := range m.vcpus {
		v.cpuid = withID(entries, v.id)
		if err := v.kvm.SetCPUID(v.cpuid); err != nil {
			return fmt.Errorf("vCPU %d: %w", v.id, err)
		}
		if equal {
			continue
		}
		if err := v.kvm.SetTSCKHz(s.TSCKHz); err != nil {
			return fmt.Errorf("vCPU %d: %w", v.id, err)
		}
	}
	m.tscKHz, m.bootDevice, m.netROM = s.TSCKHz, s.Device, s.NetROM
	m.physBits = s.PhysBits
	if s.ROM == 0 {
		return nil
	}
	_, err := m.mapROM(int(s.ROM))
	return err
}

// everything is the guest's RAM with the firmware, which has an address too.
func (m *Machine) everything() (*mem.Memory, error) {
	if m.rom == nil {
		return m.mem, nil
	}
	rom := mem.Region{Base: highBase - mem.GPA(len(m.rom)), Bytes: m.rom}
	r := m.mem.Regions()
	all := append([]mem.Region{r[0], rom}, r[1:]...)
	return mem.New(all...)
}
