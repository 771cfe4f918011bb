package machine

import (
	"fmt"
	"strings"

	"vmd/hv/kvm"
	"vmd/hv/mem"
)

// GuestError says that a vCPU could not go on, and where it stood.
type GuestError struct {
	VCPU  int
	Err   error
	Regs  kvm.Regs
	Sregs kvm.Sregs
	Code  []byte // at RIP; empty where there is no memory
}

// codeBytes is how much of the code at RIP a GuestError holds: the longest
// instruction has 15 bytes.
const codeBytes = 15

func (e *GuestError) Unwrap() error { return e.Err }

func (e *GuestError) Error() string {
	var b strings.Builder
	r, s := &e.Regs, &e.Sregs
	fmt.Fprintf(&b, "vCPU %d: %v; rip %#x code % x", e.VCPU, e.Err, r.RIP, e.Code)
	fmt.Fprintf(&b, "; rax %#x rbx %#x rcx %#x rdx %#x rsi %#x rdi %#x rsp %#x rbp %#x",
		r.RAX, r.RBX, r.RCX, r.RDX, r.RSI, r.RDI, r.RSP, r.RBP)
	fmt.Fprintf(&b, " r8 %#x r9 %#x r10 %#x r11 %#x r12 %#x r13 %#x r14 %#x r15 %#x rflags %#x",
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.RFLAGS)
	fmt.Fprintf(&b, "; cs %#x base %#x cr0 %#x cr2 %#x cr3 %#x cr4 %#x efer %#x",
		s.CS.Selector, s.CS.Base, s.CR0, s.CR2, s.CR3, s.CR4, s.EFER)
	return b.String()
}

// report wraps err in what is known of the vCPU. It runs on the vCPU's thread.
func (v *vcpu) report(err error) error {
	e := &GuestError{VCPU: v.id, Err: err}
	var rerr, serr error
	e.Regs, rerr = v.kvm.Regs()
	e.Sregs, serr = v.kvm.Sregs()
	if rerr != nil || serr != nil {
		return fmt.Errorf("vCPU %d: %w", v.id, err)
	}
	if v.m.encryption.guest != nil {
		return e // we see neither its page tables nor its code
	}
	linear := e.Sregs.CS.Base + e.Regs.RIP
	for i := range uint64(codeBytes) {
		gpa, ok := v.kvm.Translate(linear + i)
		var b [1]byte
		if !ok || v.m.mem.Read(mem.GPA(gpa), b[:]) != nil {
			break
		}
		e.Code = append(e.Code, b[0])
	}
	return e
}
