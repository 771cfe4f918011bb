package qcow2

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vmd/hv/disk"
)

// file is where an image is kept. What lies beyond its end reads as zeros. Its
// methods may be called from any number of goroutines.
type file interface {
	ReadAtV(bufs [][]byte, off int64) error
	WriteAtV(bufs [][]byte, off int64) error
	// ReadFull fills p, WriteFull writes all of it.
	ReadFull(p []byte, off int64) error
	WriteFull(p []byte, off int64) error
	// Sync returns when all written before is durable.
	Sync() error
	// Punch makes n bytes at off zeros without room for them, or does nothing.
	Punch(off, n int64)
	Size() int64
	Close() error
}

// osFile is a file of the host.
type osFile struct {
	f    *os.File
	fd   int
	size int64 // when it was opened
}

func newOSFile(f *os.File) (*osFile, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// The end of a device says nothing about where an image in it ends.
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", st.Mode().Type())
	}
	return &osFile{f: f, fd: int(f.Fd()), size: st.Size()}, nil
}

func (o *osFile) Size() int64 { return o.size }

func (o *osFile) ReadAtV(bufs [][]byte, off int64) error {
	err := disk.ReadV(o.fd, bufs, off)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return o.readEnd(bufs, off)
	}
	return err
}

// readEnd reads across the end of the file.
func (o *osFile) readEnd(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		if err := o.ReadFull(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func (o *osFile) WriteAtV(bufs [][]byte, off int64) error { return disk.WriteV(o.fd, bufs, off) }

func (o *osFile) ReadFull(p []byte, off int64) error {
	n, err := o.f.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:])
		return nil
	}
	return err
}

func (o *osFile) WriteFull(p []byte, off int64) error {
	_, err := o.f.WriteAt(p, off)
	return err
}

func (o *osFile) Sync() error {
	for {
		if err := unix.Fdatasync(o.fd); err != unix.EINTR {
			return err
		}
	}
}

// Punch has no error: the space is not in use, and storage that cannot give it
// back keeps it.
func (o *osFile) Punch(off, n int64) {
	_ = unix.Fallocate(o.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (o *osFile) Close() error { return o.f.Close() }

// readerAt makes an io.ReaderAt of a file.
type readerAt struct{ f file }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), r.f.Size()-off)
	if n <= 0 {
		return 0, io.EOF
	}
	if err := r.f.ReadFull(p[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}
