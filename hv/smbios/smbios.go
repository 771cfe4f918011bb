// Package smbios builds the tables by which a machine tells its guest who it
// is: its UUID and name above all. Linux shows them under /sys/class/dmi/id.
//
// As in hv/acpi the tables are made without an address, so that they serve a
// direct boot (Load) and firmware (fw_cfg's etc/smbios files) alike.
package smbios

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"vmd/hv/mem"
)

// Config says what the tables tell. Strings are cut to 64 bytes; bytes that are
// not printable ASCII become '?'.
type Config struct {
	UUID    [16]byte // in the order in which it is written down
	Product string   // "VMM" if empty
	Version string
	Serial  string
	// OEM are the OEM strings (type 11), which software in the guest may use
	// as it likes. At most 16.
	OEM []string

	CPUs                  int
	LowMemory, HighMemory uint64 // bytes of RAM below and above 4 GiB
}

// Tables is an entry point and the structures that it points to.
type Tables struct {
	Anchor []byte // SMBIOS 2.8 entry point, its address and checksums not filled in
	Blob   []byte
}

// Offsets in the entry point (DMTF DSP0134 2.8, 5.2.1).
const (
	anchorSize     = 31
	anchorSum      = 4
	anchorInter    = 16
	anchorInterSum = 21
	anchorAddr     = 24
	maxStrings     = 16
	maxString      = 64
	maxMemory      = 1 << 52
)

const manufacturer = "vmd"

// Handles of structures that others refer to.
const (
	handleBIOS     = 0x0000
	handleSystem   = 0x0100
	handleChassis  = 0x0300
	handleCPU      = 0x0400
	handleOEM      = 0x0b00
	handleArray    = 0x1000
	handleDIMM     = 0x1100
	handleArrayMap = 0x1300
	handleBoot     = 0x2000
	handleEnd      = 0x7f00
	handleNone     = 0xfffe // "not provided"
)

var le = binary.LittleEndian

// Build makes the tables.
func Build(c Config) (*Tables, error) {
	if c.CPUs < 1 || c.CPUs > 1<<16-1 || c.LowMemory > 1<<32 || c.HighMemory > maxMemory || len(c.OEM) > maxStrings {
		return nil, fmt.Errorf("smbios tables: %d CPUs, %d+%d bytes, %d OEM strings: out of range", c.CPUs, c.LowMemory, c.HighMemory, len(c.OEM))
	}
	if c.Product == "" {
		c.Product = "VMM"
	}
	b := new(builder)
	b.bios(&c)
	b.system(&c)
	b.chassis()
	b.cpu(&c)
	if len(c.OEM) > 0 {
		b.add(11, handleOEM, []byte{byte(len(c.OEM))}, c.OEM...)
	}
	b.memory(&c)
	b.add(32, handleBoot, make([]byte, 7)) // no errors detected
	b.add(127, handleEnd, nil)
	return &Tables{Anchor: b.anchor(), Blob: b.blob}, nil
}

// Load writes the entry point to gpa, where a guest finds it if that is a
// multiple of 16 in 0xf0000-0xfffff, and the structures after it. It returns the
// first address after them.
func (t *Tables) Load(m *mem.Memory, gpa mem.GPA) (end mem.GPA, err error) {
	at := gpa + (anchorSize+15)&^15
	end = at + mem.GPA(len(t.Blob))
	if gpa%16 != 0 || gpa < 0xf0000 || end > 0x100000 {
		return 0, fmt.Errorf("load smbios tables at %#x: %d bytes do not lie in 0xf0000-0xfffff", gpa, len(t.Blob))
	}
	if err := errors.Join(m.Write(at, t.Blob), m.Write(gpa, t.At(at))); err != nil {
		return 0, fmt.Errorf("load smbios tables at %#x: %w", gpa, err)
	}
	return end, nil
}

// At returns the entry point as it has to be with the structures at gpa, below
// 4 GiB.
func (t *Tables) At(gpa mem.GPA) []byte {
	a := append([]byte(nil), t.Anchor...)
	le.PutUint32(a[anchorAddr:], uint32(gpa))
	a[anchorInterSum] = -sum(a[anchorInter:])
	a[anchorSum] = -sum(a)
	return a
}

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

// builder collects structures.
type builder struct {
	blob    []byte
	count   int
	longest int
}

// add appends one structure: header, fields after the header, and the strings
// that the fields refer to by number, from 1 (DSP0134, 6.1.2, 6.1.3).
func (b *builder) add(typ byte, handle uint16, fields []byte, strs ...string) {
	start := len(b.blob)
	b.blob = append(b.blob, typ, byte(4+len(fields)), byte(handle), byte(handle>>8))
	b.blob = append(b.blob, fields...)
	for _, s := range strs {
		b.blob = append(append(b.blob, clean(s)...), 0)
	}
	if len(strs) == 0 {
		b.blob = append(b.blob, 0)
	}
	b.blob = append(b.blob, 0)
	b.count++
	b.longest = max(b.longest, len(b.blob)-start)
}

// clean makes a string that can stand in a table. An empty one would end the
// list of strings.
func clean(s string) string {
	if s == "" {
		return " "
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), maxString)])
}

func (b *builder) anchor() []byte {
	a := make([]byte, anchorSize)
	copy(a, "_SM_")
	a[5] = anchorSize
	a[6], a[7] = 2, 8
	le.PutUint16(a[8:], uint16(b.longest))
	copy(a[anchorInter:], "_DMI_")
	le.PutUint16(a[22:], uint16(len(b.blob)))
	le.PutUint16(a[28:], uint16(b.count))
	a[30] = 0x28
	return a
}
