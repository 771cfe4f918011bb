package virtiotest

import (
	"encoding/binary"
	"sync/atomic"

	"vmd/hv/mem"
	"vmd/hv/virtio"
)

// Queue is the driver's end of a split virtqueue. Once warm its methods do not
// allocate, so that tests can count what a device does.
type Queue struct {
	// Desc, Avail and Used are where the ring's parts are.
	Desc, Avail, Used mem.GPA

	d     *Driver
	index int
	size  uint16
	bell  uint64
	irq   *event

	desc         []byte
	availEntries []byte
	usedEntries  []byte
	avail, used  []uint32 // first word: flags and idx
	usedEvent    []byte
	availEvent   []byte

	next     uint16 // descriptor to use next
	availIdx uint16
	usedIdx  uint16
	kicked   uint16 // availIdx at the last Kick
	fence    uint32
	ringBuf  [2]byte
}

// Part is one descriptor to be: N bytes at GPA.
type Part struct {
	GPA   mem.GPA
	N     int
	Write bool
}

// In is a part that the device reads, Out one that it writes.
func In(gpa mem.GPA, n int) Part { return Part{GPA: gpa, N: n} }

// Out is a part that the device writes.
func Out(gpa mem.GPA, n int) Part { return Part{GPA: gpa, N: n, Write: true} }

// view finds the parts of a ring, and empties them, as a driver does.
func (q *Queue) view() {
	n := int(q.size)
	clear(q.d.Host.Bytes(q.Desc, 16*n))
	clear(q.d.Host.Bytes(q.Avail, 6+2*n))
	clear(q.d.Host.Bytes(q.Used, 6+8*n))
	q.find()
}

// find finds the parts of a ring.
func (q *Queue) find() {
	n := int(q.size)
	b := func(gpa mem.GPA, n int) []byte { return q.d.Host.Bytes(gpa, n) }
	q.desc = b(q.Desc, 16*n)
	q.availEntries, q.usedEvent = b(q.Avail+4, 2*n), b(q.Avail+4+mem.GPA(2*n), 2)
	q.usedEntries, q.availEvent = b(q.Used+4, 8*n), b(q.Used+4+mem.GPA(8*n), 2)
	q.avail, q.used = words(b(q.Avail, 4)), words(b(q.Used, 4))
}

// PutDesc writes descriptor i.
func (q *Queue) PutDesc(i uint16, gpa mem.GPA, n uint32, flags, next uint16) {
	putDesc(q.desc[16*int(i):], gpa, n, flags, next)
}

func putDesc(b []byte, gpa mem.GPA, n uint32, flags, next uint16) {
	binary.LittleEndian.PutUint64(b, uint64(gpa))
	binary.LittleEndian.PutUint32(b[8:], n)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// Add makes a chain of parts available and returns its head. The device hears
// of it with Kick. The driver must not have more descriptors out than there are.
func (q *Queue) Add(parts ...Part) uint16 {
	head := q.next
	for i, p := range parts {
		flags, next := q.flags(p, i == len(parts)-1), (q.next+1)%q.size
		q.PutDesc(q.next, p.GPA, uint32(p.N), flags, next)
		q.next = next
	}
	q.Post(head)
	return head
}

func (q *Queue) flags(p Part, last bool) uint16 {
	var f uint16
	if p.Write {
		f |= virtio.VIRTQ_DESC_F_WRITE
	}
	if !last {
		f |= virtio.VIRTQ_DESC_F_NEXT
	}
	return f
}

// AddIndirect is Add with the parts in an indirect table, which stays allocated.
func (q *Queue) AddIndirect(parts ...Part) uint16 {
	table := q.d.Host.Alloc(16 * len(parts))
	b := q.d.Host.Bytes(table, 16*len(parts))
	for i, p := range parts {
		putDesc(b[16*i:], p.GPA, uint32(p.N), q.flags(p, i == len(parts)-1), uint16(i+1))
	}
	head := q.next
	q.PutDesc(head, table, uint32(len(b)), virtio.VIRTQ_DESC_F_INDIRECT, 0)
	q.next = (q.next + 1) % q.size
	q.Post(head)
	return head
}

// Post puts head into the available ring.
func (q *Queue) Post(head uint16) {
	binary.LittleEndian.PutUint16(q.availEntries[2*int(q.availIdx%q.size):], head)
	q.SetAvail(q.availIdx + 1)
}

// SetAvail stores the available index.
func (q *Queue) SetAvail(idx uint16) {
	q.availIdx = idx
	flags := uint32(binary.LittleEndian.Uint16(q.d.Host.Bytes(q.Avail, 2)))
	atomic.StoreUint32(&q.avail[0], uint32(idx)<<16|flags)
}

// NoInterrupts sets the available ring's flag.
func (q *Queue) NoInterrupts(on bool) {
	v := uint32(q.availIdx) << 16
	if on {
		v |= virtio.VIRTQ_AVAIL_F_NO_INTERRUPT
	}
	atomic.StoreUint32(&q.avail[0], v)
}

// SetUsedEvent asks for an interrupt when the device passes idx.
func (q *Queue) SetUsedEvent(idx uint16) {
	binary.LittleEndian.PutUint16(q.usedEvent, idx)
	atomic.AddUint32(&q.fence, 1) // before the look at the used index that follows
}

// Kick rings the doorbell, unless the device has said that it need not be.
func (q *Queue) Kick() {
	old := q.kicked
	q.kicked = q.availIdx
	if q.d.Features&virtio.VIRTIO_RING_F_EVENT_IDX != 0 {
		event := binary.LittleEndian.Uint16(q.availEvent)
		if q.availIdx-event-1 >= q.availIdx-old {
			return
		}
	} else if uint16(atomic.LoadUint32(&q.used[0]))&virtio.VIRTQ_USED_F_NO_NOTIFY != 0 {
		return
	}
	q.Ring()
}

// Ring rings the doorbell.
func (q *Queue) Ring() {
	binary.LittleEndian.PutUint16(q.ringBuf[:], uint16(q.index))
	if q.d.Legacy {
		q.d.Host.PokePort(q.bell, q.ringBuf[:])
		return
	}
	q.d.Host.Poke(q.bell, q.ringBuf[:])
}

// Next takes the next used entry, if there is one.
func (q *Queue) Next() (head uint16, n uint32, ok bool) {
	if uint16(atomic.LoadUint32(&q.used[0])>>16) == q.usedIdx {
		return 0, 0, false
	}
	e := q.usedEntries[8*int(q.usedIdx%q.size):]
	q.usedIdx++
	if q.d.Features&virtio.VIRTIO_RING_F_EVENT_IDX != 0 {
		q.SetUsedEvent(q.usedIdx)
	}
	return uint16(binary.LittleEndian.Uint32(e)), binary.LittleEndian.Uint32(e[4:]), true
}

// Wait takes the next used entry, for which it waits as a driver does: for the
// interrupt.
func (q *Queue) Wait() (head uint16, n uint32) {
	for {
		if head, n, ok := q.Next(); ok {
			return head, n
		}
		q.irq.wait("used buffer")
		if q.d.INTx {
			q.d.TakeISR()
		}
	}
}
