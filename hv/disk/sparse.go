package disk

import (
	"errors"

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
