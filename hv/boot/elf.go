package boot

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"vmd/hv/mem"
)

// ELF constants (System V ABI, chapters 4 and 5).
const (
	elfMagic     = "\x7fELF"
	elfClass32   = 1
	elfClass64   = 2
	elfLittle    = 1
	emI386       = 3
	emX86_64     = 62
	etExec       = 2
	etDyn        = 3
	ptLoad       = 1
	ptNote       = 4
	ehdr32Size   = 52
	ehdr64Size   = 64
	phdr32Size   = 32
	phdr64Size   = 56
	maxSegments  = 128
	maxNoteBytes = 64 << 10
)

// ptOpenBSDRandomize marks the program header that OpenBSD's loader fills with
// random bytes (OpenBSD sys/exec_elf.h, PT_OPENBSD_RANDOMIZE).
const ptOpenBSDRandomize = 0x65a3dbe6

// elfFile is what loading needs to know of an ELF file. Section headers are
// not among it: they are of no use to a loader and may lie.
type elfFile struct {
	class byte
	entry uint64
	segs  []segment // by file offset, so that a stream is read in order
}

type segment struct {
	typ          uint32
	off, filesz  uint64
	paddr, memsz uint64
	align        uint64
}

func isELF(i Image) bool {
	var magic [4]byte
	return i.read(magic[:], 0) == nil && string(magic[:]) == elfMagic
}

// parseELF reads the headers of an ELF file and checks them against its size.
func parseELF(i Image) (*elfFile, error) {
	var h [ehdr64Size]byte
	if err := i.read(h[:ehdr32Size], 0); err != nil {
		return nil, fmt.Errorf("ELF header: %w", err)
	}
	f := &elfFile{class: h[4]}
	if f.class == elfClass64 {
		if err := i.read(h[:], 0); err != nil {
			return nil, fmt.Errorf("ELF header: %w", err)
		}
	}
	le := binary.LittleEndian
	typ, machine := le.Uint16(h[16:]), le.Uint16(h[18:])
	var phoff uint64
	var phentsize, phnum, want uint16
	switch {
	case h[5] != elfLittle:
		return nil, fmt.Errorf("ELF image is not little-endian")
	case typ != etExec && typ != etDyn:
		return nil, fmt.Errorf("ELF image of type %d is not an executable", typ)
	case f.class == elfClass32 && machine == emI386:
		f.entry, phoff = uint64(le.Uint32(h[24:])), uint64(le.Uint32(h[28:]))
		phentsize, phnum, want = le.Uint16(h[42:]), le.Uint16(h[44:]), phdr32Size
	case f.class == elfClass64 && machine == emX86_64:
		f.entry, phoff = le.Uint64(h[24:]), le.Uint64(h[32:])
		phentsize, phnum, want = le.Uint16(h[54:]), le.Uint16(h[56:]), phdr64Size
	default:
		return nil, fmt.Errorf("ELF image of class %d for machine %d is not for this guest", f.class, machine)
	}
	if phentsize != want || phnum == 0 || phnum > maxSegments {
		return nil, fmt.Errorf("ELF image has %d program headers of %d bytes, want 1 to %d of %d", phnum, phentsize, maxSegments, want)
	}
	b := make([]byte, int(phnum)*int(want))
	if err := i.read(b, phoff); err != nil {
		return nil, fmt.Errorf("ELF program headers: %w", err)
	}
	return f, f.parseSegments(i, b, int(want))
}

func (f *elfFile) parseSegments(i Image, b []byte, entsize int) error {
	for n := 0; len(b) > 0; n++ {
		s := parsePhdr(b[:entsize])
		b = b[entsize:]
		if s.typ != ptLoad && s.typ != ptNote && s.typ != ptOpenBSDRandomize {
			continue
		}
		if !i.holds(s.off, s.filesz) {
			return fmt.Errorf("ELF segment %d: %d bytes at offset %d lie outside the file of %d bytes", n, s.filesz, s.off, i.Size)
		}
		if s.typ == ptLoad && s.filesz > s.memsz {
			return fmt.Errorf("ELF segment %d: %d bytes in the file, %d in memory", n, s.filesz, s.memsz)
		}
		f.segs = append(f.segs, s)
	}
	slices.SortStableFunc(f.segs, func(a, b segment) int { return cmp.Compare(a.off, b.off) })
	return nil
}

func parsePhdr(b []byte) segment {
	le := binary.LittleEndian
	if len(b) == phdr32Size {
		w := func(i int) uint64 { return uint64(le.Uint32(b[4*i:])) }
		return segment{typ: uint32(w(0)), off: w(1), paddr: w(3), filesz: w(4), memsz: w(5), align: w(7)}
	}
	q := func(off int) uint64 { return le.Uint64(b[off:]) }
	return segment{typ: le.Uint32(b), off: q(8), paddr: q(24), filesz: q(32), memsz: q(40), align: q(48)}
}

// note looks for the first note with that name and type and returns its
// descriptor, or nil.
func (f *elfFile) note(i Image, name string, typ uint32) []byte {
	for _, s := range f.segs {
		if s.typ != ptNote {
			continue
		}
		b := make([]byte, min(s.filesz, maxNoteBytes))
		if i.read(b, s.off) != nil {
			return nil
		}
		if d := findNote(b, s.align, name, typ); d != nil {
			return d
		}
	}
	return nil
}

// findNote walks notes: u32 name size, u32 descriptor size, u32 type, name,
// descriptor, the last two padded to 4 bytes, or 8 in a segment that is aligned
// to 8 (System V ABI, gABI chapter 5).
func findNote(b []byte, align uint64, name string, typ uint32) []byte {
	le := binary.LittleEndian
	pad := uint64(4)
	if align == 8 {
		pad = 8
	}
	for len(b) >= 12 {
		namesz, descsz := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
		desc := (12 + namesz + pad - 1) &^ (pad - 1)
		next := (desc + descsz + pad - 1) &^ (pad - 1)
		if desc+descsz > uint64(len(b)) {
			return nil
		}
		if le.Uint32(b[8:]) == typ && string(b[12:12+namesz]) == name {
			return b[desc : desc+descsz]
		}
		b = b[min(next, uint64(len(b))):]
	}
	return nil
}

// putSegments loads the image, which is to be entered at entry. It returns the
// end of the highest segment.
func (l *loader) putSegments(entry uint64) (end mem.GPA, err error) {
	if !l.inSegment(entry) {
		return 0, fmt.Errorf("entry point %#x is in no segment", entry)
	}
	if err := l.checkSegments(); err != nil {
		return 0, err
	}
	for _, s := range l.elf.segs {
		if s.typ != ptLoad || s.memsz == 0 {
			continue
		}
		at := mem.GPA(s.paddr)
		if err := l.readInto(at, l.Kernel, s.off, s.filesz); err != nil {
			return 0, err
		}
		bss, err := l.Mem.Slice(at+mem.GPA(s.filesz), s.memsz-s.filesz)
		if err != nil {
			return 0, err
		}
		clear(bss)
		l.Loaded(at+mem.GPA(s.filesz), uint64(len(bss)))
		end = max(end, at+mem.GPA(s.memsz))
	}
	if end == 0 {
		return 0, fmt.Errorf("ELF image has nothing to load")
	}
	return end, nil
}

// checkSegments makes sure that each segment lies in RAM above 1 MiB, where no
// boot data are, and on no other segment: so the work is bounded by the RAM.
func (l *loader) checkSegments() error {
	for i, s := range l.elf.segs {
		if s.typ != ptLoad || s.memsz == 0 {
			continue
		}
		if s.paddr < uint64(highMem) {
			return fmt.Errorf("ELF segment at %#x lies below 1 MiB", s.paddr)
		}
		if s.paddr > uint64(l.tolud) || s.memsz > uint64(l.tolud)-s.paddr {
			return fmt.Errorf("needs %d MiB at %#x, guest has %d MiB: %w", mib(s.memsz), s.paddr, l.Mem.Size()>>20, ErrMemory)
		}
		for _, o := range l.elf.segs[:i] {
			if o.typ == ptLoad && o.memsz > 0 && s.paddr < o.paddr+o.memsz && o.paddr < s.paddr+s.memsz {
				return fmt.Errorf("ELF segments at %#x and %#x overlap", o.paddr, s.paddr)
			}
		}
	}
	return nil
}

// inSegment says whether execution can begin at addr.
func (l *loader) inSegment(addr uint64) bool {
	return slices.ContainsFunc(l.elf.segs, func(s segment) bool {
		return s.typ == ptLoad && addr >= s.paddr && addr-s.paddr < s.memsz
	})
}
