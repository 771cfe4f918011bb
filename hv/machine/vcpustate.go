package machine

import (
	"fmt"
	"slices"

	"vmd/hv/kvm"
	"vmd/hv/state"
)

// vcpuState is the section VCPU of a stream. Structs of the kernel's travel as
// it lays them out. There is no state of a guest's own guests: CPUID shows it
// neither VMX nor SVM (editCPUID), and offers holds received ones to that.
type vcpuState struct {
	ID       int        `cbor:"1,keyasint"`
	MPState  uint32     `cbor:"2,keyasint"`
	Regs     []byte     `cbor:"3,keyasint"`
	Sregs    []byte     `cbor:"4,keyasint"`
	XSAVE    []byte     `cbor:"5,keyasint"`
	XCRs     []byte     `cbor:"6,keyasint"`
	Debug    []byte     `cbor:"7,keyasint"`
	LAPIC    []byte     `cbor:"8,keyasint"`
	MSRs     []msrState `cbor:"9,keyasint"`
	Events   []byte     `cbor:"10,keyasint"`
	TSC      uint64     `cbor:"11,keyasint"` // when the guest was paused
	Deadline uint64     `cbor:"12,keyasint"` // of the TSC-deadline timer
}

// msrState is a model-specific register.
type msrState struct {
	_     struct{} `cbor:",toarray"`
	Index uint32
	Value uint64
}

// Registers that need care of their own.
const (
	msrTSC         = 0x10
	msrTSCDeadline = 0x6e0
)

// moreMSRs are registers that belong to a guest and that not every KVM lists:
// memory types, SPEC_CTRL, XSS, the TSC-deadline timer and KVM's own.
var moreMSRs = func() []uint32 {
	l := []uint32{0x277, msrMTRRdefType, 0x250, 0x258, 0x259, 0x48, 0xda0, msrTSCDeadline, 0x11, 0x12}
	for i := range uint32(16) {
		l = append(l, 0x200+i)
	}
	for i := range uint32(8) {
		l = append(l, 0x268+i)
	}
	for i := range uint32(9) {
		l = append(l, 0x4b564d00+i)
	}
	return l
}()

// saving is what must be asked of KVM early, to save or restore late.
type saving struct {
	msrs      []uint32 // what to save, sorted
	scaling   bool     // KVM_CAP_TSC_CONTROL
	manualLog bool     // kvm.VM.ManualDirtyLog
}

func (s *saving) init(sys *kvm.System, vm *kvm.VM) (err error) {
	if s.msrs, err = sys.MSRIndices(); err != nil {
		return err
	}
	s.msrs = append(s.msrs, moreMSRs...)
	slices.Sort(s.msrs)
	s.msrs = slices.Compact(s.msrs)
	s.scaling = vm.Check(kvm.KVM_CAP_TSC_CONTROL) != 0
	s.manualLog = vm.ManualDirtyLog()
	return nil
}

func (s *saving) knows(msr uint32) bool {
	_, ok := slices.BinarySearch(s.msrs, msr)
	return ok
}

// save reads a vCPU that is parked, which means that what it came out for has
// been completed. The order is KVM's: the first may change what others read,
// and the last depends on all.
func (v *vcpu) save() (vcpuState, error) {
	s := vcpuState{ID: v.id}
	var err error
	step := func(to *[]byte, read func() (any, error)) {
		if err != nil {
			return
		}
		var x any
		if x, err = read(); err == nil {
			*to, err = pack(x)
		}
	}
	if s.MPState, err = v.kvm.MPState(); err != nil {
		return s, err
	}
	step(&s.Regs, func() (any, error) { return v.kvm.Regs() })
	step(&s.Sregs, func() (any, error) { return v.kvm.Sregs() })
	step(&s.XSAVE, func() (any, error) { return v.kvm.XSAVE(v.m.vm.XSAVESize()) })
	step(&s.XCRs, func() (any, error) { return v.kvm.XCRs() })
	step(&s.Debug, func() (any, error) { return v.kvm.DebugRegs() })
	step(&s.LAPIC, func() (any, error) { return v.kvm.LAPIC() })
	if err == nil {
		err = v.saveMSRs(&s)
	}
	step(&s.Events, func() (any, error) { return v.kvm.Events() })
	return s, err
}

func (v *vcpu) saveMSRs(s *vcpuState) error {
	list, err := v.kvm.ReadableMSRs(v.m.saving.msrs)
	if err != nil {
		return err
	}
	for _, r := range list {
		switch r.Index {
		case msrTSC: // has a field of its own
		case msrTSCDeadline:
			s.Deadline = r.Data
		default:
			s.MSRs = append(s.MSRs, msrState{Index: r.Index, Value: r.Data})
		}
	}
	return nil
}

// restore writes a vCPU that has not run yet. The time stamp counter, and what
// depends on it, follows when all are there.
func (v *vcpu) restore(s *vcpuState) error {
	var (
		regs  kvm.Regs
		sregs kvm.Sregs
		xcrs  kvm.XCRs
		debug kvm.DebugRegs
		lapic kvm.LAPIC
		event kvm.Events
	)
	for _, x := range []struct {
		from []byte
		to   any
	}{{s.Regs, &regs}, {s.Sregs, &sregs}, {s.XCRs, &xcrs}, {s.Debug, &debug}, {s.LAPIC, &lapic}, {s.Events, &event}} {
		if err := unpack(x.from, x.to); err != nil {
			return err
		}
	}
	if s.ID != v.id {
		return fmt.Errorf("%w: it is vCPU %d there", state.ErrFormat, s.ID)
	}
	v.deadline = s.Deadline
	for _, step := range []func() error{
		func() error { return v.kvm.SetMPState(s.MPState) },
		func() error { return v.kvm.SetRegs(regs) },
		func() error { return v.kvm.SetSregs(sregs) },
		func() error { return v.kvm.SetXSAVE(s.XSAVE, v.m.vm.XSAVESize()) },
		func() error { return v.restoreXCRs(xcrs) },
		func() error { return v.kvm.SetDebugRegs(debug) },
		func() error { return v.kvm.SetLAPIC(lapic) },
		func() error { return v.restoreMSRs(s.MSRs) },
		func() error { return v.kvm.SetEvents(event) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// restoreXCRs passes over registers that neither host has.
func (v *vcpu) restoreXCRs(x kvm.XCRs) error {
	if x.Nr == 0 {
		return nil
	}
	return v.kvm.SetXCRs(x)
}

// restoreMSRs writes the registers of list. One that this host does not know
// may be left out if nobody has used it; any other is the end.
func (v *vcpu) restoreMSRs(list []msrState) error {
	var set []kvm.MSR
	for _, r := range list {
		switch {
		case v.m.saving.knows(r.Index) && r.Index != msrTSC && r.Index != msrTSCDeadline:
			set = append(set, kvm.MSR{Index: r.Index, Data: r.Value})
		case r.Value != 0:
			return fmt.Errorf("register (MSR) %#x is %#x: this host does not know it", r.Index, r.Value)
		}
	}
	for _, r := range set {
		err := v.kvm.SetMSRs([]kvm.MSR{r})
		if err == nil {
			continue
		}
		// One that has the value already need not be written, and one that
		// is not there may have been read as zero.
		now, rerr := v.kvm.ReadableMSRs([]uint32{r.Index})
		if rerr == nil && (len(now) == 0 && r.Data == 0 || len(now) == 1 && now[0].Data == r.Data) {
			continue
		}
		return fmt.Errorf("register (MSR) %#x cannot be %#x on this host: %w", r.Index, r.Data, err)
	}
	return nil
}
