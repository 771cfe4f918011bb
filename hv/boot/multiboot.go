package boot

import (
	"encoding/binary"
	"fmt"

	"vmd/hv/mem"
)

// Multiboot 1 (Multiboot Specification 0.6.96, 3.1 and 3.3).
const (
	mbMagic     = 0x1badb002
	mbEntry     = 0x2badb002 // in EAX
	mbSearch    = 8192
	mbHeader    = 12 // magic, flags, checksum
	mbAddresses = 20 // and what flag 16 adds: header, load, load end, BSS end, entry

	mbMustKnow   = 0xffff // flags that a loader has to know, or refuse
	mbPageAlign  = 1 << 0 // modules are anyway
	mbMemoryInfo = 1 << 1
	mbHasAddress = 1 << 16

	mbInfoMemory  = 1 << 0
	mbInfoCmdline = 1 << 2
	mbInfoModules = 1 << 3
	mbInfoMemMap  = 1 << 6
	mbInfoLoader  = 1 << 9

	mbInfoSize  = 120
	mbMapEntry  = 24 // u32 size without itself, then an e820 entry
	loaderName  = "vmd\x00"
	mbModule    = startInfoAddr + 0x100
	mbName      = startInfoAddr + 0x200
	mbNoString  = mbName + mem.GPA(len(loaderName)) - 1
	mbMemMap    = zeroPageAddr
	baseMemory  = 640  // KiB
	mbUpperFrom = 1024 // KiB
	mbMaxUpper  = 1<<32 - 1
)

// mbAddress says how to load an image that is not an ELF file, or does not want
// to be taken for one.
type mbAddress struct{ header, load, loadEnd, bssEnd uint32 }

// findHeader looks for a header: a word at a multiple of align in the first limit
// bytes, that adds up to 0 with the words after it. It returns where.
func (l *loader) findHeader(magic uint32, limit, align, words int) (off int, head []byte, ok bool) {
	b := make([]byte, min(int64(limit), max(l.Kernel.Size, 0)))
	if l.Kernel.read(b, 0) != nil {
		return 0, nil, false
	}
	le := binary.LittleEndian
	for off := 0; off+4*words <= len(b); off += align {
		if le.Uint32(b[off:]) != magic {
			continue
		}
		var sum uint32
		for i := range words {
			sum += le.Uint32(b[off+4*i:])
		}
		if sum == 0 {
			return off, b[off:], true
		}
	}
	return 0, nil, false
}

func (l *loader) findMultiboot() (off int, head []byte, ok bool) {
	return l.findHeader(mbMagic, mbSearch, 4, mbHeader/4)
}

func (l *loader) isMultiboot() bool {
	_, _, ok := l.findMultiboot()
	return ok
}

func (l *loader) loadMultiboot() (Entry, error) {
	off, head, _ := l.findMultiboot()
	le := binary.LittleEndian
	flags := le.Uint32(head[4:])
	if f := flags & mbMustKnow &^ (mbPageAlign | mbMemoryInfo); f != 0 {
		return Entry{}, fmt.Errorf("kernel: multiboot header wants %#x, which is not supported", f)
	}
	var entry uint32
	if flags&mbHasAddress != 0 {
		if len(head) < mbHeader+mbAddresses {
			return Entry{}, fmt.Errorf("kernel: multiboot header at %d is cut off", off)
		}
		w := func(i int) uint32 { return le.Uint32(head[mbHeader+4*i:]) }
		if err := l.setAddress(off, mbAddress{w(0), w(1), w(2), w(3)}); err != nil {
			return Entry{}, err
		}
		entry = w(4)
	} else if l.elf == nil {
		return Entry{}, fmt.Errorf("kernel: multiboot image is no ELF file and has no addresses: %w", ErrFormat)
	} else {
		entry = uint32(l.elf.entry)
	}
	return l.enterMultiboot(entry, mbEntry, startInfoAddr, l.putMultibootInfo)
}

// setAddress makes one segment of the addresses in the header at off of the
// file, in place of what an ELF header may say.
func (l *loader) setAddress(off int, a mbAddress) error {
	before := uint64(a.header) - uint64(a.load)
	if a.load > a.header || before > uint64(off) {
		return fmt.Errorf("kernel: multiboot header at %d of the file is to be at %#x, the image at %#x", off, a.header, a.load)
	}
	start := uint64(off) - before
	n := uint64(l.Kernel.Size) - start
	if a.loadEnd != 0 {
		n = uint64(a.loadEnd) - uint64(a.load)
	}
	s := segment{typ: ptLoad, off: start, paddr: uint64(a.load), filesz: n, memsz: n}
	if a.bssEnd != 0 {
		s.memsz = uint64(a.bssEnd) - uint64(a.load)
	}
	if s.memsz < n || !l.Kernel.holds(start, n) {
		return fmt.Errorf("kernel: multiboot header: %d bytes at offset %d for %#x-%#x-%#x, file has %d", n, start, a.load, a.loadEnd, a.bssEnd, l.Kernel.Size)
	}
	l.elf = &elfFile{class: elfClass32, segs: []segment{s}}
	return nil
}

// enterMultiboot loads the image and what comes with it: in both versions the
// kernel starts in 32-bit protected mode, with a magic number in EAX and the
// address of its information in EBX.
func (l *loader) enterMultiboot(entry, magic uint32, info mem.GPA, put func(mod mem.GPA, size uint64) error) (Entry, error) {
	end, err := l.putSegments(uint64(entry))
	if err != nil {
		return Entry{}, fmt.Errorf("kernel: %w", err)
	}
	mod, size, err := l.putInitrd(end, l.tolud)
	if err != nil {
		return Entry{}, err
	}
	if err := put(mod, size); err != nil {
		return Entry{}, err
	}
	e, err := l.prot32()
	e.RIP, e.RAX, e.RBX = uint64(entry), uint64(magic), uint64(info)
	return e, err
}

// upperMemory is the KiB of memory from 1 MiB up to the first hole.
func (l *loader) upperMemory() uint32 {
	return uint32(min(uint64(l.tolud)>>10-mbUpperFrom, mbMaxUpper))
}

// putMultibootInfo writes the information, the memory map, the module's record
// and the strings.
func (l *loader) putMultibootInfo(mod mem.GPA, size uint64) error {
	if err := l.putCmdline(cmdlineMax); err != nil {
		return err
	}
	le := binary.LittleEndian
	var m []byte
	for _, r := range l.e820[:min(len(l.e820), e820Max)] {
		m = le.AppendUint32(m, mbMapEntry-4)
		m = le.AppendUint64(m, uint64(r.Addr))
		m = le.AppendUint64(m, r.Size)
		m = le.AppendUint32(m, uint32(r.Type))
	}
	var b [mbInfoSize]byte
	put := func(off int, v uint32) { le.PutUint32(b[off:], v) }
	flags := uint32(mbInfoMemory | mbInfoCmdline | mbInfoMemMap | mbInfoLoader)
	put(4, baseMemory)
	put(8, l.upperMemory())
	put(16, uint32(cmdlineAddr))
	put(44, uint32(len(m)))
	put(48, uint32(mbMemMap))
	put(64, uint32(mbName))
	if size > 0 {
		flags |= mbInfoModules
		put(20, 1)
		put(24, uint32(mbModule))
		rec := le.AppendUint32(nil, uint32(mod))
		rec = le.AppendUint32(rec, uint32(uint64(mod)+size))
		rec = le.AppendUint32(rec, uint32(mbNoString))
		if err := l.put(mbModule, rec); err != nil {
			return err
		}
	}
	put(0, flags)
	if err := l.put(startInfoAddr, b[:]); err != nil {
		return err
	}
	if err := l.put(mbMemMap, m); err != nil {
		return err
	}
	return l.put(mbName, []byte(loaderName))
}
