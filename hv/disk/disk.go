// Package disk is what a virtual disk reads and writes: the Image interface,
// and raw images in files and block devices. Formats with a structure of their
// own are below it.
package disk

import "errors"

// SectorSize is the unit of a guest's disk addresses.
const SectorSize = 512

// Errors that callers tell apart.
var (
	// ErrRange says that an access does not lie wholly inside the image.
	ErrRange = errors.New("access outside the image")
	// ErrReadOnly says that a change was asked of an image opened for reading.
	ErrReadOnly = errors.New("image is read-only")
)

// Image is a disk. Its methods may be called from any number of goroutines, and
// may block for as long as the storage behind it takes. None of them retains a
// slice that it was given.
type Image interface {
	// Size is the length in bytes, a multiple of SectorSize. It never changes.
	Size() int64
	// ReadAtV fills bufs, in order, from off. It fills all of them or fails.
	ReadAtV(bufs [][]byte, off int64) error
	// WriteAtV writes bufs, in order, to off. It writes all of them or fails,
	// having written any part.
	WriteAtV(bufs [][]byte, off int64) error
	// Flush returns when everything written before it was called is durable.
	Flush() error
	// Discard says that the n bytes at off are of no use any more. What they
	// read as afterwards is open.
	Discard(off, n int64) error
	// WriteZeroes makes the n bytes at off read as zero; unmap allows the image
	// to give up the space for them.
	WriteZeroes(off, n int64, unmap bool) error
	// Close gives the image up. No other method may be running, or be called
	// afterwards.
	Close() error
}

// CheckRange returns ErrRange unless [off, off+n) lies inside size bytes.
func CheckRange(size, off, n int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return ErrRange
	}
	return nil
}

// Len is the sum of the lengths of bufs.
func Len(bufs [][]byte) int64 {
	var n int64
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}
