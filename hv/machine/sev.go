package machine

import (
	"errors"
	"fmt"

	"vmd/hv/kvm"
	"vmd/hv/mem"
	"vmd/hv/sev"
	"vmd/hv/virtio"
)

// SEV says how a guest's memory is to be encrypted. The zero value is a guest
// without.
//
// A guest with encrypted memory is started from a kernel, as no firmware that we
// have knows how; its memory is all taken at once and held in place, so it gives
// none back; and it does not move. With SEV-ES it has one CPU: others are
// started by means of firmware.
type SEV struct {
	Kind sev.Kind
	// FD is a descriptor of /dev/sev. It stays the caller's, who may close it
	// when Load has returned.
	FD int

	play *sevPlay // in tests
}

// sevPlay stands in for a host with SEV: a processor and a KVM.
type sevPlay struct {
	cpu sev.CPU
	vm  sev.VM
}

// SEVError is why a guest cannot have its memory encrypted, or be what it is to
// be with it encrypted.
type SEVError struct{ Err error }

func (e *SEVError) Error() string { return e.Err.Error() }
func (e *SEVError) Unwrap() error { return e.Err }

func sevError(format string, args ...any) error { return &SEVError{fmt.Errorf(format, args...)} }

// leafSEV is the leaf of CPUID that is about memory encryption.
const leafSEV = 0x8000001f

// minCBit is the least C-bit that is believed. Processors have 47 or 51.
const minCBit = 40

// encryption is a machine's part in what SEV does. The zero value is that of a
// machine without.
type encryption struct {
	guest  *sev.Guest // nil for none
	cpu    sev.CPU
	loaded []mem.Range // whole pages, in the order in which they were filled
	launch sev.Launch
}

// check refuses what cannot be.
func (s *SEV) check(cpus int) error {
	switch {
	case s.Kind > sev.ES:
		return sevError("no such encryption, %v", s.Kind)
	case s.Kind == sev.ES && cpus > 1:
		return sevError("a SEV-ES guest has 1 vCPU, not %d: without firmware there is nobody to start the others", cpus)
	}
	return nil
}

// createVM makes the VM, which is a guest's with encryption from the beginning.
func (m *Machine) createVM(sys *kvm.System) (err error) {
	s := &m.cfg.SEV
	if s.Kind == sev.None {
		m.vm, err = sys.CreateVM(tssAddr, identityAddr)
		return err
	}
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		return err
	}
	e := &m.encryption
	if e.cpu = sevCPU(cpuid); s.play != nil {
		e.cpu = s.play.cpu
	}
	if !e.cpu.Has(s.Kind) {
		return sevError("this host's KVM has no %v: it takes a processor with it, and kvm_amd loaded with sev=1, and sev_es=1 for SEV-ES", s.Kind)
	}
	if bit := e.cpu.CBit(); bit < minCBit {
		return sevError("this host's processor says that its C-bit is %d: among the addresses of memory", bit)
	}
	c := sev.Config{Kind: s.Kind, Policy: sev.DefaultPolicy(s.Kind), FD: s.FD}
	typ := map[sev.Kind]kvm.VMType{sev.SEV: kvm.KVM_X86_SEV_VM, sev.ES: kvm.KVM_X86_SEV_ES_VM}[s.Kind]
	if c.Init2 = sys.HasVMType(typ); !c.Init2 {
		typ = kvm.KVM_X86_DEFAULT_VM
	}
	if m.vm, err = sys.CreateVMOf(typ, tssAddr, identityAddr); err != nil {
		return err
	}
	var vm sev.VM = m.vm
	if s.play != nil {
		vm = s.play.vm
	}
	if e.guest, err = sev.Begin(vm, c); err != nil {
		return &SEVError{err}
	}
	return nil
}

func sevCPU(host []kvm.CPUIDEntry) sev.CPU {
	for _, e := range host {
		if e.Function == leafSEV {
			return sev.CPU{Features: e.EAX, Layout: e.EBX}
		}
	}
	return sev.CPU{}
}

// register names the guest's memory to KVM, which takes all of it.
func (e *encryption) register(b []byte) error {
	if e.guest == nil {
		return nil
	}
	if err := e.guest.RegisterMemory(b); err != nil {
		return &SEVError{err}
	}
	return nil
}

// physBits are the bits of an address that are left to the guest, of those that
// the processor says it has: the C-bit is none of them, nor is one above it.
func (e *encryption) physBits(bits int) int {
	if e.guest == nil {
		return bits
	}
	return min(max(bits-e.cpu.Reduction(), minCBit), e.cpu.CBit())
}

// cBit is the bit of a page table entry, 0 for none.
func (e *encryption) cBit() uint64 {
	if e.guest == nil {
		return 0
	}
	return 1 << e.cpu.CBit()
}

// mayHave says whether the guest can have device dev.
func (e *encryption) mayHave(dev virtio.Device, modern bool) error {
	switch {
	case e.guest == nil:
		return nil
	case !modern:
		return sevError("a guest with encrypted memory has no devices of virtio 0.9: they would read what they cannot")
	case dev.Type() == virtio.VIRTIO_ID_BALLOON:
		return sevError("a guest with encrypted memory has no balloon: its memory is held in place")
	}
	return nil
}

// mayMove says whether the guest can be sent, or received.
func (e *encryption) mayMove() error {
	if e.guest == nil {
		return nil
	}
	return sevError("a guest with encrypted memory stays where it is: its policy forbids the host to read it (nosend)")
}

// mayBoot says whether the guest can start as b says.
func (e *encryption) mayBoot(b *Boot) error {
	if e.guest != nil && b.Firmware != nil {
		return sevError("a guest with encrypted memory needs a kernel: this firmware does not know how to start there")
	}
	return nil
}

// note remembers that [at, at+n) has been filled, in whole pages: what shares a
// page with it is encrypted with it. A page that is known already is not
// remembered again: what is encrypted twice is garbage.
func (e *encryption) note(at mem.GPA, n uint64) {
	if e.guest == nil || n == 0 {
		return
	}
	end := (at + mem.GPA(n) + mem.Page - 1) &^ (mem.Page - 1)
	e.add(at&^(mem.Page-1), end, 0)
}

// add adds what of [from, to) is in no range from number i on.
func (e *encryption) add(from, to mem.GPA, i int) {
	for ; i < len(e.loaded) && from < to; i++ {
		r := e.loaded[i]
		end := r.Base + mem.GPA(r.Size)
		if to <= r.Base || from >= end {
			continue
		}
		if from < r.Base {
			e.add(from, r.Base, i+1)
		}
		from = end
	}
	if from < to {
		e.loaded = append(e.loaded, mem.Range{Base: from, Size: uint64(to - from)})
	}
}

// seal encrypts what has been loaded, in that order, and the registers of a
// SEV-ES guest; then neither can be changed any more.
func (e *encryption) seal(m *mem.Memory) error {
	if e.guest == nil {
		return nil
	}
	if err := e.encrypt(m); err != nil {
		return &SEVError{fmt.Errorf("launch the %v guest: %w", e.guest.Kind(), err)}
	}
	return nil
}

func (e *encryption) encrypt(m *mem.Memory) (err error) {
	if err := e.guest.Start(); err != nil {
		return err
	}
	for _, r := range e.loaded {
		b, err := m.Slice(r.Base, r.Size)
		if err != nil {
			return fmt.Errorf("%d bytes at %#x: %w", r.Size, r.Base, err)
		}
		if err := e.guest.Encrypt(b); err != nil {
			return fmt.Errorf("%d bytes at %#x: %w", r.Size, r.Base, err)
		}
	}
	if e.guest.Kind() == sev.ES {
		if err := e.guest.EncryptRegisters(); err != nil {
			return err
		}
	}
	e.launch, err = e.guest.Finish()
	return err
}

// mayStart refuses a machine that is to be encrypted and is not: it would run
// in plain.
func (e *encryption) mayStart() error {
	if e.guest != nil && e.launch.Kind == sev.None {
		return &SEVError{errors.New("a guest with encrypted memory starts with a kernel: none has been loaded")}
	}
	return nil
}

// Launch says how an encrypted guest was launched; ok is false for another, and
// before Load.
func (m *Machine) Launch() (l sev.Launch, ok bool) {
	return m.encryption.launch, m.encryption.launch.Kind != sev.None
}
