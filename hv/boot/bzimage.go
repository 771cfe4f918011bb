package boot

import (
	"encoding/binary"
	"fmt"

	"vmd/hv/mem"
)

// Offsets in the first sectors of a bzImage, which are also offsets in
// struct boot_params (arch/x86/boot.rst, zero-page.rst).
const (
	offACPIRSDP     = 0x070
	offExtRamdisk   = 0x0c0
	offExtRamdiskSz = 0x0c4
	offExtCmdline   = 0x0c8
	offE820Count    = 0x1e8
	offSetupSects   = 0x1f1
	offVidMode      = 0x1fa
	offJump         = 0x201 // its operand: the header ends that far after 0x202
	offMagic        = 0x202
	offVersion      = 0x206
	offLoaderType   = 0x210
	offLoadFlags    = 0x211
	offRamdisk      = 0x218
	offRamdiskSize  = 0x21c
	offCmdline      = 0x228
	offInitrdMax    = 0x22c
	offAlignment    = 0x230
	offRelocatable  = 0x234
	offXLoadFlags   = 0x236
	offCmdlineSize  = 0x238
	offSetupData    = 0x250
	offPrefAddress  = 0x258
	offInitSize     = 0x260
	headerMin       = 0x264 // protocol 2.12 ends after handover_offset, at 0x268
	headerEnd       = 0x290 // the next field of boot_params
	offE820         = 0x2d0
	e820Max         = 128
)

const (
	hdrS           = 0x53726448 // "HdrS"
	minVersion     = 0x20c      // the first with xloadflags
	loadedHigh     = 1 << 0
	xlfKernel64    = 1 << 0
	loaderUnknown  = 0xff
	vidModeNormal  = 0xffff
	setupRNGSeed   = 9
	sectorSize     = 512
	defSetupSects  = 4
	entry64Offset  = 0x200
	setupDataHead  = 16 // u64 next, u32 type, u32 len
	maxKernelAlign = 1 << 30
)

// setupHeader is the head of a bzImage, copied out of the file.
type setupHeader [headerEnd]byte

func (h *setupHeader) u16(off int) uint16 { return binary.LittleEndian.Uint16(h[off:]) }
func (h *setupHeader) u32(off int) uint32 { return binary.LittleEndian.Uint32(h[off:]) }
func (h *setupHeader) u64(off int) uint64 { return binary.LittleEndian.Uint64(h[off:]) }

// body is where in the file the kernel proper begins.
func (h *setupHeader) body() uint64 {
	n := uint64(h[offSetupSects])
	if n == 0 {
		n = defSetupSects
	}
	return (n + 1) * sectorSize
}

func (l *loader) isBzImage() bool {
	var magic [4]byte
	return l.Kernel.read(magic[:], offMagic) == nil && binary.LittleEndian.Uint32(magic[:]) == hdrS
}

// readSetup reads and checks the header. Bytes after the header's own end are
// left zero: they are code.
func (l *loader) readSetup() (*setupHeader, error) {
	h := new(setupHeader)
	if err := l.Kernel.read(h[:], 0); err != nil {
		return nil, err
	}
	end := offMagic + int(h[offJump])
	switch v := h.u16(offVersion); {
	case v < minVersion:
		return nil, fmt.Errorf("boot protocol %d.%02d, need 2.12 or later", v>>8, v&0xff)
	case h.u16(offXLoadFlags)&xlfKernel64 == 0:
		return nil, fmt.Errorf("bzImage has no 64-bit entry point")
	case h[offLoadFlags]&loadedHigh == 0:
		return nil, fmt.Errorf("bzImage wants to be loaded low")
	case end < headerMin:
		return nil, fmt.Errorf("bzImage header ends at %#x, need %#x", end, headerMin)
	}
	clear(h[min(end, headerEnd):])
	if size := uint64(l.Kernel.Size); size <= h.body()+entry64Offset {
		return nil, fmt.Errorf("bzImage of %d bytes is cut off: its kernel begins at %d", size, h.body())
	}
	return h, nil
}

// place decides where the kernel goes: where it prefers to be, or, if memory
// ends before that, as low as its alignment allows.
func (l *loader) place(h *setupHeader) (at, end mem.GPA, err error) {
	need := max(uint64(h.u32(offInitSize)), uint64(l.Kernel.Size)-h.body())
	at = mem.GPA(h.u64(offPrefAddress))
	fits := func() bool { return at >= highMem && at <= l.tolud && need <= uint64(l.tolud-at) }
	if fits() {
		return at, at + mem.GPA(need), nil
	}
	if h[offRelocatable] != 0 {
		align := uint64(h.u32(offAlignment))
		if align < pageSize || align > maxKernelAlign || align&(align-1) != 0 {
			return 0, 0, fmt.Errorf("bzImage alignment %#x is not a power of two between a page and 1 GiB", align)
		}
		if at = alignUp(highMem, align); fits() {
			return at, at + mem.GPA(need), nil
		}
	}
	return 0, 0, fmt.Errorf("needs %d MiB at %#x, guest has %d MiB: %w", mib(need), h.u64(offPrefAddress), l.Mem.Size()>>20, ErrMemory)
}

func (l *loader) loadBzImage() (Entry, error) {
	h, err := l.readSetup()
	if err != nil {
		return Entry{}, fmt.Errorf("kernel: %w", err)
	}
	at, end, err := l.place(h)
	if err != nil {
		return Entry{}, fmt.Errorf("kernel: %w", err)
	}
	if err := l.readInto(at, l.Kernel, h.body(), uint64(l.Kernel.Size)-h.body()); err != nil {
		return Entry{}, fmt.Errorf("kernel: %w", err)
	}
	if err := l.bootParams(h, end); err != nil {
		return Entry{}, err
	}
	e, err := l.long64()
	e.RIP = uint64(at) + entry64Offset
	e.RSI = uint64(zeroPageAddr)
	return e, err
}

// bootParams writes the zero page and all that it points to.
func (l *loader) bootParams(h *setupHeader, kernelEnd mem.GPA) error {
	limit := uint64(h.u32(offCmdlineSize))
	if err := l.putCmdline(limit); err != nil {
		return err
	}
	initrd, size, err := l.putInitrd(kernelEnd, mem.GPA(h.u32(offInitrdMax))+1)
	if err != nil {
		return err
	}
	seed, err := l.putSeed()
	if err != nil {
		return err
	}

	var z [pageSize]byte
	le := binary.LittleEndian
	copy(z[offSetupSects:headerEnd], h[offSetupSects:])
	le.PutUint64(z[offACPIRSDP:], uint64(l.RSDP))
	z[offLoaderType] = loaderUnknown
	le.PutUint16(z[offVidMode:], vidModeNormal)
	le.PutUint32(z[offRamdisk:], uint32(initrd))
	le.PutUint32(z[offExtRamdisk:], uint32(initrd>>32))
	le.PutUint32(z[offRamdiskSize:], uint32(size))
	le.PutUint32(z[offExtRamdiskSz:], uint32(size>>32))
	le.PutUint32(z[offCmdline:], uint32(cmdlineAddr))
	le.PutUint32(z[offExtCmdline:], 0)
	le.PutUint64(z[offSetupData:], uint64(seed))
	n := min(len(l.e820), e820Max)
	z[offE820Count] = byte(n)
	for i, r := range l.e820[:n] {
		b := z[offE820+20*i:]
		le.PutUint64(b, uint64(r.Addr))
		le.PutUint64(b[8:], r.Size)
		le.PutUint32(b[16:], uint32(r.Type))
	}
	return l.put(zeroPageAddr, z[:])
}

// putSeed writes the setup_data node that seeds the kernel's random numbers
// (SETUP_RNG_SEED). Kernels before 6.0 walk over it.
func (l *loader) putSeed() (mem.GPA, error) {
	seed := l.Seed[:min(len(l.Seed), maxSeed)]
	if len(seed) == 0 {
		return 0, nil
	}
	b := make([]byte, setupDataHead, setupDataHead+maxSeed)
	binary.LittleEndian.PutUint32(b[8:], setupRNGSeed)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(seed)))
	return setupDataAddr, l.put(setupDataAddr, append(b, seed...))
}
