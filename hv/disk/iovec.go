package disk

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// iovecBatch is how many buffers one system call takes. The vector lives on the
// stack, so a transfer does not allocate.
const iovecBatch = 64

type vector [iovecBatch]unix.Iovec

// cursor is a position in a list of buffers.
type cursor struct {
	bufs [][]byte
	skip int // bytes of bufs[0] already done
}

// fill puts the next buffers into v and returns how many, leaving out empty
// ones.
func (c *cursor) fill(v *vector) int {
	n, skip := 0, c.skip
	for _, b := range c.bufs {
		if n == len(v) {
			break
		}
		b = b[skip:]
		skip = 0
		if len(b) > 0 {
			v[n].Base = &b[0]
			v[n].SetLen(len(b))
			n++
		}
	}
	return n
}

// advance moves past the next n bytes.
func (c *cursor) advance(n int) {
	n += c.skip
	for len(c.bufs) > 0 && n >= len(c.bufs[0]) {
		n -= len(c.bufs[0])
		c.bufs = c.bufs[1:]
	}
	c.skip = n
}

// transfer moves all of bufs between memory and fd at off with as many calls of
// op as it takes.
func transfer(op uintptr, fd int, bufs [][]byte, off int64) error {
	c := cursor{bufs: bufs}
	for {
		var v vector
		n := c.fill(&v)
		if n == 0 {
			return nil
		}
		done, errno := vectored(op, fd, &v, n, off)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return errno
		case done == 0: // the file has shrunk under us
			return fmt.Errorf("at byte %d: %w", off, io.ErrUnexpectedEOF)
		}
		c.advance(done)
		off += int64(done)
	}
}

// ReadV fills bufs, in order, from off of the file fd, without allocating. It
// is for formats that keep a disk inside a file; the end of the file is an
// error that wraps io.ErrUnexpectedEOF.
func ReadV(fd int, bufs [][]byte, off int64) error {
	return transfer(unix.SYS_PREADV, fd, bufs, off)
}

// WriteV writes bufs, in order, to off of the file fd, without allocating.
func WriteV(fd int, bufs [][]byte, off int64) error {
	return transfer(unix.SYS_PWRITEV, fd, bufs, off)
}
