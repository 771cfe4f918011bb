package disk

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Sparse is an Image that knows where it holds nothing.
type Sparse interface {
	Image
	// NextData returns the first range from off on that may hold other than
	// zeros, or twice Size if there is none.
	NextData(off int64) (start, end int64, err error)
}

// NextData is img's, or for an image that is not Sparse all of it.
func NextData(img Image, off int64) (start, end int64, err error) {
	if off >= img.Size() {
		return img.Size(), img.Size(), nil
	}
	if s, ok := img.(Sparse); ok {
		return s.NextData(off)
	}
	return off, img.Size(), nil
}

// NextData implements Sparse.
func (r *Raw) NextData(off int64) (start, end int64, err error) {
	start, err = unix.Seek(r.fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return r.size, r.size, nil
	case err != nil: // a device, or storage that does not know
		return off, r.size, nil
	}
	end, err = unix.Seek(r.fd, start, unix.SEEK_HOLE)
	if err != nil {
		end = r.size
	}
	return min(start, r.size), min(end, r.size), nil
}

// copyPiece is how much Copy moves at a time; pieces of zeros are left out.
const copyPiece = 64 << 10

// Copy copies src to dst, which reads as zeros and is at least as long, and
// flushes dst. It leaves out what is zero. progress, unless nil, is called now
// and then with how far it is, in bytes of src's length; an error of it ends
// the copy.
func Copy(dst, src Image, progress func(done int64) error) error {
	if dst.Size() < src.Size() {
		return fmt.Errorf("copy a disk of %d bytes to one of %d: %w", src.Size(), dst.Size(), ErrRange)
	}
	if progress == nil {
		progress = func(int64) error { return nil }
	}
	buf := make([]byte, copyPiece)
	for off := int64(0); off < src.Size(); {
		start, end, err := NextData(src, off)
		if err != nil {
			return fmt.Errorf("read source: %w", err)
		}
		// Pieces are aligned, so that a cluster is written once.
		for off = max(off, start&^(copyPiece-1)); off < end; {
			n := min(copyPiece-off%copyPiece, src.Size()-off)
			if err := copyRange(dst, src, buf[:n], off); err != nil {
				return err
			}
			off += n
			if err := progress(off); err != nil {
				return err
			}
		}
	}
	if err := dst.Flush(); err != nil {
		return fmt.Errorf("write destination: %w", err)
	}
	return progress(src.Size())
}

func copyRange(dst, src Image, buf []byte, off int64) error {
	if err := src.ReadAtV([][]byte{buf}, off); err != nil {
		return fmt.Errorf("read source: %w", err)
	}
	if isZero(buf) {
		return nil
	}
	if err := dst.WriteAtV([][]byte{buf}, off); err != nil {
		return fmt.Errorf("write destination: %w", err)
	}
	return nil
}

var zeroPiece [copyPiece]byte

func isZero(b []byte) bool { return bytes.Equal(b, zeroPiece[:len(b)]) }
