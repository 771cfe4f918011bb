package vm

import (
	"io"
	"sync"
)

// ringSize is how much of its output a guest's console remembers.
const ringSize = 64 << 10

// ring keeps the last ringSize bytes that a guest wrote to its console. Writing
// never waits: a reader that falls further behind than that loses what was
// overwritten.
type ring struct {
	mu      sync.Mutex
	written sync.Cond // end or closed changed
	buf     [ringSize]byte
	end     uint64 // bytes written since the beginning
	closed  bool
}

func newRing() *ring {
	r := &ring{}
	r.written.L = &r.mu
	return r
}

// Write implements io.Writer for the UART. It is called on a vCPU's thread.
func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	for _, c := range p {
		r.buf[r.end%ringSize] = c
		r.end++
	}
	r.mu.Unlock()
	r.written.Broadcast()
	return len(p), nil
}

// start is the position of a reader: behind all that is kept, or at the end.
func (r *ring) start(replay bool) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !replay {
		return r.end
	}
	return r.end - min(r.end, ringSize)
}

// bytes returns all that is kept.
func (r *ring) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := make([]byte, 0, ringSize)
	for pos := r.end - min(r.end, ringSize); pos < r.end; pos++ {
		b = append(b, r.buf[pos%ringSize])
	}
	return b
}

// next copies what was written from pos on into p, waiting for something to
// be. It returns how much, and the position behind it. After close it returns
// io.EOF once everything has been read.
func (r *ring) next(p []byte, pos uint64) (int, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pos == r.end && !r.closed {
		r.written.Wait()
	}
	if pos == r.end {
		return 0, pos, io.EOF
	}
	if r.end-pos > ringSize {
		pos = r.end - ringSize
	}
	n := min(len(p), int(r.end-pos))
	for i := range p[:n] {
		p[i] = r.buf[(pos+uint64(i))%ringSize]
	}
	return n, pos + uint64(n), nil
}

// close ends all readers once they have read everything.
func (r *ring) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.written.Broadcast()
}
