package boot

import (
	"encoding/binary"
	"fmt"

	"vmd/hv/mem"
)

// Multiboot 2 (Multiboot2 Specification 2.0, 3.1 and 3.6).
const (
	mb2Magic  = 0xe85250d6
	mb2Entry  = 0x36d76289 // in EAX
	mb2Search = 32768
	mb2Header = 16 // magic, architecture, length, checksum
	mb2Align  = 8

	// Tags of the header: u16 type, u16 flags, u32 size. One that is not
	// optional has to be understood.
	mb2TagEnd         = 0
	mb2TagRequest     = 1
	mb2TagAddress     = 2
	mb2TagEntry       = 3
	mb2TagConsole     = 4
	mb2TagModuleAlign = 6
	mb2TagRelocatable = 10
	mb2TagHead        = 8
	mb2TagOptional    = 1 << 0

	// Tags of the information: u32 type, u32 size.
	mb2Cmdline  = 1
	mb2Loader   = 2
	mb2Module   = 3
	mb2BasicMem = 4
	mb2MemMap   = 6
	mb2RSDP     = 15 // a copy of one of revision 2
	mb2MapEntry = 24
	rsdpSize    = 36
	mb2InfoAddr = cmdlineAddr // up to the EBDA
)

func (l *loader) findMultiboot2() (off int, head []byte, ok bool) {
	off, head, ok = l.findHeader(mb2Magic, mb2Search, mb2Align, mb2Header/4)
	return off, head, ok && binary.LittleEndian.Uint32(head[4:]) == 0 // i386
}

func (l *loader) isMultiboot2() bool {
	_, _, ok := l.findMultiboot2()
	return ok
}

func (l *loader) loadMultiboot2() (Entry, error) {
	off, head, _ := l.findMultiboot2()
	if l.elf != nil {
		l.mb2entry = uint32(l.elf.entry)
	}
	n := binary.LittleEndian.Uint32(head[8:])
	if n < mb2Header || uint64(n) > uint64(len(head)) {
		return Entry{}, fmt.Errorf("kernel: multiboot2 header of %d bytes", n)
	}
	if err := l.headerTags(off, head[mb2Header:n]); err != nil {
		return Entry{}, err
	}
	if l.elf == nil {
		return Entry{}, fmt.Errorf("kernel: multiboot2 image is no ELF file and has no addresses: %w", ErrFormat)
	}
	return l.enterMultiboot(l.mb2entry, mb2Entry, mb2InfoAddr, l.putMultiboot2Info)
}

// headerTags walks the tags of the header at off of the file.
func (l *loader) headerTags(off int, b []byte) error {
	le := binary.LittleEndian
	for len(b) >= mb2TagHead {
		typ, flags, size := le.Uint16(b), le.Uint16(b[2:]), le.Uint32(b[4:])
		if size < mb2TagHead || uint64(size) > uint64(len(b)) {
			return fmt.Errorf("kernel: multiboot2 header tag %d of %d bytes", typ, size)
		}
		if typ == mb2TagEnd {
			return nil
		}
		if err := l.headerTag(off, typ, flags, b[mb2TagHead:size]); err != nil {
			return err
		}
		b = b[min((uint64(size)+mb2Align-1)&^(mb2Align-1), uint64(len(b))):]
	}
	return nil
}

func (l *loader) headerTag(off int, typ, flags uint16, data []byte) error {
	le := binary.LittleEndian
	w := func(i int) uint32 { return le.Uint32(data[4*i:]) }
	switch {
	case typ == mb2TagAddress && len(data) >= 16:
		return l.setAddress(off, mbAddress{w(0), w(1), w(2), w(3)})
	case typ == mb2TagEntry && len(data) >= 4:
		l.mb2entry = w(0)
		return nil
	case typ == mb2TagConsole, typ == mb2TagModuleAlign, typ == mb2TagRelocatable, flags&mb2TagOptional != 0:
		return nil
	case typ == mb2TagRequest:
		for ; len(data) >= 4; data = data[4:] {
			if !mb2Given[w(0)] {
				return fmt.Errorf("kernel: multiboot2 header wants information %d, which is not supported", w(0))
			}
		}
		return nil
	}
	return fmt.Errorf("kernel: multiboot2 header tag %d is not supported", typ)
}

// mb2Given is the information that a kernel can ask for.
var mb2Given = map[uint32]bool{mb2Cmdline: true, mb2Loader: true, mb2Module: true, mb2BasicMem: true, mb2MemMap: true, mb2RSDP: true}

// putMultiboot2Info writes the information: its size, a reserved word, and tags.
func (l *loader) putMultiboot2Info(mod mem.GPA, size uint64) error {
	if err := l.checkCmdline(cmdlineMax); err != nil {
		return err
	}
	le := binary.LittleEndian
	b := make([]byte, 8)
	tag := func(typ uint32, data []byte) {
		b = le.AppendUint32(b, typ)
		b = le.AppendUint32(b, uint32(8+len(data)))
		b = append(b, data...)
		b = append(b, make([]byte, -len(b)&(mb2Align-1))...)
	}
	tag(mb2Cmdline, append([]byte(l.Cmdline), 0))
	tag(mb2Loader, []byte(loaderName))
	if size > 0 {
		tag(mb2Module, append(le.AppendUint32(le.AppendUint32(nil, uint32(mod)), uint32(uint64(mod)+size)), 0))
	}
	tag(mb2BasicMem, le.AppendUint32(le.AppendUint32(nil, baseMemory), l.upperMemory()))
	tag(mb2MemMap, l.mb2MemMap())
	if l.RSDP != 0 {
		rsdp := make([]byte, rsdpSize)
		if err := l.Mem.Read(l.RSDP, rsdp); err != nil {
			return fmt.Errorf("RSDP at %#x: %w", l.RSDP, err)
		}
		tag(mb2RSDP, rsdp)
	}
	tag(0, nil)
	le.PutUint32(b, uint32(len(b)))
	return l.put(mb2InfoAddr, b)
}

func (l *loader) mb2MemMap() []byte {
	le := binary.LittleEndian
	m := le.AppendUint32(le.AppendUint32(nil, mb2MapEntry), 0)
	for _, r := range l.e820[:min(len(l.e820), e820Max)] {
		m = le.AppendUint64(m, uint64(r.Addr))
		m = le.AppendUint64(m, r.Size)
		m = le.AppendUint64(m, uint64(r.Type))
	}
	return m
}
