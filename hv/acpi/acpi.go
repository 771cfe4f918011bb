// Package acpi builds the ACPI tables of a machine: RSDP, XSDT, FADT, FACS,
// MADT and a DSDT in AML, made without a compiler.
//
// The tables come as one blob that is laid out for address 0, with the list of
// places where an address has to be added and a checksum made. So one set
// serves both ways of booting: Load puts it into guest memory, and Script tells
// firmware how to do so itself (QEMU docs/specs/fw_cfg.rst, etc/table-loader).
package acpi

import (
	"encoding/binary"
	"fmt"

	"vmd/hv/mem"
)

// Window is a range of addresses that PCI devices can be found in. Its zero
// value is none.
type Window struct {
	Base mem.GPA
	Size uint64
}

// Config says what the machine has.
type Config struct {
	CPUs int // 1 to MaxCPUs; APIC ids count from 0

	MMIO32 Window // below 4 GiB, required
	MMIO64 Window

	// Links are the interrupts behind LNKA to LNKD, 3 to 23. All zero stands
	// for 10, 10, 11, 11. INTA of slot n is on link (n-1)&3.
	Links [4]uint32

	FWCfg   bool // fw_cfg ports at 0x510
	PVPanic bool // pvpanic port at 0x505
}

// MaxCPUs is how many processors the tables can list.
const MaxCPUs = 1024

// Pointer is a place in the blob that holds an offset in the blob, to which the
// blob's address has to be added. Size is 4 or 8 bytes.
type Pointer struct{ Offset, Size int }

// Checksum is a place in the blob for the byte that makes Length bytes from
// Start add up to 0. The byte itself is 0 until then.
type Checksum struct{ Offset, Start, Length int }

// Tables is a set of tables laid out for address 0.
type Tables struct {
	Blob      []byte // everything but the RSDP; belongs at a multiple of 64
	Pointers  []Pointer
	Checksums []Checksum

	// RSDP points at the XSDT at RSDPPointer and has its checksums at
	// RSDPChecksums; they are not in the lists above, which are about Blob.
	RSDP []byte
}

// Fixups of the RSDP (acpi 6.5, 5.2.5.3).
var (
	RSDPPointer   = Pointer{24, 8}
	RSDPChecksums = [2]Checksum{{8, 0, 20}, {32, 0, rsdpSize}}
)

const (
	rsdpSize   = 36
	headerSize = 36
	alignment  = 64 // FACS needs it (acpi 6.5, 5.2.10)
)

// Build makes the tables.
func Build(c Config) (*Tables, error) {
	if c.Links == [4]uint32{} {
		c.Links = [4]uint32{10, 10, 11, 11}
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("acpi tables: %w", err)
	}
	t := new(Tables)
	facs := t.add(buildFACS())
	dsdt := t.addTable(table("DSDT", 2, c.dsdt()))
	fadt := t.addTable(buildFADT())
	madt := t.addTable(c.madt())
	t.point(fadt+fadtFACS, 4, facs)
	t.point(fadt+fadtDSDT, 4, dsdt)
	t.point(fadt+fadtXDSDT, 8, dsdt)
	xsdt := t.addTable(table("XSDT", 1, make([]byte, 16)))
	t.point(xsdt+headerSize, 8, fadt)
	t.point(xsdt+headerSize+8, 8, madt)
	t.RSDP = buildRSDP(xsdt)
	return t, nil
}

func (c *Config) check() error {
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return fmt.Errorf("%d CPUs, want 1 to %d", c.CPUs, MaxCPUs)
	}
	if w := c.MMIO32; w.Size == 0 || uint64(w.Base) >= 1<<32 || w.Size > 1<<32-uint64(w.Base) {
		return fmt.Errorf("32-bit PCI window %#x+%#x", w.Base, w.Size)
	}
	if w := c.MMIO64; w.Size > 0 && uint64(w.Base)+w.Size-1 < uint64(w.Base) {
		return fmt.Errorf("64-bit PCI window %#x+%#x", w.Base, w.Size)
	}
	for i, l := range c.Links {
		if l < 3 || l > 23 {
			return fmt.Errorf("link %c on interrupt %d, want 3 to 23", 'A'+i, l)
		}
	}
	return nil
}

// add appends b at the next multiple of the alignment and returns where it is.
func (t *Tables) add(b []byte) int {
	for len(t.Blob)%alignment != 0 {
		t.Blob = append(t.Blob, 0)
	}
	at := len(t.Blob)
	t.Blob = append(t.Blob, b...)
	return at
}

func (t *Tables) addTable(b []byte) int {
	at := t.add(b)
	t.Checksums = append(t.Checksums, Checksum{at + 9, at, len(b)})
	return at
}

func (t *Tables) point(at, size, to int) {
	binary.LittleEndian.PutUint32(t.Blob[at:], uint32(to))
	t.Pointers = append(t.Pointers, Pointer{at, size})
}

// Load writes the tables into guest memory: the RSDP at rsdp, which must be a
// multiple of 16, the others after it. It returns the first address after them.
// A guest looks for the RSDP between 0xe0000 and 0xfffff (acpi 6.5, 5.2.5.1).
func (t *Tables) Load(m *mem.Memory, rsdp mem.GPA) (end mem.GPA, err error) {
	base := (rsdp + rsdpSize + alignment - 1) &^ (alignment - 1)
	end = base + mem.GPA(len(t.Blob))
	if rsdp%16 != 0 || uint64(end) > 1<<32 {
		return 0, fmt.Errorf("load acpi tables at %#x: not an address for them", rsdp)
	}
	blob, r := t.At(base)
	if err := m.Write(base, blob); err != nil {
		return 0, fmt.Errorf("load acpi tables: %d bytes at %#x: %w", len(blob), base, err)
	}
	if err := m.Write(rsdp, r); err != nil {
		return 0, fmt.Errorf("load acpi tables: rsdp at %#x: %w", rsdp, err)
	}
	return end, nil
}

// At returns copies of the blob and of the RSDP as they have to be with the
// blob at base.
func (t *Tables) At(base mem.GPA) (blob, rsdp []byte) {
	blob = append([]byte(nil), t.Blob...)
	rsdp = append([]byte(nil), t.RSDP...)
	for _, p := range t.Pointers {
		p.apply(blob, base)
	}
	for _, c := range t.Checksums {
		c.apply(blob)
	}
	RSDPPointer.apply(rsdp, base)
	for _, c := range RSDPChecksums {
		c.apply(rsdp)
	}
	return blob, rsdp
}

func (p Pointer) apply(b []byte, base mem.GPA) {
	le := binary.LittleEndian
	if p.Size == 8 {
		le.PutUint64(b[p.Offset:], le.Uint64(b[p.Offset:])+uint64(base))
		return
	}
	le.PutUint32(b[p.Offset:], le.Uint32(b[p.Offset:])+uint32(base))
}

func (c Checksum) apply(b []byte) {
	var sum byte
	for _, v := range b[c.Start : c.Start+c.Length] {
		sum += v
	}
	b[c.Offset] -= sum
}
