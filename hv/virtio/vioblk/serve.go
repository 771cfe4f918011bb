package vioblk

import (
	"sync/atomic"
	"time"

	"vmd/hv/virtio"
)

// prompt is how long a finished request may wait for others of its burst before
// the guest hears of it: a burst from the page cache is shorter than that and
// costs one interrupt, a slow disk delays nobody's answer.
const prompt = 100 * time.Microsecond

// server owns one queue. Only its owner touches what is in it, but for what the
// crew has in hand.
type server struct {
	d       *Device
	q       *virtio.Queue
	limits  limits
	through bool // the driver cannot flush, so each write has to be durable
	pace    pace
	crew    *crew
	free    *slot         // a list
	spare   int           // its length
	flushed time.Duration // when the driver last heard of what is done
}

func newServer(d *Device, q *virtio.Queue, features uint64) *server {
	s := &server{
		d: d, q: q, spare: maxHands + 1,
		limits: limits{sectors: d.sectors(), features: features, readOnly: d.readOnly},
		// virtio 1.3, 5.2.6.2: without FLUSH the driver takes the device for
		// write-through.
		through: features&VIRTIO_BLK_F_FLUSH == 0,
	}
	for range s.spare {
		s.free = &slot{next: s.free}
	}
	s.crew = newCrew(s.do, q.Fail, q.Ring)
	return s
}

// serve answers what the queue holds. When it returns because the queue is
// halting, nothing is on its way.
func (s *server) serve() {
	s.flushed = s.d.now()
	for {
		s.accept()
		for s.q.Halting() && s.collect(true) {
		}
		if s.alone() || !s.collect(false) && s.crew.rest() {
			return
		}
	}
}

// accept takes requests until there are no more.
func (s *server) accept() {
	for {
		for s.collect(s.spare == 1) {
		}
		n := s.free
		if !s.q.Next(&n.chain) {
			return
		}
		n.taken = s.d.now()
		if err := n.req.parse(&n.chain, &s.limits); err != nil {
			s.q.Fail(err)
			return
		}
		s.free = n.next
		s.spare--
		if n.req.Status == VIRTIO_BLK_S_OK && s.pace.slow(&n.req) {
			s.crew.give(n)
			continue
		}
		if n.req.Op == VIRTIO_BLK_T_FLUSH {
			s.q.Flush() // what is done should not wait for the disk
		}
		s.do(n)
		s.answer(n)
	}
}

// alone says that the crew has nothing.
func (s *server) alone() bool { return s.spare > maxHands }

// collect answers a request that the crew has carried out, and says whether
// there was one. If it is to, it waits for one that is on its way.
func (s *server) collect(wait bool) bool {
	if s.alone() {
		return false
	}
	if wait {
		s.q.Flush()
	}
	n := s.crew.take(wait)
	if n == nil {
		return false
	}
	s.answer(n)
	return true
}

// answer gives a request that was carried out back to the driver.
func (s *server) answer(n *slot) {
	end := s.d.now()
	s.pace.note(&n.req, n.took)
	s.count(&n.req, end-n.taken)
	n.req.statusByte[0] = n.req.Status
	s.q.Done(&n.chain, n.written)
	n.next, s.free = s.free, n
	s.spare++
	if end-s.flushed > prompt {
		s.q.Flush()
		s.flushed = end
	}
}

// do carries a request out: sets its Status, and how many bytes from the start of
// the chain's writable part the driver may rely on. The owner or the crew calls
// it.
func (s *server) do(n *slot) {
	r := &n.req
	if r.Status != VIRTIO_BLK_S_OK {
		n.written = written(&n.chain, 0)
		return
	}
	start := s.d.now()
	var err error
	var data int64
	switch r.Op {
	case VIRTIO_BLK_T_IN:
		if err = s.d.image.ReadAtV(r.Data, r.Offset); err == nil {
			data = r.Len
		}
	case VIRTIO_BLK_T_OUT:
		err = s.d.image.WriteAtV(r.Data, r.Offset)
	case VIRTIO_BLK_T_FLUSH:
		err = s.d.image.Flush()
	case VIRTIO_BLK_T_GET_ID:
		data = int64(n.chain.Put(0, s.d.serial[:]))
	case VIRTIO_BLK_T_DISCARD:
		err = s.discard(r.Segments)
	case VIRTIO_BLK_T_WRITE_ZEROES:
		err = s.zero(r.Segments)
	}
	if err == nil && s.through && changes(r.Op) {
		err = s.d.image.Flush()
	}
	if err != nil {
		r.Status = VIRTIO_BLK_S_IOERR
	}
	n.written, n.took = written(&n.chain, data), s.d.now()-start
}

// changes reports whether an operation writes.
func changes(op uint32) bool {
	return op == VIRTIO_BLK_T_OUT || op == VIRTIO_BLK_T_DISCARD || op == VIRTIO_BLK_T_WRITE_ZEROES
}

// written is the used length: the status is the last byte, so it is covered
// only if all before it was written too (virtio 1.3, 2.7.8.2).
func written(c *virtio.Chain, n int64) uint32 {
	if left := int64(c.WritableLen()) - n; left > 0 {
		return uint32(n)
	}
	return uint32(n) + 1
}

func (s *server) discard(segs []Segment) error {
	for _, g := range segs {
		if err := s.d.image.Discard(g.Offset, g.Len); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) zero(segs []Segment) error {
	for _, g := range segs {
		if err := s.d.image.WriteZeroes(g.Offset, g.Len, g.Unmap); err != nil {
			return err
		}
	}
	return nil
}

// count books r, which took d. A failed request is an operation without bytes.
func (s *server) count(r *Request, d time.Duration) {
	c, bytes := s.d.counters, uint64(r.Len)
	if r.Status != VIRTIO_BLK_S_OK {
		bytes = 0
	}
	if r.Status == VIRTIO_BLK_S_IOERR {
		atomic.AddUint64(&c.Errors, 1)
	}
	switch r.Op {
	case VIRTIO_BLK_T_IN:
		atomic.AddUint64(&c.ReadOps, 1)
		atomic.AddUint64(&c.ReadBytes, bytes)
		atomic.AddUint64(&c.ReadNS, uint64(d))
	case VIRTIO_BLK_T_OUT:
		atomic.AddUint64(&c.WriteOps, 1)
		atomic.AddUint64(&c.WriteBytes, bytes)
		atomic.AddUint64(&c.WriteNS, uint64(d))
	case VIRTIO_BLK_T_FLUSH:
		atomic.AddUint64(&c.FlushOps, 1)
	}
}
