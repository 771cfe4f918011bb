// Package boot puts a kernel into guest memory the way its boot protocol wants
// it and says with which registers the first vCPU has to start. It knows Linux
// bzImages (64-bit entry), ELF kernels with a Xen PVH note, OpenBSD's kernels,
// multiboot 1 and 2, and plain ELF64 images for tests; each may be
// gzip-compressed.
//
// A kernel file may belong to somebody who is not trusted: every number in it
// is checked against the file's size and the guest's memory before it is used.
// Files are read straight into guest memory, never as a whole into this
// process.
package boot

import (
	"errors"
	"fmt"
	"io"

	"vmd/hv/mem"
)

// Errors that a caller may want to tell apart. What Load returns wraps one of
// them where it applies, with the numbers.
var (
	ErrFormat = errors.New("not a kernel that can be loaded")
	ErrMemory = errors.New("guest memory too small")
)

// Image is a file that a guest is given to boot from.
type Image struct {
	R    io.ReaderAt
	Size int64
}

// Params is what Load works with.
type Params struct {
	// Mem is the guest's memory. Its first region starts at 0 and holds
	// everything below the PCI window. Load relies on it being fresh, that
	// is zero, except for the firmware area at 0xe0000-0xfffff.
	Mem    *mem.Memory
	Kernel Image
	Initrd *Image // nil for none

	// Cmdline is handed to the kernel as it is.
	Cmdline string

	// RSDP is where the ACPI tables begin, or 0 if there are none.
	RSDP mem.GPA

	// Seed feeds the random number generator of a kernel that takes one from
	// its loader. Empty for none; at most 512 bytes are used.
	Seed []byte

	// NetMAC is the address of the interface that an OpenBSD kernel is to
	// believe it came from; nil for none.
	NetMAC *[6]byte

	// CBit is the bit of an address by which a page table of a guest with
	// encrypted memory says that what is there is encrypted; 0 for a guest
	// without. Such a guest is told that the firmware area holds ACPI tables.
	CBit uint64

	// Loaded is told of each run of memory that has been filled, in order, zeros
	// that the kernel relies on among them. It may be nil.
	Loaded func(at mem.GPA, n uint64)
}

// Load puts the kernel, its initrd, command line and boot data into guest
// memory. After an error the memory holds nothing of use.
func Load(p Params) (Entry, error) {
	l, err := newLoader(p)
	if err != nil {
		return Entry{}, err
	}
	return l.load()
}

// format is one row of the table that selects a loader by what the image looks
// like. The first row that matches wins; ELF images match on their program
// headers and notes.
type format struct {
	name  string
	match func(*loader) bool
	load  func(*loader) (Entry, error)
}

var formats = []format{
	{"PVH", (*loader).isPVH, (*loader).loadPVH},
	{OpenBSD, (*loader).isOpenBSD, (*loader).loadOpenBSD},
	{"bzImage", (*loader).isBzImage, (*loader).loadBzImage},
	{"multiboot2", (*loader).isMultiboot2, (*loader).loadMultiboot2},
	{"multiboot", (*loader).isMultiboot, (*loader).loadMultiboot},
	{"ELF", (*loader).isFlat, (*loader).loadFlat},
}

// OpenBSD is the Entry.Format of an OpenBSD kernel.
const OpenBSD = "OpenBSD"

// loader is one run of Load.
type loader struct {
	Params
	tolud mem.GPA // first address after the RAM below the PCI window
	e820  []Range
	elf   *elfFile // nil unless the kernel is an ELF image

	mb2entry uint32 // of a multiboot2 image
}

func newLoader(p Params) (*loader, error) {
	if p.Mem == nil || p.Kernel.R == nil || p.Kernel.Size < 0 || p.Initrd != nil && (p.Initrd.R == nil || p.Initrd.Size < 0) {
		return nil, errors.New("load kernel: no memory or no image given")
	}
	r := p.Mem.Regions()
	if len(r) == 0 || r[0].Base != 0 || len(r[0].Bytes) < minMemory {
		return nil, fmt.Errorf("kernel: need at least %d MiB at address 0: %w", minMemory>>20, ErrMemory)
	}
	l := &loader{Params: p, tolud: mem.GPA(len(r[0].Bytes)), e820: E820(p.Mem)}
	if l.CBit != 0 {
		l.e820 = withTables(l.e820)
	}
	if l.Loaded == nil {
		l.Loaded = func(mem.GPA, uint64) {}
	}
	return l, nil
}

// Identify says which kind of kernel an image is: an Entry.Format, or "" if it
// is none that Load knows.
func Identify(kernel Image) string {
	l := &loader{Params: Params{Kernel: kernel}}
	f, err := l.identify()
	if err != nil {
		return ""
	}
	return f.name
}

func (l *loader) load() (Entry, error) {
	f, err := l.identify()
	if err != nil {
		return Entry{}, err
	}
	e, err := f.load(l)
	e.Format = f.name
	return e, err
}

// identify unpacks the kernel if it must and finds its row of the table.
func (l *loader) identify() (*format, error) {
	var err error
	if l.Kernel, err = maybeGunzip(l.Kernel); err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	if isELF(l.Kernel) {
		if l.elf, err = parseELF(l.Kernel); err != nil {
			return nil, fmt.Errorf("kernel: %w", err)
		}
	}
	for i := range formats {
		if formats[i].match(l) {
			return &formats[i], nil
		}
	}
	if l.elf != nil {
		return nil, fmt.Errorf("kernel: a 32-bit ELF image without a PVH note or a multiboot header: %w", errors.ErrUnsupported)
	}
	return nil, fmt.Errorf("kernel: %w", ErrFormat)
}

// read fills p from offset off, or says how much of the file is missing.
func (i Image) read(p []byte, off uint64) error {
	if !i.holds(off, uint64(len(p))) {
		return fmt.Errorf("file has %d bytes, needs %d at offset %d", i.Size, len(p), off)
	}
	n, err := i.R.ReadAt(p, int64(off))
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at offset %d: %w", len(p), off, err)
}

// holds says whether [off, off+n) lies inside the file.
func (i Image) holds(off, n uint64) bool {
	return off <= uint64(i.Size) && n <= uint64(i.Size)-off
}

// readInto reads n bytes at offset off of an image into guest memory at gpa.
func (l *loader) readInto(gpa mem.GPA, i Image, off, n uint64) error {
	if !i.holds(off, n) {
		return fmt.Errorf("file has %d bytes, needs %d at offset %d", i.Size, n, off)
	}
	b, err := l.Mem.Slice(gpa, n)
	if err != nil {
		return fmt.Errorf("%d bytes at %#x: %w", n, gpa, err)
	}
	l.Loaded(gpa, n)
	return i.read(b, off)
}

// put writes p into guest memory at gpa.
func (l *loader) put(gpa mem.GPA, p []byte) error {
	l.Loaded(gpa, uint64(len(p)))
	return l.Mem.Write(gpa, p)
}
