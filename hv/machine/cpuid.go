package machine

import (
	"math/bits"

	"vmd/hv/kvm"
	"vmd/hv/sev"
)

// cpuTopology is what the CPUID of one vCPU says about its place: one package,
// one thread per core.
type cpuTopology struct {
	id, count int
	tscKHz    int
	deadline  bool // KVM_CAP_TSC_DEADLINE_TIMER
	sev       sev.Kind
}

// KVM's leaves (Documentation/virt/kvm/x86/cpuid.rst).
const (
	leafKVM       = 0x40000000
	leafKVMFlags  = 0x40000001
	leafKVMTiming = 0x40000010 // TSC and bus kHz, VMware's invention that Linux and SeaBIOS read
	busKHz        = 1_000_000  // KVM's local APIC counts nanoseconds

	// Further hypervisors announce themselves at steps of this.
	nextHypervisor = 0x100
)

// signatures are the hypervisors that a vCPU says it runs on.
type signatures uint8

const (
	kvmOnly signatures = iota
	// openBSDFirst puts OpenBSD's vmm(4) before KVM. OpenBSD's boot program
	// looks at the first only, and then uses the serial port by itself (OpenBSD
	// sys/arch/amd64/stand/libsa/machdep.c); kernels look for the one they know.
	openBSDFirst
)

// openBSDLeaf is "OpenBSDVMM58", with no leaves after it that say anything.
var openBSDLeaf = kvm.CPUIDEntry{
	Function: leafKVM, EAX: leafKVM + 1, EBX: 0x6e65704f, ECX: 0x56445342, EDX: 0x38354d4d,
}

// brand is what leaves 0x80000002-4 spell: KVM may leave them empty.
const brand = "vmd virtual CPU"

// guestCPUID edits host, what KVM can offer, into what one vCPU answers. host
// is not changed.
func guestCPUID(host []kvm.CPUIDEntry, t cpuTopology, s signatures) []kvm.CPUIDEntry {
	out := make([]kvm.CPUIDEntry, 0, len(host)+2)
	var base uint32 // of KVM's leaves, from leafKVM
	if s == openBSDFirst {
		base = nextHypervisor
		out = append(out, openBSDLeaf)
	}
	for _, e := range host {
		switch {
		case e.Function >= leafKVM && e.Function < leafKVM+0x100 && e.Function > leafKVMFlags:
			continue // replaced below
		case e.Function == 0x80000026:
			continue // AMD's extended topology; 0xb says it all
		}
		editCPUID(&e, t)
		if e.Function == leafKVM || e.Function == leafKVMFlags {
			e.Function += base
		}
		if e.Function == leafKVM+base {
			e.EAX += base // the highest leaf
		}
		out = append(out, e)
	}
	return append(out, kvm.CPUIDEntry{Function: leafKVMTiming + base, EAX: uint32(t.tscKHz), EBX: busKHz})
}

// physBits is how many address bits a guest's processors have (leaf
// 0x80000008).
func physBits(host []kvm.CPUIDEntry) int {
	for _, e := range host {
		if e.Function == 0x80000008 {
			return int(e.EAX & 0xff)
		}
	}
	return 36
}

// editCPUID changes one leaf. Numbers of bits are as in Intel SDM vol. 2,
// CPUID, and AMD64 vol. 3, appendix E.
func editCPUID(e *kvm.CPUIDEntry, t cpuTopology) {
	n := uint32(t.count)
	switch e.Function {
	case 1:
		// Initial APIC id, logical processors, CLFLUSH size as it was.
		e.EBX = e.EBX&0xffff | min(n, 255)<<16 | uint32(t.id)<<24
		e.ECX = e.ECX&^(1<<3|1<<5) | 1<<31 // no MONITOR, no VMX; a hypervisor
		if t.deadline {
			e.ECX |= 1 << 24
		}
		setBit(&e.EDX, 28, n > 1) // HTT: the count above is valid
	case 4, 0x8000001d:
		editCache(e, n)
	case 5: // MONITOR/MWAIT
		clearLeaf(e)
	case 6:
		clearLeaf(e)
		e.EAX = 1 << 2 // ARAT: the APIC timer never stops
	case 0xa: // performance monitoring
		clearLeaf(e)
	case 0xb, 0x1f:
		editX2APIC(e, t)
	case leafKVM:
		e.EAX = leafKVMTiming
	case 0x80000001:
		e.ECX &^= 1 << 2         // no SVM
		setBit(&e.ECX, 1, n > 1) // CmpLegacy: the count in leaf 1 is of cores
	case 0x80000002, 0x80000003, 0x80000004:
		editBrand(e)
	case 0x80000008:
		e.ECX = e.ECX&^0xf0ff | (n-1)&0xff | coreBits(t.count)<<12
	case 0x8000001e:
		e.EAX, e.EBX, e.ECX, e.EDX = uint32(t.id), uint32(t.id)&0xff, 0, 0
	case leafSEV:
		cpu := sev.CPU{Features: e.EAX, Layout: e.EBX}
		clearLeaf(e)
		e.EAX, e.EBX = cpu.Guest(t.sev)
	}
}

// editCache makes each core own its caches but the last level, which all share.
func editCache(e *kvm.CPUIDEntry, n uint32) {
	if e.EAX&0x1f == 0 {
		return // no more caches
	}
	e.EAX &= 1<<14 - 1 // sharing and cores go
	if level := e.EAX >> 5 & 7; level >= 3 {
		e.EAX |= (n - 1) & 0xfff << 14
	}
	if e.Function == 4 {
		e.EAX |= min(n-1, 63) << 26
	}
}

// editX2APIC gives the two levels of leaf 0xb: a thread, and n cores.
func editX2APIC(e *kvm.CPUIDEntry, t cpuTopology) {
	e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, e.Index&0xff, uint32(t.id)
	switch e.Index {
	case 0:
		e.EBX, e.ECX = 1, e.ECX|1<<8
	case 1:
		e.EAX, e.EBX, e.ECX = coreBits(t.count), uint32(t.count), e.ECX|2<<8
	}
}

// editBrand writes sixteen bytes of brand where the host had none.
func editBrand(e *kvm.CPUIDEntry) {
	if e.EAX|e.EBX|e.ECX|e.EDX != 0 || e.Function != 0x80000002 {
		return
	}
	var s [16]byte
	copy(s[:], brand)
	for i, r := range []*uint32{&e.EAX, &e.EBX, &e.ECX, &e.EDX} {
		*r = uint32(s[4*i]) | uint32(s[4*i+1])<<8 | uint32(s[4*i+2])<<16 | uint32(s[4*i+3])<<24
	}
}

// coreBits is how many bits of an APIC id number the cores.
func coreBits(n int) uint32 { return uint32(bits.Len(uint(n - 1))) }

func clearLeaf(e *kvm.CPUIDEntry) { e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0 }

func setBit(r *uint32, bit int, on bool) {
	*r &^= 1 << bit
	if on {
		*r |= 1 << bit
	}
}
