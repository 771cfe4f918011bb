package virtio

import (
	"fmt"
	"sync/atomic"

	"vmd/hv/mem"
)

// Queue is the device's end of one split virtqueue (virtio 1.3, 2.7). Only the
// goroutine that owns it calls its methods:
//
//	for q.Next(&chain) {
//		…
//		q.Done(&chain, written)
//	}
//	q.Flush()
//
// No method blocks or allocates.
type Queue struct {
	index    int
	size     uint16
	eventIdx bool
	indirect bool
	mem      *mem.Memory
	bell     *Doorbell
	notify   Notifier
	dead     *atomic.Bool
	rest     *bool // the device is paused: of whoever calls the device's methods
	fail     func(error)

	table []byte     // descriptors
	at    [2]mem.GPA // of the available and the used ring
	avail availRing
	used  usedRing

	lastAvail uint16 // next entry of the available ring to take
	availIdx  uint16 // the driver's index, as last seen
	usedIdx   uint16 // next entry of the used ring to fill
	published uint16 // the index that the driver knows
	usedFlags uint16
}

// Index is the queue's number.
func (q *Queue) Index() int { return q.index }

// Resting says that the device is paused: who starts to serve the queue waits
// for Resume. It is for Activate and the device's other methods.
func (q *Queue) Resting() bool { return *q.rest }

// Size is how many descriptors the queue has.
func (q *Queue) Size() uint16 { return q.size }

// Halting says that the owner should return what it holds and come to rest:
// the device is being paused or reset, or it is broken.
func (q *Queue) Halting() bool { return q.bell.ctl.Load() != ctlRun || q.dead.Load() }

// Next takes the next chain that the driver made available into c. It returns
// false if there is none, or the queue is to halt. A broken ring fails the
// device.
func (q *Queue) Next(c *Chain) bool {
	if q.Halting() {
		return false
	}
	if q.lastAvail == q.availIdx && !q.refresh() {
		return false
	}
	head := q.avail.entry(q.lastAvail & (q.size - 1))
	if err := c.load(q, head); err != nil {
		q.Fail(err)
		return false
	}
	q.lastAvail++
	return true
}

// refresh looks at the driver's index and says whether there is work.
func (q *Queue) refresh() bool {
	idx := q.avail.idx()
	if n := idx - q.lastAvail; n > q.size {
		q.Fail(fmt.Errorf("available index jumped from %d to %d in a ring of %d", q.lastAvail, idx, q.size))
		return false
	}
	q.availIdx = idx
	return idx != q.lastAvail
}

// Rewind gives the last n chains that Next returned, and that were not Done,
// back to the ring: Next returns them again.
func (q *Queue) Rewind(n int) { q.lastAvail -= uint16(n) }

// Done returns chain c to the driver with the first written bytes of its
// writable part filled. The driver learns of it with the next Flush.
func (q *Queue) Done(c *Chain, written uint32) {
	q.used.entry(q.usedIdx&(q.size-1), c.head, written)
	q.usedIdx++
	q.Touched(c)
}

// Touched marks what the device may have written of chain c. Done does so; it is
// for chains that are given back otherwise.
func (q *Queue) Touched(c *Chain) {
	if !q.mem.Tracking() {
		return
	}
	for _, s := range c.segs[c.readable:] {
		q.mem.TouchedBytes(s[:cap(s)]) // also what was taken off the end
	}
}

// publish makes the used entries before idx, and the flags, the driver's.
func (q *Queue) publish(idx uint16) {
	q.used.publish(q.usedFlags, idx)
	q.mem.Touched(q.at[1], usedSize(q.size))
}

// Flush hands everything Done to the driver, with one interrupt unless the
// driver wants none.
func (q *Queue) Flush() {
	if q.usedIdx == q.published || q.dead.Load() {
		return
	}
	old := q.published
	q.publish(q.usedIdx)
	q.published = q.usedIdx
	if q.wanted(old) {
		q.notify.NotifyQueue(q.index)
	}
}

// wanted says whether the driver asked to hear of the entries from old on. It
// comes after publish, which is a full fence (virtio 1.3, 2.7.7.2).
func (q *Queue) wanted(old uint16) bool {
	if q.eventIdx {
		event := q.avail.usedEvent(q.size)
		return q.usedIdx-event-1 < q.usedIdx-old
	}
	return q.avail.flags()&VIRTQ_AVAIL_F_NO_INTERRUPT == 0
}

// disarm tells the driver that doorbells are of no use: the queue is being
// served. With EVENT_IDX a stale avail_event says so.
func (q *Queue) disarm() {
	if !q.eventIdx && q.usedFlags == 0 {
		q.usedFlags = VIRTQ_USED_F_NO_NOTIFY
		q.publish(q.published)
	}
}

// arm asks for a doorbell with the next chain. It returns true if there is one
// already: its doorbell may not come.
func (q *Queue) arm() bool {
	if q.eventIdx {
		q.used.setEvent(q.lastAvail)
		q.mem.Touched(q.at[1], usedSize(q.size))
	} else if q.usedFlags != 0 {
		q.usedFlags = 0
		q.publish(q.published)
	}
	return q.avail.idx() != q.lastAvail
}

// Fail says that the guest broke the queue: the device needs a reset.
func (q *Queue) Fail(err error) { q.fail(fmt.Errorf("queue %d: %w", q.index, err)) }
