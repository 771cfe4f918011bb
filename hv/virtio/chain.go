package virtio

import (
	"errors"
	"fmt"

	"vmd/hv/mem"
)

// maxIndirect bounds an indirect table, which may not be longer than the queue
// for a driver that keeps to the specification (virtio 1.3, 2.7.5.3.1), but is
// for some.
const maxIndirect = 1024

var (
	errLoop     = errors.New("descriptor chain is longer than its table")
	errIndirect = errors.New("indirect table where none may be")
	errOrder    = errors.New("device-readable descriptor after a writable one")
	errLength   = errors.New("chain of 4 GiB or more")
)

// Chain is one buffer of the driver's: its descriptors copied, checked, and
// found in guest memory. The lists of slices are the chain's own; the bytes are
// the guest's and may change at any moment. The zero Chain is ready for
// Queue.Next, and is meant to be used again and again: it soon stops allocating.
type Chain struct {
	// Readable is what the device may read, Writable what it may write.
	Readable, Writable [][]byte

	head     uint16
	segs     [][]byte // backs both
	readable int      // how many of segs are device-readable
	total    uint64
}

// load fills c from the chain that starts at descriptor head.
func (c *Chain) load(q *Queue, head uint16) error {
	c.segs, c.head, c.readable, c.total = c.segs[:0], head, 0, 0
	table, i, left, nested := q.table, head, int(q.size), false
	for {
		if int(i) >= len(table)/descSize {
			return fmt.Errorf("descriptor %d of a table of %d", i, len(table)/descSize)
		}
		d := descAt(table, i)
		if d.flags&VIRTQ_DESC_F_INDIRECT != 0 {
			if nested || !q.indirect || d.flags&VIRTQ_DESC_F_NEXT != 0 {
				return errIndirect
			}
			var err error
			if table, err = indirectTable(q.mem, d); err != nil {
				return err
			}
			i, left, nested = 0, len(table)/descSize, true
			continue
		}
		if err := c.add(q.mem, d); err != nil {
			return err
		}
		if d.flags&VIRTQ_DESC_F_NEXT == 0 {
			break
		}
		if left--; left == 0 {
			return errLoop
		}
		i = d.next
	}
	c.Readable, c.Writable = c.segs[:c.readable:c.readable], c.segs[c.readable:]
	return nil
}

func indirectTable(m *mem.Memory, d desc) ([]byte, error) {
	if d.len == 0 || d.len%descSize != 0 || d.len > maxIndirect*descSize {
		return nil, fmt.Errorf("indirect table of %d bytes: want 1 to %d descriptors", d.len, maxIndirect)
	}
	b, err := m.Slice(d.addr, uint64(d.len))
	if err != nil {
		return nil, fmt.Errorf("indirect table at %#x: %w", d.addr, err)
	}
	return b, nil
}

// add appends what d describes.
func (c *Chain) add(m *mem.Memory, d desc) error {
	write := d.flags&VIRTQ_DESC_F_WRITE != 0
	if !write && len(c.segs) > c.readable {
		return errOrder
	}
	if c.total += uint64(d.len); c.total > 1<<32-1 {
		return errLength
	}
	for d.len > 0 {
		b, err := slice(m, d.addr, uint64(d.len))
		if err != nil {
			return fmt.Errorf("%d bytes at %#x: %w", d.len, d.addr, err)
		}
		c.segs = append(c.segs, b)
		if !write {
			c.readable = len(c.segs)
		}
		d.addr += mem.GPA(len(b))
		d.len -= uint32(len(b))
	}
	return nil
}

// slice returns up to n bytes at gpa: less where one region ends and the next
// begins right behind it.
func slice(m *mem.Memory, gpa mem.GPA, n uint64) ([]byte, error) {
	if b, err := m.Slice(gpa, n); err == nil {
		return b, nil
	}
	for _, r := range m.Regions() {
		if gpa < r.Base || gpa-r.Base >= mem.GPA(len(r.Bytes)) {
			continue
		}
		if rest := uint64(len(r.Bytes)) - uint64(gpa-r.Base); rest < n {
			return m.Slice(gpa, rest)
		}
	}
	return nil, mem.ErrRange
}

// ReadableLen is the number of bytes left in Readable.
func (c *Chain) ReadableLen() uint64 { return total(c.Readable) }

// WritableLen is the number of bytes left in Writable.
func (c *Chain) WritableLen() uint64 { return total(c.Writable) }

func total(segs [][]byte) uint64 {
	var n uint64
	for _, s := range segs {
		n += uint64(len(s))
	}
	return n
}

// Take copies the next len(p) readable bytes into p and removes them from
// Readable. It returns false, and removes nothing, if there are fewer.
func (c *Chain) Take(p []byte) bool {
	if c.ReadableLen() < uint64(len(p)) {
		return false
	}
	for len(p) > 0 {
		n := copy(p, c.Readable[0])
		p = p[n:]
		if c.Readable[0] = c.Readable[0][n:]; len(c.Readable[0]) == 0 {
			c.Readable = c.Readable[1:]
		}
	}
	return true
}

// TakeLast removes the last writable byte and returns it, or nil if there is
// none: devices put a status there, whatever descriptor it falls into
// (virtio 1.3, 2.7.4).
func (c *Chain) TakeLast() []byte {
	if len(c.Writable) == 0 {
		return nil
	}
	i := len(c.Writable) - 1
	s := c.Writable[i]
	last := s[len(s)-1:]
	if c.Writable[i] = s[:len(s)-1]; len(s) == 1 {
		c.Writable = c.Writable[:i]
	}
	return last
}

// Put copies p into the writable part from offset off on, as far as it fits,
// and returns how much that is.
func (c *Chain) Put(off uint64, p []byte) int {
	n := 0
	for _, s := range c.Writable {
		if off >= uint64(len(s)) {
			off -= uint64(len(s))
			continue
		}
		n += copy(s[off:], p[n:])
		off = 0
	}
	return n
}
