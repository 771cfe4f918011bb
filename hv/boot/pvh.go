package boot

import (
	"encoding/binary"
	"fmt"

	"vmd/hv/mem"
)

// The PVH boot protocol (Xen docs/misc/pvh.pandoc; Linux
// include/xen/interface/elfnote.h and hvm/start_info.h).
const (
	xenNoteName      = "Xen\x00"
	xenPhys32Entry   = 18 // XEN_ELFNOTE_PHYS32_ENTRY
	startInfoMagic   = 0x336ec578
	startInfoVersion = 1
	startInfoSize    = 56
	modListSize      = 32
	memMapEntrySize  = 24
)

// pvhEntry returns the 32-bit entry point, if the kernel has one. Linux writes
// its descriptor 8 bytes wide, others 4; the low 32 bits count.
func (l *loader) pvhEntry() (entry uint32, ok bool) {
	if l.elf == nil {
		return 0, false
	}
	d := l.elf.note(l.Kernel, xenNoteName, xenPhys32Entry)
	if len(d) != 4 && len(d) != 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(d), true
}

func (l *loader) isPVH() bool {
	_, ok := l.pvhEntry()
	return ok
}

func (l *loader) loadPVH() (Entry, error) {
	entry, _ := l.pvhEntry()
	if err := l.putELF(uint64(entry)); err != nil {
		return Entry{}, err
	}
	e, err := l.prot32()
	e.RIP = uint64(entry)
	e.RBX = uint64(startInfoAddr)
	return e, err
}

func (l *loader) isFlat() bool { return l.elf != nil && l.elf.class == elfClass64 }

// loadFlat enters any other ELF64 image in 64-bit mode, with RBX pointing to
// the same start_info that PVH has: enough for small guests in tests.
func (l *loader) loadFlat() (Entry, error) {
	if err := l.putELF(l.elf.entry); err != nil {
		return Entry{}, err
	}
	e, err := l.long64()
	e.RIP = l.elf.entry
	e.RBX = uint64(startInfoAddr)
	return e, err
}

// putELF loads an ELF kernel that begins at entry, and start_info.
func (l *loader) putELF(entry uint64) error {
	end, err := l.putSegments(entry)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	if err := l.putCmdline(cmdlineMax); err != nil {
		return err
	}
	initrd, size, err := l.putInitrd(end, l.tolud)
	if err != nil {
		return err
	}
	return l.putStartInfo(initrd, size)
}

// putStartInfo writes struct hvm_start_info, its module list and memory map.
func (l *loader) putStartInfo(initrd mem.GPA, size uint64) error {
	le := binary.LittleEndian
	n := min(len(l.e820), e820Max)
	var s [startInfoSize]byte
	le.PutUint32(s[0:], startInfoMagic)
	le.PutUint32(s[4:], startInfoVersion)
	le.PutUint64(s[24:], uint64(cmdlineAddr))
	le.PutUint64(s[32:], uint64(l.RSDP))
	le.PutUint64(s[40:], uint64(zeroPageAddr))
	le.PutUint32(s[48:], uint32(n))
	if size > 0 {
		le.PutUint32(s[12:], 1)
		le.PutUint64(s[16:], uint64(modListAddr))
		var m [modListSize]byte
		le.PutUint64(m[0:], uint64(initrd))
		le.PutUint64(m[8:], size)
		if err := l.put(modListAddr, m[:]); err != nil {
			return err
		}
	}
	b := make([]byte, n*memMapEntrySize)
	for i, r := range l.e820[:n] {
		e := b[i*memMapEntrySize:]
		le.PutUint64(e, uint64(r.Addr))
		le.PutUint64(e[8:], r.Size)
		le.PutUint32(e[16:], uint32(r.Type))
	}
	if err := l.put(zeroPageAddr, b); err != nil {
		return err
	}
	return l.put(startInfoAddr, s[:])
}
