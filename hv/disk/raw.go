package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Raw is a disk whose bytes are those of a file or of a block device.
type Raw struct {
	file     *os.File
	fd       int
	size     int64
	readOnly bool
}

// NewRaw makes a disk of f, which whoever opened it has locked. It owns f from
// then on, also if it fails. A length that is not a whole number of sectors
// loses its odd end.
func NewRaw(f *os.File, readOnly bool) (*Raw, error) {
	r, err := newRaw(f, readOnly)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raw image %q: %w", f.Name(), err), f.Close())
	}
	return r, nil
}

func newRaw(f *os.File, readOnly bool) (*Raw, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if block := st.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice; !st.Mode().IsRegular() && !block {
		return nil, fmt.Errorf("%s: neither a file nor a block device", st.Mode().Type())
	}
	size, err := f.Seek(0, io.SeekEnd) // a device's Stat has no size
	if err != nil {
		return nil, err
	}
	return &Raw{file: f, fd: int(f.Fd()), size: size &^ (SectorSize - 1), readOnly: readOnly}, nil
}

// Size implements Image.
func (r *Raw) Size() int64 { return r.size }

// ReadAtV implements Image.
func (r *Raw) ReadAtV(bufs [][]byte, off int64) error {
	if err := CheckRange(r.size, off, Len(bufs)); err != nil {
		return err
	}
	return transfer(unix.SYS_PREADV, r.fd, bufs, off)
}

// WriteAtV implements Image.
func (r *Raw) WriteAtV(bufs [][]byte, off int64) error {
	if err := r.change(off, Len(bufs)); err != nil {
		return err
	}
	return transfer(unix.SYS_PWRITEV, r.fd, bufs, off)
}

// change says whether [off, off+n) may be written.
func (r *Raw) change(off, n int64) error {
	if r.readOnly {
		return ErrReadOnly
	}
	return CheckRange(r.size, off, n)
}

// Flush implements Image.
func (r *Raw) Flush() error {
	if r.readOnly {
		return nil
	}
	return retry(func() error { return unix.Fdatasync(r.fd) })
}

// Discard implements Image. Storage that cannot give space back keeps it.
func (r *Raw) Discard(off, n int64) error {
	if err := r.change(off, n); err != nil || n == 0 {
		return err
	}
	err := r.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// zeroes is what WriteZeroes writes where storage knows nothing better.
var zeroes [64 << 10]byte

// WriteZeroes implements Image.
func (r *Raw) WriteZeroes(off, n int64, unmap bool) error {
	if err := r.change(off, n); err != nil || n == 0 {
		return err
	}
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE)
	if unmap {
		mode = unix.FALLOC_FL_PUNCH_HOLE
	}
	err := r.fallocate(mode|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	for n > 0 {
		k := min(n, int64(len(zeroes)))
		if err := transfer(unix.SYS_PWRITEV, r.fd, [][]byte{zeroes[:k]}, off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

func (r *Raw) fallocate(mode uint32, off, n int64) error {
	return retry(func() error { return unix.Fallocate(r.fd, mode, off, n) })
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// Close implements Image.
func (r *Raw) Close() error { return r.file.Close() }
