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

// server owns one queue. Nothing in it is shared.
type server struct {
	d       *Device
	q       *virtio.Queue
	limits  limits
	through bool // the driver cannot flush, so each write has to be durable
	chain   virtio.Chain
	req     Request
}

// serve answers what the queue holds.
func (s *server) serve() {
	flushed := s.d.now()
	for s.q.Next(&s.chain) {
		start := s.d.now()
		if err := s.req.parse(&s.chain, &s.limits); err != nil {
			s.q.Fail(err)
			return
		}
		written := s.do(&s.req)
		end := s.d.now()
		s.count(&s.req, end-start)
		s.req.statusByte[0] = s.req.Status
		s.q.Done(&s.chain, written)
		if end-flushed > prompt {
			s.q.Flush()
			flushed = end
		}
	}
}

// do carries r out, sets its Status, and returns how many bytes from the start
// of the chain's writable part the driver may rely on.
func (s *server) do(r *Request) uint32 {
	if r.Status != VIRTIO_BLK_S_OK {
		return s.written(0)
	}
	var err error
	var n int64
	switch r.Op {
	case VIRTIO_BLK_T_IN:
		if err = s.d.image.ReadAtV(r.Data, r.Offset); err == nil {
			n = r.Len
		}
	case VIRTIO_BLK_T_OUT:
		err = s.d.image.WriteAtV(r.Data, r.Offset)
	case VIRTIO_BLK_T_FLUSH:
		s.q.Flush() // what is done should not wait for the disk
		err = s.d.image.Flush()
	case VIRTIO_BLK_T_GET_ID:
		n = int64(s.chain.Put(0, s.d.serial[:]))
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
	return s.written(n)
}

// changes reports whether an operation writes.
func changes(op uint32) bool {
	return op == VIRTIO_BLK_T_OUT || op == VIRTIO_BLK_T_DISCARD || op == VIRTIO_BLK_T_WRITE_ZEROES
}

// written is the used length: the status is the last byte, so it is covered
// only if all before it was written too (virtio 1.3, 2.7.8.2).
func (s *server) written(n int64) uint32 {
	if left := int64(s.chain.WritableLen()) - n; left > 0 {
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
