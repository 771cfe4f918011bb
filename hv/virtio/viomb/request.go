package viomb

import (
	"encoding/binary"
	"errors"

	"vmd/hv/virtio"
)

// maxPages bounds the page numbers of one buffer. Linux and OpenBSD send 256.
const maxPages = 1 << 16

var errPages = errors.New("array of page numbers is cut off, or has more than 65536")

// run is pages next to each other.
type run struct {
	first uint32
	n     uint32
}

// add takes page p into r, if it is next to it.
func (r *run) add(p uint32) bool {
	switch {
	case r.n == 0:
		r.first = p
	case uint64(p) == uint64(r.first)+uint64(r.n):
	case uint64(p)+1 == uint64(r.first):
		r.first = p
	default:
		return false
	}
	r.n++
	return true
}

// pages reads the page numbers of a buffer, copied piece by piece.
type pages struct {
	buf  [1024]byte
	rest []byte // of buf, not yet read
	left uint64 // in the chain
}

// begin starts with chain c.
func (p *pages) begin(c *virtio.Chain) error {
	p.rest, p.left = nil, c.ReadableLen()
	if p.left%4 != 0 || p.left > 4*maxPages {
		return errPages
	}
	return nil
}

// next returns the next page number.
func (p *pages) next(c *virtio.Chain) (pfn uint32, ok bool) {
	if len(p.rest) == 0 {
		b := p.buf[:min(p.left, uint64(len(p.buf)))]
		if len(b) == 0 || !c.Take(b) {
			return 0, false
		}
		p.rest, p.left = b, p.left-uint64(len(b))
	}
	pfn = binary.LittleEndian.Uint32(p.rest)
	p.rest = p.rest[4:]
	return pfn, true
}

// stats is what is read out of a buffer of statistics.
type stats struct {
	free, total, available uint64
	seen                   [3]bool
}

// parseStats reads what c holds. What is cut off, unknown or too much is left
// out: drivers differ in what they know.
func parseStats(c *virtio.Chain, s *stats, buf *[statSize]byte) {
	*s = stats{}
	for range maxStats {
		if !c.Take(buf[:]) {
			return
		}
		v := binary.LittleEndian.Uint64(buf[2:])
		switch binary.LittleEndian.Uint16(buf[:]) {
		case VIRTIO_BALLOON_S_MEMFREE:
			s.free, s.seen[0] = v, true
		case VIRTIO_BALLOON_S_MEMTOT:
			s.total, s.seen[1] = v, true
		case VIRTIO_BALLOON_S_AVAIL:
			s.available, s.seen[2] = v, true
		}
	}
}
