package boot

import (
	"encoding/binary"

	"vmd/hv/mem"
)

// Mode is the processor mode that a kernel is entered in.
type Mode uint8

// Modes of Entry.
const (
	Prot32 Mode = 1 + iota // flat 32-bit protected mode, paging off
	Long64                 // 64-bit mode, the first 4 GiB mapped one to one
)

// Segment is a segment register with its hidden part, field by field as
// KVM_SET_SREGS takes it.
type Segment struct {
	Base          uint64
	Limit         uint32
	Selector      uint16
	Type          uint8
	Present, DPL  uint8
	DB, S, L, G   uint8
	AVL, Unusable uint8
}

// Entry is the state of the first vCPU when it starts. Registers that are not
// named here are 0. Interrupts are off, the IDT is empty.
type Entry struct {
	Mode   Mode
	Format string // what was found: "bzImage", "PVH", OpenBSD, "multiboot", "multiboot2", "ELF"

	RIP, RSP, RAX, RBX, RSI, RFLAGS uint64

	CR0, CR3, CR4, EFER uint64

	GDT      mem.GPA
	GDTLimit uint16

	CS   Segment
	Data Segment // DS, ES, FS, GS, SS
	TR   Segment
	LDT  Segment
}

// Bits of control registers (Intel SDM vol. 3, 2.5; AMD64 vol. 2, 3.1).
const (
	cr0PE = 1 << 0
	cr0MP = 1 << 1
	cr0ET = 1 << 4
	cr0NE = 1 << 5
	cr0PG = 1 << 31

	cr4PAE = 1 << 5

	eferLME = 1 << 8
	eferLMA = 1 << 10

	rflagsFixed = 1 << 1
)

const (
	selCode = 0x10
	selData = 0x18
	selTSS  = 0x20
)

// The GDT: null, null, code, data, TSS. Linux wants code at 0x10 and data at
// 0x18 (arch/x86/boot.rst, 64-bit boot protocol: __BOOT_CS, __BOOT_DS).
const (
	gdtCode64 = 0x00af9a000000ffff
	gdtCode32 = 0x00cf9a000000ffff
	gdtData   = 0x00cf92000000ffff
	gdtTSS    = 0x00008b0000000067
)

const (
	typeCode    = 11 // execute, read, accessed
	typeData    = 3  // read, write, accessed
	typeTSSBusy = 11
	typeLDT     = 2
)

func flat(sel uint16, typ uint8) Segment {
	return Segment{Limit: 0xffffffff, Selector: sel, Type: typ, Present: 1, S: 1, G: 1}
}

// segments fills the parts of an entry that all protocols share, and writes the
// GDT that goes with them.
func (l *loader) segments(e *Entry, code uint64) error {
	e.RFLAGS = rflagsFixed
	e.RSP = uint64(stackTop)
	e.CS, e.Data = flat(selCode, typeCode), flat(selData, typeData)
	e.Data.DB = 1
	e.TR = Segment{Limit: 0x67, Selector: selTSS, Type: typeTSSBusy, Present: 1}
	e.LDT = Segment{Type: typeLDT, Unusable: 1}
	var gdt [7]uint64 // a TSS descriptor is two entries wide in long mode
	gdt[selCode/8], gdt[selData/8], gdt[selTSS/8] = code, gdtData, gdtTSS
	e.GDT, e.GDTLimit = gdtAddr, 8*uint16(len(gdt))-1
	return l.put(gdtAddr, words(gdt[:]))
}

func (l *loader) prot32() (Entry, error) {
	e := Entry{Mode: Prot32, CR0: cr0PE | cr0ET}
	err := l.segments(&e, gdtCode32)
	e.CS.DB = 1
	return e, err
}

func (l *loader) long64() (Entry, error) {
	e := Entry{
		Mode: Long64,
		CR0:  cr0PE | cr0MP | cr0ET | cr0NE | cr0PG,
		CR3:  uint64(pml4Addr),
		CR4:  cr4PAE,
		EFER: eferLME | eferLMA,
	}
	if err := l.segments(&e, gdtCode64); err != nil {
		return e, err
	}
	e.CS.L = 1
	return e, l.pageTables()
}

const (
	ptePresentRW = 3
	pdeLarge     = 0x80
)

// pageTables maps the first 4 GiB one to one with 2 MiB pages: one PML4, one
// PDPT, four page directories. A guest with encrypted memory finds all of it
// encrypted there; what it shares with devices it maps by itself.
func (l *loader) pageTables() error {
	const entries, dirs = pageSize / 8, 4
	bits := ptePresentRW | l.CBit
	var t [(2 + dirs) * entries]uint64
	t[0] = uint64(pml4Addr+pageSize) | bits
	for i := range dirs {
		t[entries+i] = uint64(pml4Addr+mem.GPA(2+i)*pageSize) | bits
	}
	for i := range dirs * entries {
		t[2*entries+i] = uint64(i)<<21 | bits | pdeLarge
	}
	return l.put(pml4Addr, words(t[:]))
}

func words(w []uint64) []byte {
	b := make([]byte, 0, 8*len(w))
	for _, v := range w {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
