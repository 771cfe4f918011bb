package diskload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A record is a block of the disk written as a whole with a number: its 32-bit
// word i is number + i*step. So each sector tells which record it is of, and
// whether all of it is.
const (
	Block  = 4096
	sector = 512
	step   = 0x9e3779b1 // 2^32 divided by the golden ratio: odd, and well spread
	// BlockBits is how large the part of a disk is, in blocks as a power of
	// two, that numbered records go to.
	BlockBits = 14
	// Size is that in bytes.
	Size = Block << BlockBits
	// Batch is how many records are written between two flushes. The first of a
	// batch is a multiple of it.
	Batch = 8
)

// Place is the block that record n goes to.
func Place(n uint32) int64 { return int64(n * step >> (32 - BlockBits)) }

// Put makes b, part of a block from byte at on, that part of record n.
func Put(b []byte, n uint32, at int) {
	w := n + uint32(at/4)*step
	for ; len(b) >= 4; b = b[4:] {
		binary.LittleEndian.PutUint32(b, w)
		w += step
	}
}

// number is the record that a sector, at byte at of its block, is of.
func number(b []byte, at int) (n uint32, whole bool) {
	n = binary.LittleEndian.Uint32(b) - uint32(at/4)*step
	w := n + uint32(at/4)*step
	for ; len(b) >= 4; b = b[4:] {
		if binary.LittleEndian.Uint32(b) != w {
			return n, false
		}
		w += step
	}
	return n, true
}

// History is which records a disk may hold after its guest wrote first to
// synced, with or without some of those up to last.
type History struct {
	least [1 << BlockBits]uint32 // by block: what it holds at least; 0 is the base
	first uint32
	last  uint32
}

// Add notes that records from first on were written and up to synced flushed,
// and perhaps some up to last. All are whole batches.
func (h *History) Add(first, synced, last uint32) {
	if h.first == 0 {
		h.first = first
	}
	// Within a batch any order will do, so the smallest number counts.
	for batch := first; batch <= synced; batch += Batch {
		for n := batch + Batch; n > batch; n-- {
			h.least[Place(n-1)] = n - 1
		}
	}
	h.last = last
}

// Check reads the disk and says which sector is not as it may be. A sector that
// no record reached must be what base has there.
func (h *History) Check(disk, base io.ReaderAt) error {
	got, was := make([]byte, Block), make([]byte, Block)
	for block := range int64(1 << BlockBits) {
		if _, err := disk.ReadAt(got, block*Block); err != nil {
			return err
		}
		if _, err := base.ReadAt(was, block*Block); err != nil {
			return err
		}
		for at := 0; at < Block; at += sector {
			if err := h.sector(got[at:at+sector], was[at:at+sector], block, at); err != nil {
				return fmt.Errorf("block %d, byte %d: %w", block, at, err)
			}
		}
	}
	return nil
}

func (h *History) sector(got, was []byte, block int64, at int) error {
	least := h.least[block]
	n, whole := number(got, at)
	switch {
	case least == 0 && string(got) == string(was):
		return nil
	case !whole:
		return fmt.Errorf("% x… is no record; want number %d or later", got[:16], least)
	case n < max(least, h.first) || n > h.last || Place(n) != block:
		return fmt.Errorf("record %d, want %d to %d", n, least, h.last)
	}
	return nil
}

// records writes batches for ever.
func (d *device) records(out io.Writer, first uint32) error {
	if d.size < Size {
		return fmt.Errorf("disk of %d bytes: want %d", d.size, Size)
	}
	for n := first; ; n += Batch {
		for k := range uint32(Batch) {
			Put(d.buf[:Block], n+k, 0)
			if err := d.write(d.buf[:Block], Place(n+k)*Block); err != nil {
				return err
			}
		}
		if err := d.sync(); err != nil {
			return err
		}
		fmt.Fprintf(out, "synced %d\n", n+Batch-1)
	}
}

var errShort = errors.New("disk is shorter than that")

// Said is how many MiB fill and verify do before they print "done N".
const Said = 64

func said(out io.Writer, off int64) {
	if off += bufSize; off%(Said*mib) == 0 {
		fmt.Fprintf(out, "done %d\n", off/mib)
	}
}

// fill writes records first, first+1, … one after the other into blocks that
// follow each other.
func (d *device) fill(out io.Writer, mibs int64, first uint32) error {
	if mibs*mib > d.size {
		return errShort
	}
	for off := int64(0); off < mibs*mib; off += bufSize {
		FillAt(d.buf, off, first)
		if err := d.write(d.buf, off); err != nil {
			return err
		}
		said(out, off)
	}
	return d.sync()
}

// FillAt makes b what fill puts at off, a multiple of Block.
func FillAt(b []byte, off int64, first uint32) {
	n := first + uint32(off/Block)
	for ; len(b) >= Block; b = b[Block:] {
		Put(b[:Block], n, 0)
		n++
	}
}

// verify fails unless fill did its work.
func (d *device) verify(out io.Writer, mibs int64, first uint32) error {
	for off := int64(0); off < mibs*mib; off += bufSize {
		if err := d.read(d.buf, off); err != nil {
			return err
		}
		n := first + uint32(off/Block)
		for k := 0; k < bufSize; k += Block {
			if got, whole := number(d.buf[k:k+Block], 0); !whole || got != n {
				return fmt.Errorf("byte %d: record %d, whole: %v; want record %d", off+int64(k), got, whole, n)
			}
			n++
		}
		said(out, off)
	}
	return nil
}
