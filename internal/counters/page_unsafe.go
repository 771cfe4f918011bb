package counters

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Size is the size of the page in bytes: a whole number of memory pages.
const Size = (int(unsafe.Sizeof(Page{})) + 4095) &^ 4095

// Create makes an empty page that can neither grow nor shrink: whoever maps it
// cannot be made to fault (memfd_create(2), F_ADD_SEALS).
func Create(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate("counters:"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make a counter page: %w", err)
	}
	f := os.NewFile(uintptr(fd), "counters")
	err = unix.Ftruncate(fd, int64(Size))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make a counter page: %w", err)
	}
	return f, nil
}

// SealWrites lets nobody map the page for writing any more, who has not yet
// (F_SEAL_FUTURE_WRITE, Linux 5.1).
func SealWrites(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE|unix.F_SEAL_SEAL)
	if err != nil {
		return fmt.Errorf("seal a counter page: %w", err)
	}
	return nil
}

// Map maps the page in f for the one process that writes it.
func Map(f *os.File) (*Page, error) { return mapPage(f, unix.PROT_READ|unix.PROT_WRITE) }

// Open maps the page in f for reading. The descriptor is not needed after.
func Open(f *os.File) (*Reader, error) {
	p, err := mapPage(f, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	return &Reader{p}, nil
}

func mapPage(f *os.File, prot int) (*Page, error) {
	// The seals first: nothing but memory has them, and to ask for the size of
	// another file may take as long as whoever serves it likes (FUSE).
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("map a counter page: it is not sealed")
	}
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("map a counter page: %w", err)
	}
	if st.Size() != int64(Size) {
		return nil, fmt.Errorf("map a counter page: it has %d bytes, not %d", st.Size(), Size)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, Size, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map a counter page: %w", err)
	}
	p := (*Page)(unsafe.Pointer(&b[0]))
	if prot&unix.PROT_WRITE != 0 {
		atomic.StoreUint64(&p.Version, Version)
	}
	return p, nil
}

// unmap undoes mapPage.
func (p *Page) unmap() error {
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(p)), Size))
}
