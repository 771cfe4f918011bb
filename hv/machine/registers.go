package machine

import (
	"fmt"

	"vmd/hv/boot"
	"vmd/hv/kvm"
)

// MSRs that a vCPU starts with.
const (
	msrMiscEnable  = 0x1a0
	msrMTRRdefType = 0x2ff
)

// startMSRs are set on every vCPU. Without enabled MTRRs Linux takes the PAT for
// unusable; firmware would have enabled them.
var startMSRs = []kvm.MSR{
	{Index: msrMTRRdefType, Data: 0x806}, // enabled, write-back
	{Index: msrMiscEnable, Data: 1},      // fast strings
}

// setEntry makes v, the first vCPU, start where the loader wants it.
func setEntry(v *kvm.VCPU, e boot.Entry) error {
	s, err := v.Sregs() // the APIC's base stays KVM's
	if err != nil {
		return err
	}
	s.CR0, s.CR2, s.CR3, s.CR4, s.EFER = e.CR0, 0, e.CR3, e.CR4, e.EFER
	s.CS = segment(e.CS)
	data := segment(e.Data)
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR, s.LDT = segment(e.TR), segment(e.LDT)
	s.GDT = kvm.Dtable{Base: uint64(e.GDT), Limit: e.GDTLimit}
	s.IDT = kvm.Dtable{}
	if err := v.SetSregs(s); err != nil {
		return fmt.Errorf("enter the kernel at %#x: %w", e.RIP, err)
	}
	return v.SetRegs(kvm.Regs{
		RIP: e.RIP, RSP: e.RSP, RAX: e.RAX, RBX: e.RBX, RSI: e.RSI, RFLAGS: e.RFLAGS,
	})
}

func segment(s boot.Segment) kvm.Segment {
	return kvm.Segment{
		Base: s.Base, Limit: s.Limit, Selector: s.Selector, Type: s.Type, Present: s.Present,
		DPL: s.DPL, DB: s.DB, S: s.S, L: s.L, G: s.G, AVL: s.AVL, Unusable: s.Unusable,
	}
}
