package boot

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"vmd/hv/mem"
)

// Where an OpenBSD kernel is handed its arguments (OpenBSD vmd(8)
// loadfile_elf.c, BOOTARGS_PAGE, STACK_PAGE).
const (
	bootArgsAddr  mem.GPA = 0x2000
	obsdStackTop  mem.GPA = 0x10000
	obsdAddrMask          = 0x0fffffff // kernel addresses to physical ones
	bootAPI               = 0x0e       // BOOTARG_APIVER
	bootDevSD0A           = 0xa0000004 // MAKEBOOTDEV(4, 0, 0, 0, 0)
	noteOpenBSD           = "OpenBSD\x00"
	noteOpenBSDID         = 1
)

// Boot arguments (OpenBSD sys/arch/amd64/include/biosvar.h). Each is its type,
// its size with these three words, the offset of the next, and data.
const (
	bootArgMemMap  = 0
	bootArgConsDev = 5
	bootArgBootMAC = 7
	bootArgEnd     = 0xffffffff
	bootArgHead    = 12

	memMapEnd      = 0 // the type of the entry that ends a map
	maxMemMap      = 64
	consDevCOM0    = 8 << 8 // makedev(8, 0)
	consDevSpeed   = 115200
	consDevAddr    = 0x3f8
	consDevSize    = 32
	bootMACSize    = 8 // padded
	memMapSize     = 20
	bootFlagSerial = 0x2000 // RB_SERCONS
)

// bootFlags are the options that boot(8) takes, as sys/reboot.h numbers them.
var bootFlags = map[rune]uint32{
	'a': 0x0001, // RB_ASKNAME
	's': 0x0002, // RB_SINGLE
	'd': 0x0040, // RB_KDB
	'c': 0x0400, // RB_CONFIG
}

func (l *loader) isOpenBSD() bool {
	if l.elf == nil || l.elf.class != elfClass64 {
		return false
	}
	return slices.ContainsFunc(l.elf.segs, func(s segment) bool { return s.typ == ptOpenBSDRandomize }) ||
		l.elf.note(l.Kernel, noteOpenBSD, noteOpenBSDID) != nil
}

// loadOpenBSD hands over as OpenBSD's boot program does: in 32-bit protected
// mode without paging, with the arguments of the kernel's start on the stack.
func (l *loader) loadOpenBSD() (Entry, error) {
	howto, err := l.bootHowto()
	if err != nil {
		return Entry{}, err
	}
	entry := l.elf.entry & obsdAddrMask
	end, err := l.putSegments(entry)
	if err != nil {
		return Entry{}, fmt.Errorf("kernel: %w", err)
	}
	if err := l.fillRandom(); err != nil {
		return Entry{}, fmt.Errorf("kernel: %w", err)
	}
	esym, err := l.putSymbols(end)
	if err != nil {
		return Entry{}, fmt.Errorf("kernel: symbols: %w", err)
	}
	args := l.bootArgs()
	if err := l.put(bootArgsAddr, args); err != nil {
		return Entry{}, err
	}
	e, err := l.prot32()
	if err != nil {
		return Entry{}, err
	}
	e.RIP = entry
	e.RSP, err = l.putStack(howto, uint32(esym), uint32(len(args)))
	return e, err
}

// bootHowto reads the command line: options of boot(8), such as "-s".
func (l *loader) bootHowto() (uint32, error) {
	howto := uint32(bootFlagSerial)
	for _, word := range strings.Fields(l.Cmdline) {
		opts, ok := strings.CutPrefix(word, "-")
		for _, c := range opts {
			bit, known := bootFlags[c]
			ok = ok && known
			howto |= bit
		}
		if !ok || opts == "" {
			return 0, fmt.Errorf("cmdline: %q: an OpenBSD kernel takes the options -a, -c, -d and -s", word)
		}
	}
	return howto, nil
}

// fillRandom fills the parts of the image that the kernel wants to be random.
// They lie inside what has been loaded.
func (l *loader) fillRandom() error {
	for _, s := range l.elf.segs {
		if s.typ != ptOpenBSDRandomize || s.filesz == 0 {
			continue
		}
		in := slices.ContainsFunc(l.elf.segs, func(o segment) bool {
			return o.typ == ptLoad && s.paddr >= o.paddr && s.filesz <= o.memsz && s.paddr-o.paddr <= o.memsz-s.filesz
		})
		if !in {
			return fmt.Errorf("random data at %#x, %d bytes: in no segment", s.paddr, s.filesz)
		}
		b, err := l.Mem.Slice(mem.GPA(s.paddr), s.filesz)
		if err != nil {
			return fmt.Errorf("random data at %#x: %w", s.paddr, err)
		}
		rand.Read(b)
	}
	return nil
}

// bootArgs makes the list of arguments. The PCI window is not in its memory
// map: the kernel would take the functions' own addresses in there for a
// conflict.
func (l *loader) bootArgs() []byte {
	le := binary.LittleEndian
	var m []byte
	for _, r := range l.e820[:min(len(l.e820), maxMemMap)] {
		m = le.AppendUint64(m, uint64(r.Addr))
		m = le.AppendUint64(m, r.Size)
		m = le.AppendUint32(m, uint32(r.Type))
	}
	m = append(m, make([]byte, memMapSize)...) // type memMapEnd

	cons := le.AppendUint32(nil, consDevCOM0)
	cons = le.AppendUint32(cons, consDevSpeed)
	cons = le.AppendUint64(cons, consDevAddr)
	cons = append(cons, make([]byte, consDevSize-len(cons))...) // the usual clock and registers

	args := bootArg(nil, bootArgMemMap, m)
	args = bootArg(args, bootArgConsDev, cons)
	if l.NetMAC != nil {
		args = bootArg(args, bootArgBootMAC, append(l.NetMAC[:], make([]byte, bootMACSize-len(l.NetMAC))...))
	}
	return le.AppendUint32(args, bootArgEnd)
}

func bootArg(args []byte, typ uint32, data []byte) []byte {
	le := binary.LittleEndian
	size := uint32(bootArgHead + len(data))
	args = le.AppendUint32(args, typ)
	args = le.AppendUint32(args, size)
	args = le.AppendUint32(args, size)
	return append(args, data...)
}

// putStack writes what the kernel's start finds above its stack pointer, and
// returns that.
func (l *loader) putStack(howto, esym, argsLen uint32) (esp uint64, err error) {
	var b []byte
	for _, v := range []uint32{
		0, // return address
		howto,
		bootDevSD0A,
		bootAPI,
		esym,
		0, // extended memory,
		0, // base memory: the kernel takes the map's
		argsLen,
		uint32(bootArgsAddr),
	} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	at := obsdStackTop - mem.GPA(len(b))
	return uint64(at), l.put(at, b)
}
