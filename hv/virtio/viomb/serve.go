package viomb

import (
	"sync/atomic"

	"vmd/hv/mem"
	"vmd/hv/virtio"
)

// pageServer owns the inflate queue, whose pages it discards, or the deflate
// queue: pages come back by being touched, so there is nothing to do.
type pageServer struct {
	d       *Device
	q       *virtio.Queue
	discard bool
	chain   virtio.Chain
	pages   pages
}

func (s *pageServer) serve() {
	for s.q.Next(&s.chain) {
		if err := s.take(); err != nil {
			s.q.Fail(err)
			return
		}
		s.q.Done(&s.chain, 0)
	}
}

func (s *pageServer) take() error {
	if err := s.pages.begin(&s.chain); err != nil || !s.discard {
		return err
	}
	var r run
	for {
		p, ok := s.pages.next(&s.chain)
		if ok && r.add(p) {
			continue
		}
		// Pages outside the guest's memory cannot be given back, and pages
		// that the host does not take are still the guest's.
		_ = s.d.mem.Discard(mem.GPA(r.first)<<pageShift, uint64(r.n)<<pageShift)
		if !ok {
			return nil
		}
		r = run{p, 1}
	}
}

// reportServer owns the reporting queue: the buffers themselves are free, until
// they are returned (virtio 1.3, 5.5.6.7).
type reportServer struct {
	d     *Device
	q     *virtio.Queue
	chain virtio.Chain
}

func (s *reportServer) serve() {
	for s.q.Next(&s.chain) {
		var n uint64
		for _, b := range s.chain.Writable {
			if mem.Release(b) == nil {
				n += uint64(len(b))
			}
		}
		atomic.AddUint64(&s.d.counters.Reported, n)
		s.q.Done(&s.chain, 0)
	}
}

// statsServer owns the statistics queue. It keeps the buffer that it has read;
// to return it is to ask for another (virtio 1.3, 5.5.6.3).
type statsServer struct {
	d      *Device
	q      *virtio.Queue
	wanted atomic.Bool
	held   bool
	chains [2]virtio.Chain // the one that is held, and the next
	buf    [statSize]byte
	stats  stats
}

func (s *statsServer) serve() {
	for s.q.Next(&s.chains[1]) {
		parseStats(&s.chains[1], &s.stats, &s.buf)
		s.publish()
		if s.held {
			s.release() // drivers have one
		}
		s.chains[0], s.chains[1] = s.chains[1], s.chains[0]
		s.held = true
	}
	switch {
	case !s.held:
	case s.q.Halting(): // to be read again: nobody else knows of it
		s.q.Rewind(1)
		s.held = false
	case s.wanted.Swap(false):
		s.release()
	}
}

func (s *statsServer) release() {
	s.q.Done(&s.chains[0], 0)
	s.held = false
}

func (s *statsServer) publish() {
	c := s.d.counters
	for i, v := range [...]struct {
		to   *uint64
		from uint64
	}{{&c.Free, s.stats.free}, {&c.Total, s.stats.total}, {&c.Available, s.stats.available}} {
		if s.stats.seen[i] {
			atomic.StoreUint64(v.to, v.from)
		}
	}
}
