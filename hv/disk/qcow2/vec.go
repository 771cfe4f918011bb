package qcow2

import "sync"

// chunk is how much is copied or zeroed at a time.
const chunk = 64 << 10

// zeroes is what is written where zeros must be.
var zeroes [chunk]byte

// vec gives out a list of buffers in parts.
type vec struct {
	bufs [][]byte
	skip int // bytes of bufs[0] already given out
	part [][]byte
}

func (v *vec) reset(bufs [][]byte) { v.bufs, v.skip = bufs, 0 }

// take returns the next n bytes. The list is valid until the next take.
func (v *vec) take(n int64) [][]byte {
	v.part = v.part[:0]
	for n > 0 && len(v.bufs) > 0 {
		b := v.bufs[0][v.skip:]
		if int64(len(b)) > n {
			b = b[:n]
			v.skip += int(n)
		} else {
			v.bufs, v.skip = v.bufs[1:], 0
		}
		v.part = append(v.part, b)
		n -= int64(len(b))
	}
	return v.part
}

// scratch is what a request needs besides its buffers.
type scratch struct {
	vec
	one  [1][]byte // a list of one buffer
	bulk []byte    // chunk bytes, made when needed
}

// single makes a list of b.
func (s *scratch) single(b []byte) [][]byte {
	s.one[0] = b
	return s.one[:]
}

func (s *scratch) buffer() []byte {
	if s.bulk == nil {
		s.bulk = make([]byte, chunk)
	}
	return s.bulk
}

// pool keeps the scratches of requests that ended. A sync.Pool would give them
// to the garbage collector and a request in every few would allocate.
type pool struct {
	mu   sync.Mutex
	free []*scratch
}

// maxPool is how many are kept: about one for each queue.
const maxPool = 16

func (p *pool) get() *scratch {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return s
	}
	p.mu.Unlock()
	return new(scratch)
}

// put takes s back. It keeps none of the caller's buffers.
func (p *pool) put(s *scratch) {
	clear(s.part[:cap(s.part)])
	s.bufs, s.one[0] = nil, nil
	p.mu.Lock()
	if len(p.free) < maxPool {
		p.free = append(p.free, s)
	}
	p.mu.Unlock()
}

// zero clears all of bufs.
func zero(bufs [][]byte) {
	for _, b := range bufs {
		clear(b)
	}
}
