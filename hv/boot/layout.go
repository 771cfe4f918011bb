package boot

import (
	"slices"

	"vmd/hv/mem"
)

// Where boot data go. All of it lies in the first 640 KiB, which the e820 map
// calls RAM: a kernel copies what it needs before it uses that memory.
const (
	gdtAddr       mem.GPA = 0x500
	startInfoAddr mem.GPA = 0x6000 // PVH start_info, module list after it
	modListAddr   mem.GPA = 0x6040
	zeroPageAddr  mem.GPA = 0x7000 // Linux boot_params, or the PVH memory map
	setupDataAddr mem.GPA = 0x8000
	pml4Addr      mem.GPA = 0x9000 // page tables up to 0xf000
	stackTop      mem.GPA = 0x1f000
	cmdlineAddr   mem.GPA = 0x20000
	cmdlineMax            = 0xffff // without its NUL
	ebdaAddr      mem.GPA = 0x9fc00
	tablesAddr    mem.GPA = 0xe0000 // ACPI's and SMBIOS's, put there by others
	highMem       mem.GPA = 0x100000
	fourGiB       mem.GPA = 1 << 32
)

const (
	pageSize  = 4096
	minMemory = 2 << 20
	maxSeed   = 512
)

// RangeType is the kind of a Range, numbered as in the e820 map.
type RangeType uint32

// Kinds of ranges (acpi 6.5, 15.1).
const (
	RAM      RangeType = 1
	Reserved RangeType = 2
	ACPI     RangeType = 3
)

// Range is one entry of the memory map that a guest is told of.
type Range struct {
	Addr mem.GPA
	Size uint64
	Type RangeType
}

// E820 returns the memory map of a directly booted guest with memory m: all its
// RAM, less the EBDA and everything from there to 1 MiB, where firmware tables
// live.
func E820(m *mem.Memory) []Range {
	var out []Range
	for _, r := range m.Regions() {
		base, end := r.Base, r.Base+mem.GPA(len(r.Bytes))
		if base < highMem {
			if base < ebdaAddr {
				out = append(out, Range{base, uint64(min(end, ebdaAddr) - base), RAM})
			}
			if base = highMem; base >= end {
				continue
			}
		}
		out = append(out, Range{base, uint64(end - base), RAM})
	}
	if len(out) > 0 && out[0].Addr == 0 {
		out = slices.Insert(out, 1, Range{ebdaAddr, uint64(highMem - ebdaAddr), Reserved})
	}
	return out
}

// withTables is m with the firmware area told apart, as ACPI's. Linux takes what
// is reserved for a device's, and reads it as if it were not encrypted
// (arch/x86/mm/ioremap.c, __ioremap_check_encrypted).
func withTables(m []Range) []Range {
	var out []Range
	for _, r := range m {
		end := r.Addr + mem.GPA(r.Size)
		if r.Type == Reserved && r.Addr < tablesAddr && end == highMem {
			out = append(out, Range{r.Addr, uint64(tablesAddr - r.Addr), Reserved})
			r = Range{tablesAddr, uint64(end - tablesAddr), ACPI}
		}
		out = append(out, r)
	}
	return out
}

func alignUp(a mem.GPA, n uint64) mem.GPA   { return (a + mem.GPA(n-1)) &^ mem.GPA(n-1) }
func alignDown(a mem.GPA, n uint64) mem.GPA { return a &^ mem.GPA(n-1) }

// mib rounds up, so that a message never asks for less than is needed.
func mib(n uint64) uint64 { return n>>20 + min(n&(1<<20-1), 1) }
