package boot

import (
	"encoding/binary"
	"fmt"
	"strings"

	"vmd/hv/mem"
)

// Section headers of an ELF64 file (System V ABI, gABI chapter 4).
const (
	shtSymtab   = 2
	shtStrtab   = 3
	shfAlloc    = 1 << 1
	shdrSize    = 64
	shdrName    = 0
	shdrType    = 4
	shdrFlags   = 8
	shdrOffset  = 24
	shdrBytes   = 32
	ehdrPhoff   = 32
	ehdrShoff   = 40
	ehdrPhentsz = 54
	ehdrPhnum   = 56
	ehdrShentsz = 58
	ehdrShnum   = 60
	ehdrShstr   = 62
	maxSections = 256
	maxNames    = 64 << 10
)

// symbolSections are those that OpenBSD's kernel wants beside symbols and
// strings: ddb(4) shows source lines, dt(4) types.
var symbolSections = map[string]bool{".debug_line": true, ".SUNW_ctf": true}

// sections are an image's section headers, as they will be handed over.
type sections struct {
	ehdr  [ehdr64Size]byte
	shdrs []byte
	names string
}

func (s *sections) count() int        { return len(s.shdrs) / shdrSize }
func (s *sections) shdr(i int) []byte { return s.shdrs[i*shdrSize : (i+1)*shdrSize] }

// putSymbols copies the symbol table to the first multiple of 8 after the
// kernel's end, and returns where it ends: an ELF header, all section headers,
// and the sections that are of use, with their offsets counted from that ELF
// header (OpenBSD sys/lib/libsa/loadfile_elf.c, LOAD_SYM). A stripped kernel
// gets none, and 0.
func (l *loader) putSymbols(end mem.GPA) (esym mem.GPA, err error) {
	s, err := l.readSections()
	if s == nil || err != nil {
		return 0, err
	}
	base := alignUp(end, 8)
	off := uint64(ehdr64Size) + uint64(len(s.shdrs)) // both are multiples of 8
	le := binary.LittleEndian
	for i := range s.count() {
		h := s.shdr(i)
		if !s.wanted(h) {
			continue
		}
		from, n := le.Uint64(h[shdrOffset:]), le.Uint64(h[shdrBytes:])
		if err := l.readInto(base+mem.GPA(off), l.Kernel, from, n); err != nil {
			return 0, fmt.Errorf("section %d: %w", i, err)
		}
		le.PutUint64(h[shdrOffset:], off)
		le.PutUint64(h[shdrFlags:], le.Uint64(h[shdrFlags:])|shfAlloc)
		off = (off + n + 7) &^ 7
	}
	le.PutUint64(s.ehdr[ehdrPhoff:], 0)
	le.PutUint64(s.ehdr[ehdrShoff:], ehdr64Size)
	le.PutUint16(s.ehdr[ehdrPhentsz:], 0)
	le.PutUint16(s.ehdr[ehdrPhnum:], 0)
	if err := l.put(base, append(s.ehdr[:], s.shdrs...)); err != nil {
		return 0, fmt.Errorf("%d bytes at %#x: %w", off, base, ErrMemory)
	}
	return base + mem.GPA(off), nil
}

// readSections reads the section headers and checks what has to be used of
// them. It returns nil for an image without symbols.
func (l *loader) readSections() (*sections, error) {
	s := new(sections)
	if err := l.Kernel.read(s.ehdr[:], 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	n := le.Uint16(s.ehdr[ehdrShnum:])
	if n == 0 {
		return nil, nil
	}
	if size := le.Uint16(s.ehdr[ehdrShentsz:]); size != shdrSize || n > maxSections {
		return nil, fmt.Errorf("%d section headers of %d bytes, want up to %d of %d", n, size, maxSections, shdrSize)
	}
	s.shdrs = make([]byte, int(n)*shdrSize)
	if err := l.Kernel.read(s.shdrs, le.Uint64(s.ehdr[ehdrShoff:])); err != nil {
		return nil, err
	}
	symbols := false
	for i := range s.count() {
		symbols = symbols || le.Uint32(s.shdr(i)[shdrType:]) == shtSymtab
	}
	if !symbols {
		return nil, nil
	}
	return s, s.readNames(l.Kernel)
}

// readNames reads the names of sections, if there are any.
func (s *sections) readNames(i Image) error {
	le := binary.LittleEndian
	n := int(le.Uint16(s.ehdr[ehdrShstr:]))
	if n >= s.count() {
		return nil
	}
	h := s.shdr(n)
	b := make([]byte, min(le.Uint64(h[shdrBytes:]), maxNames))
	if err := i.read(b, le.Uint64(h[shdrOffset:])); err != nil {
		return fmt.Errorf("names of sections: %w", err)
	}
	s.names = string(b)
	return nil
}

// wanted says whether the section with header h is one to hand over.
func (s *sections) wanted(h []byte) bool {
	le := binary.LittleEndian
	if t := le.Uint32(h[shdrType:]); t == shtSymtab || t == shtStrtab {
		return true
	}
	at := le.Uint32(h[shdrName:])
	if uint64(at) >= uint64(len(s.names)) {
		return false
	}
	name, _, _ := strings.Cut(s.names[at:], "\x00")
	return symbolSections[name]
}
