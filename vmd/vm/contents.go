package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"vmd/hv/disk"
	"vmd/hv/state"
)

// What is on the guest's disks travels in sections Disk, each of which is some
// bytes of one disk:
//
//	disk:u32 kind:u32 offset:u64 length:u64 data
//
// There is no data if kind is zeros. What is not mentioned is zero. Numbers are
// little endian.
const (
	pieceHeader = 24
	pieceMax    = disk.TrackedBlock

	pieceData  = 0
	pieceZeros = 1
)

// While the guest runs, what it has changed is sent again, until little is left
// or it changes as fast as it is sent.
const (
	contentRounds = 8
	contentFew    = 4 << 20
)

// contentQuiet is how long nothing may be sent: the receiver must not think that
// we are gone, because much of a disk is empty.
const contentQuiet = streamPatience / 6

// contents sends what is on the disks.
type contents struct {
	w      *state.Writer
	drives []*drive
	buf    []byte    // of one section
	spoke  time.Time // when the receiver last got something
}

func newContents(w *state.Writer, drives []*drive) *contents {
	return &contents{w: w, drives: drives, buf: make([]byte, pieceHeader+pieceMax), spoke: time.Now()}
}

// live sends everything while the guest runs. What it changes then is
// remembered until unwatch.
func (c *contents) live(ctx context.Context) error {
	for _, d := range c.drives {
		d.image.Watch(true)
	}
	for i := range c.drives {
		if err := c.all(ctx, i); err != nil {
			return err
		}
	}
	before := int64(-1)
	for range contentRounds {
		left := c.changed()
		if left <= contentFew || before >= 0 && left >= before/2 {
			return nil
		}
		before = left
		if err := c.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *contents) unwatch() {
	for _, d := range c.drives {
		d.image.Watch(false)
	}
}

func (c *contents) changed() (n int64) {
	for _, d := range c.drives {
		n += d.image.Changed()
	}
	return n
}

// all sends disk i, but for what is empty.
func (c *contents) all(ctx context.Context, i int) error {
	img := c.drives[i].image
	for off := int64(0); off < img.Size(); {
		start, end, err := disk.NextData(img, off)
		if err != nil {
			return fmt.Errorf("read disk %d: %w", i, err)
		}
		for off = max(off, start&^(pieceMax-1)); off < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(pieceMax-off%pieceMax, img.Size()-off)
			if err := c.piece(i, off, n, false); err != nil {
				return err
			}
			off += n
		}
	}
	return nil
}

// rest sends what has changed since it was sent.
func (c *contents) rest(ctx context.Context) error {
	for i, d := range c.drives {
		for off := int64(0); ; {
			start, n, ok := d.image.Next(off)
			if !ok {
				break
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.piece(i, start, n, true); err != nil {
				return err
			}
			off = start + n
		}
	}
	return nil
}

// piece sends n bytes of disk i at off. Zeros need not be told of the first time.
func (c *contents) piece(i int, off, n int64, again bool) error {
	data := c.buf[pieceHeader : pieceHeader+n]
	if err := c.drives[i].image.ReadAtV([][]byte{data}, off); err != nil {
		return fmt.Errorf("read disk %d at %#x: %w", i, off, err)
	}
	kind := uint32(pieceData)
	if isZero(data) {
		if !again && time.Since(c.spoke) < contentQuiet {
			return nil
		}
		kind, data = pieceZeros, nil
	}
	le := binary.LittleEndian
	le.PutUint32(c.buf[0:], uint32(i))
	le.PutUint32(c.buf[4:], kind)
	le.PutUint64(c.buf[8:], uint64(off))
	le.PutUint64(c.buf[16:], uint64(n))
	if err := c.w.Section(state.Disk, c.buf[:pieceHeader+len(data)]); err != nil {
		return err
	}
	if time.Since(c.spoke) < contentQuiet {
		return nil
	}
	c.spoke = time.Now()
	return c.w.Flush()
}

var zeroPiece [pieceMax]byte

func isZero(b []byte) bool { return bytes.Equal(b, zeroPiece[:len(b)]) }

// writePiece writes what a Disk section says to one of drives.
func writePiece(drives []*drive, b []byte) error {
	if len(b) < pieceHeader {
		return fmt.Errorf("%w: a piece of a disk in %d bytes", state.ErrFormat, len(b))
	}
	le := binary.LittleEndian
	i, kind, off, n := le.Uint32(b[0:]), le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:])
	data := b[pieceHeader:]
	want := uint64(len(data))
	if kind == pieceZeros {
		want = n
	}
	if i >= uint32(len(drives)) || kind > pieceZeros || n != want || kind == pieceZeros && len(data) > 0 {
		return fmt.Errorf("%w: disk %d, kind %d, %d bytes that come in %d", state.ErrFormat, i, kind, n, len(data))
	}
	img := drives[i].image
	if off > uint64(img.Size()) || n > uint64(img.Size())-off {
		return fmt.Errorf("%w: %d bytes at %#x of disk %d, which has %d", state.ErrFormat, n, off, i, img.Size())
	}
	err := error(nil)
	if kind == pieceZeros {
		err = img.WriteZeroes(int64(off), int64(n), true)
	} else {
		err = img.WriteAtV([][]byte{data}, int64(off))
	}
	if err != nil {
		return fmt.Errorf("write disk %d: %w", i, err)
	}
	return nil
}

// readPieces writes Disk sections until another comes, which it leaves there.
func readPieces(r *state.Reader, drives []*drive) error {
	for {
		t, b, err := r.Next()
		switch {
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case t != state.Disk:
			r.Unread()
			return nil
		}
		if err := writePiece(drives, b); err != nil {
			return err
		}
	}
}
