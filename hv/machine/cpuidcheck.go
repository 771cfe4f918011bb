package machine

import (
	"fmt"

	"vmd/hv/kvm"
)

// cpuidRule says how the answers of a leaf that a guest has been given, and
// those that this host would give, may differ.
type cpuidRule uint8

const (
	// A guest may have bits that the host has, and no others. It is the rule
	// for every register of every leaf that is not in cpuidRules: what is not
	// known here is not let in.
	subset cpuidRule = iota
	// Names, counts and sizes that describe, and that nothing depends on.
	free
	// Both must be the same.
	equal
)

// cpuidRules has a rule for EAX, EBX, ECX and EDX of leaves (Intel SDM vol. 2,
// CPUID; AMD64 vol. 3, appendix E).
var cpuidRules = map[uint32][4]cpuidRule{
	0x00: {free, equal, equal, equal},      // highest leaf; who made the processor
	0x01: {free, free, subset, subset},     // model; APIC id; features
	0x02: {free, free, free, free},         // caches
	0x03: {free, free, free, free},         // serial number
	0x04: {free, free, free, free},         // caches
	0x07: {subset, subset, subset, subset}, // features; see leafRules
	0x0b: {free, free, free, free},         // topology
	0x15: {free, free, free, free},         // clock rates
	0x16: {free, free, free, free},
	0x1f: {free, free, free, free}, // topology

	leafKVM:       {free, free, free, free}, // highest leaf; who the hypervisor says it is
	leafKVMTiming: {free, free, free, free},

	0x80000000: {free, equal, equal, equal},
	0x80000002: {free, free, free, free}, // brand
	0x80000003: {free, free, free, free},
	0x80000004: {free, free, free, free},
	0x80000005: {free, free, free, free}, // caches
	0x80000006: {free, free, free, free},
	0x80000008: {free, subset, free, free}, // address bits are looked at by fits; features; counts
	0x8000000a: {free, free, free, subset}, // of SVM, which guests have not got
	0x80000019: {free, free, free, free},   // caches
	0x8000001a: {free, free, free, free},   // hints
	0x8000001d: {free, free, free, free},   // caches
	0x8000001e: {free, free, free, free},   // topology
	0x80000021: {subset, free, free, free}, // features; microcode
}

// leafRules is the rule for one leaf and sub-leaf.
func leafRules(function, index uint32) [4]cpuidRule {
	switch {
	case function == 0x07 && index == 0:
		return [4]cpuidRule{free, subset, subset, subset} // highest sub-leaf
	case function == 0x0d && index == 0:
		return [4]cpuidRule{subset, free, free, subset} // XCR0; sizes
	case function == 0x0d && index == 1:
		return [4]cpuidRule{subset, free, subset, subset} // features; size; XSS
	case function == 0x0d:
		return [4]cpuidRule{equal, equal, equal, equal} // where XSAVE puts a part
	}
	return cpuidRules[function]
}

// offers says which answer to CPUID that a guest has been given this host could
// not give it: its programs may have made up their minds by it. host is what KVM
// can do, of which a guest is given no more than what guestCPUID leaves, so that
// nobody who made up sent has more either.
func offers(host, sent []kvm.CPUIDEntry, t cpuTopology) error {
	who, base := kvmOnly, uint32(0)
	for _, e := range sent {
		if e.Function == leafKVM+nextHypervisor {
			who, base = openBSDFirst, nextHypervisor
		}
	}
	here := guestCPUID(host, t, who)
	for _, e := range sent {
		rules := leafRules(e.Function, e.Index)
		if base != 0 && e.Function >= leafKVM+base && e.Function < leafKVM+2*base {
			rules = leafRules(e.Function-base, e.Index)
		}
		if err := offersLeaf(e, leafOf(here, e.Function, e.Index), rules); err != nil {
			return err
		}
	}
	return nil
}

// leafOf is what entries answer: zeros where there is nothing.
func leafOf(entries []kvm.CPUIDEntry, function, index uint32) kvm.CPUIDEntry {
	for _, e := range entries {
		if e.Function == function && e.Index == index {
			return e
		}
	}
	return kvm.CPUIDEntry{Function: function, Index: index}
}

// offersLeaf compares one leaf. One that is all zeros says nothing.
func offersLeaf(sent, here kvm.CPUIDEntry, rules [4]cpuidRule) error {
	s := [4]uint32{sent.EAX, sent.EBX, sent.ECX, sent.EDX}
	h := [4]uint32{here.EAX, here.EBX, here.ECX, here.EDX}
	if s == ([4]uint32{}) {
		return nil
	}
	for i, name := range [4]string{"EAX", "EBX", "ECX", "EDX"} {
		lacks := s[i] &^ h[i]
		if rules[i] == equal {
			lacks = s[i] ^ h[i]
		}
		if rules[i] != free && lacks != 0 {
			return fmt.Errorf("guest was told by CPUID leaf %#x, sub-leaf %d, that %s is %#x; this host has %#x: bits %#x differ",
				sent.Function, sent.Index, name, s[i], h[i], lacks)
		}
	}
	return nil
}

// withID is entries, made for the first vCPU, as the vCPU with number id answers
// them: what editCPUID makes of a cpuTopology's id.
func withID(entries []kvm.CPUIDEntry, id int) []kvm.CPUIDEntry {
	out := append([]kvm.CPUIDEntry(nil), entries...)
	for i := range out {
		switch e := &out[i]; e.Function {
		case 1:
			e.EBX = e.EBX&^(0xff<<24) | uint32(id)<<24
		case 0xb, 0x1f:
			e.EDX = uint32(id)
		case 0x8000001e:
			e.EAX, e.EBX = uint32(id), e.EBX&^0xff|uint32(id)&0xff
		}
	}
	return out
}
