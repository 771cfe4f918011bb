package machine

import "vmd/hv/mem"

// Version numbers the machine that a guest sees: slots, ids, tables, CPUID. It
// goes up with any change that a guest could notice, and with any change of the
// state that a machine sends: testdata/abi.v1 says what is in it.
const Version = 1

// The guest's physical address space.
//
//	0          - lowEnd      RAM, at most up to the PCI window
//	0xe0000    - 0xfffff     RAM; ACPI and SMBIOS tables of a direct boot
//	0xc0000000 - 0xfebfffff  32-bit PCI window
//	0xfec00000               IOAPIC
//	0xfee00000               local APIC, messages
//	0xfeffc000               KVM's own page and TSS pages (Intel hosts)
//	0xffc00000 - 0xffffffff  firmware, as much as it needs of it
//	4 GiB      -             the rest of RAM, then the 64-bit PCI window
const (
	lowEnd       mem.GPA = 0xc000_0000
	pciWindowEnd mem.GPA = 0xfec0_0000
	highBase     mem.GPA = 1 << 32

	identityAddr mem.GPA = 0xfeff_c000
	tssAddr      mem.GPA = 0xfeff_d000

	rsdpAddr   mem.GPA = 0xe_0000
	smbiosAddr mem.GPA = 0xf_0000
)

const (
	gib = 1 << 30
	// maxPhysBits bounds the 64-bit PCI window: guests with four levels of page
	// tables reach no further.
	maxPhysBits = 46
)

// Interrupt numbers (GSI) of the parts on the board.
const (
	irqCOM1 = 4
	irqRTC  = 8
	irqSCI  = 9
)

// ramRanges says where a guest with size bytes of memory has them.
func ramRanges(size uint64) []mem.Range {
	if size <= uint64(lowEnd) {
		return []mem.Range{{Base: 0, Size: size}}
	}
	return []mem.Range{{Base: 0, Size: uint64(lowEnd)}, {Base: highBase, Size: size - uint64(lowEnd)}}
}
