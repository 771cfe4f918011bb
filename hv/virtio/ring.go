package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"vmd/hv/mem"
)

// Descriptor flags (virtio 1.3, 2.7.5).
const (
	VIRTQ_DESC_F_NEXT     = 1
	VIRTQ_DESC_F_WRITE    = 2
	VIRTQ_DESC_F_INDIRECT = 4
)

// Ring flags (virtio 1.3, 2.7.6 and 2.7.8).
const (
	VIRTQ_AVAIL_F_NO_INTERRUPT = 1
	VIRTQ_USED_F_NO_NOTIFY     = 1
)

// Sizes of the three parts of a queue of n descriptors, and the alignment that
// each must have (virtio 1.3, 2.7).
const (
	descSize = 16

	descAlign  = 16
	availAlign = 2
	usedAlign  = 4
)

func availSize(n uint16) uint64 { return 6 + 2*uint64(n) }
func usedSize(n uint16) uint64  { return 6 + 8*uint64(n) }

var errAlign = errors.New("ring is not aligned")

// desc is one descriptor, copied.
type desc struct {
	addr  mem.GPA
	len   uint32
	flags uint16
	next  uint16
}

// descAt copies entry i, which must exist, out of a table in guest memory.
func descAt(table []byte, i uint16) desc {
	b := table[int(i)*descSize:][:descSize:descSize]
	addr, rest := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	return desc{mem.GPA(addr), uint32(rest), uint16(rest >> 32), uint16(rest >> 48)}
}

// availRing is the driver's part of a queue:
//
//	0      2     4              4+2n         6+2n
//	flags  idx   ring[0..n-1]   used_event
//
// It is read as the 32-bit words around each field, so that one load, which Go
// can make atomic, gets it. The area need only be aligned to 2: shift is 2 if
// it starts in the middle of a word.
type availRing struct {
	w     []uint32
	shift uint32
}

func newAvailRing(m *mem.Memory, gpa mem.GPA, n uint16) (availRing, error) {
	start, end := gpa&^3, (uint64(gpa)+availSize(n)+3)&^3
	if gpa%availAlign != 0 {
		return availRing{}, errAlign
	}
	if end < uint64(start) {
		return availRing{}, mem.ErrRange
	}
	b, err := m.Slice(start, end-uint64(start))
	if err != nil {
		return availRing{}, err
	}
	w := words32(b)
	if w == nil {
		return availRing{}, errAlign
	}
	return availRing{w, uint32(gpa - start)}, nil
}

// field loads the 16 bits at off. The load is an acquire.
func (a *availRing) field(off uint32) uint16 {
	off += a.shift
	return uint16(atomic.LoadUint32(&a.w[off/4]) >> (off % 4 * 8))
}

func (a *availRing) flags() uint16             { return a.field(0) }
func (a *availRing) idx() uint16               { return a.field(2) }
func (a *availRing) entry(i uint16) uint16     { return a.field(4 + 2*uint32(i)) }
func (a *availRing) usedEvent(n uint16) uint16 { return a.field(4 + 2*uint32(n)) }

// usedRing is the device's part of a queue:
//
//	0      2     4                        4+8n          6+8n
//	flags  idx   {id, len}[0..n-1]        avail_event
//
// It is aligned to 4, so flags and idx share a word that only the device
// writes.
type usedRing struct {
	w     []uint32
	event *uint16 // avail_event; the two bytes behind it are not ours
	fence uint32
}

func newUsedRing(m *mem.Memory, gpa mem.GPA, n uint16) (usedRing, error) {
	if gpa%usedAlign != 0 {
		return usedRing{}, errAlign
	}
	b, err := m.Slice(gpa, usedSize(n))
	if err != nil {
		return usedRing{}, err
	}
	w := words32(b[:len(b)-2])
	if w == nil {
		return usedRing{}, errAlign
	}
	return usedRing{w: w, event: &words16(b)[len(b)/2-1]}, nil
}

func (u *usedRing) entry(i uint16, id uint16, n uint32) {
	e := u.w[1+2*int(i):][:2:2]
	e[0], e[1] = uint32(id), n
}

// publish makes the entries before idx the driver's. The store is a release and
// a full fence: Go's atomic stores are sequentially consistent.
func (u *usedRing) publish(flags, idx uint16) {
	atomic.StoreUint32(&u.w[0], uint32(idx)<<16|uint32(flags))
}

// setEvent asks for a doorbell when the driver passes idx. The store is ordered
// before any later load (virtio 1.3, 2.7.10).
func (u *usedRing) setEvent(idx uint16) {
	*u.event = idx
	atomic.AddUint32(&u.fence, 1) // a locked instruction is a full fence
}

// newQueue makes queue i of c live: all three parts checked and found.
func newQueue(c *Core, i int) (*Queue, error) {
	qc := &c.queues[i]
	n := qc.Size
	if n == 0 || n&(n-1) != 0 || n > qc.Max {
		return nil, fmt.Errorf("size %d: not a power of two up to %d", n, qc.Max)
	}
	q := &Queue{
		index: i, size: n, mem: c.mem, bell: qc.bell, notify: c.notify, dead: &c.dead, rest: &c.rest, fail: c.Fail,
		at:       [2]mem.GPA{qc.Avail, qc.Used},
		eventIdx: c.driver&VIRTIO_RING_F_EVENT_IDX != 0,
		indirect: c.driver&VIRTIO_RING_F_INDIRECT_DESC != 0,
	}
	var err error
	if q.table, err = c.mem.Slice(qc.Desc, descSize*uint64(n)); err != nil || qc.Desc%descAlign != 0 {
		return nil, fmt.Errorf("descriptor table at %#x: %w", qc.Desc, errors.Join(err, alignErr(qc.Desc, descAlign)))
	}
	if q.avail, err = newAvailRing(c.mem, qc.Avail, n); err != nil {
		return nil, fmt.Errorf("available ring at %#x: %w", qc.Avail, err)
	}
	if q.used, err = newUsedRing(c.mem, qc.Used, n); err != nil {
		return nil, fmt.Errorf("used ring at %#x: %w", qc.Used, err)
	}
	return q, nil
}

func alignErr(gpa, align mem.GPA) error {
	if gpa%align != 0 {
		return errAlign
	}
	return nil
}
