package vioblk

import "time"

// pace tells slow storage from fast. What comes out of the host's memory is best
// done at once: it is ready before a helper would be awake.
type pace [VIRTIO_BLK_T_FLUSH + 1]uint8

// A request that is slow counts for as many fast ones; the sum is kept from
// being so large that a change is noticed late.
const (
	slowWeight = 4
	slowFrom   = 8
	slowMost   = 32
)

// note takes into account that r took a time.
func (p *pace) note(r *Request, took time.Duration) {
	if int(r.Op) >= len(p) {
		return
	}
	switch n := p[r.Op]; {
	case took > limit(r):
		p[r.Op] = min(n+slowWeight, slowMost)
	case n > 0:
		p[r.Op] = n - 1
	}
}

// limit is how long a request may take that the host's memory answers: 4 ns a
// byte leave room for the first write to a page of a file.
func limit(r *Request) time.Duration { return prompt + time.Duration(4*r.Len) }

// slow says whether r is likely to take long.
func (p *pace) slow(r *Request) bool {
	if int(r.Op) < len(p) {
		return p[r.Op] >= slowFrom
	}
	// To discard or to zero is rare and changes the storage's own tables.
	return r.Op != VIRTIO_BLK_T_GET_ID
}
