package vionet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"vmd/hv/virtio"
)

// rxBurst is how many frames may be delivered before the guest hears of them.
const rxBurst = 64

var errBuffer = errors.New("receive buffer is smaller than a header, or in too many pieces")

// receiver owns the receive queue. It takes buffers out of the ring ahead of
// the frames, so that a frame is read straight into them.
type receiver struct {
	d     *Device
	link  Link
	q     *virtio.Queue
	merge bool   // a frame may be spread over several chains
	short bool   // the driver's header is of shortLen bytes
	want  uint64 // room to have before reading, if the ring has it
	least uint64 // room without which reading makes no sense
	aim   uint64 // how much of the next frame is to go straight to its place
	plain int    // frames of no more than least, one after the other

	// held are the chains taken from the ring and not given back: count of
	// them from first on, in a circle, with room for so many bytes.
	held         [rxBurst]virtio.Chain
	first, count int
	room         uint64
	// bufs is what the next frame is read into: the pieces of the first listed
	// held chains, direct bytes in all, then spill. A frame that runs into spill
	// is larger than the last ones, or needs chains that were not there when the
	// read began. A locked interface lists none: what is not for the guest must
	// not be seen by it, not even in a buffer that it never gets back.
	bufs   [][]byte
	listed int
	direct uint64
	spill  []byte
	// gap takes the end of the link's header, for which a short one has no room.
	gap [HeaderLen - shortLen]byte
}

func newReceiver(d *Device, link Link, q *virtio.Queue, features uint64) *receiver {
	r := &receiver{d: d, link: link, q: q, merge: features&VIRTIO_NET_F_MRG_RXBUF != 0, short: shortHeader(features), least: 1}
	if r.merge {
		r.least = HeaderLen + etherLen + tagLen + uint64(d.mtu)
		r.want = r.least
		if features&(VIRTIO_NET_F_GUEST_TSO4|VIRTIO_NET_F_GUEST_TSO6) != 0 {
			r.want = maxFrame
		}
	}
	r.spill = make([]byte, 1) // so that a frame which is too long shows
	if r.want > r.least || d.locked {
		r.spill = make([]byte, maxFrame)
	}
	r.aim = r.least
	return r
}

// header is the length of the driver's.
func (r *receiver) header() uint64 {
	if r.short {
		return shortLen
	}
	return HeaderLen
}

// pieces is how many entries of bufs chain c takes at most.
func (r *receiver) pieces(c *virtio.Chain) int {
	if r.short {
		return len(c.Writable) + 2 // where the gap splits one
	}
	return len(c.Writable)
}

// takes is how many bytes of the link's held chain i takes, gap included.
func (r *receiver) takes(i int) uint64 {
	n := r.chain(i).WritableLen()
	if i == 0 && r.short {
		n += uint64(len(r.gap))
	}
	return n
}

func (r *receiver) chain(i int) *virtio.Chain { return &r.held[(r.first+i)%len(r.held)] }

// serve moves frames into the ring until it has no room, which leaves the next
// ones to the link: a tap's queue drops what nobody reads.
func (r *receiver) serve() {
	for fresh := 0; r.fill(); {
		n, err := r.link.ReadFrame(r.bufs, false)
		if n == 0 && err == nil {
			if r.q.Halting() {
				continue // the wake that was meant to end the wait is used up
			}
			r.q.Flush()
			fresh = 0
			n, err = r.link.ReadFrame(r.bufs, true)
		}
		if err != nil {
			r.q.Fail(fmt.Errorf("receive: %w", err))
			return
		}
		if n > 0 && r.deliver(n) {
			fresh++
		}
		if fresh == rxBurst {
			r.q.Flush()
			fresh = 0
		}
	}
	if r.q.Halting() {
		for i := range r.count {
			r.q.Touched(r.chain(i)) // frames that nobody wanted went through it
		}
		r.q.Rewind(r.count)
		r.count, r.room = 0, 0
	}
}

// fill takes chains until there is room for a frame. It returns false if there
// is not, or the queue is to halt.
func (r *receiver) fill() bool {
	if r.q.Halting() {
		return false
	}
	had := r.count
	for r.count < len(r.held) && (r.count == 0 || r.room < r.want) {
		c := r.chain(r.count)
		if !r.q.Next(c) {
			break
		}
		r.count++
		n := c.WritableLen()
		if r.room += n; n < r.header() || r.pieces(c) >= MaxSegments {
			r.q.Fail(errBuffer)
			return false
		}
	}
	if r.q.Halting() || r.count == 0 || r.room < r.least && r.count < len(r.held) {
		return false
	}
	if r.count != had || len(r.bufs) == 0 {
		r.gather()
	}
	return true
}

// gather lists the pieces of what is held until there is room for what is
// aimed at, then the spill: each piece costs the kernel time at each read, used
// or not. Chains in so many pieces that they do not all fit a read are left out
// of this one.
func (r *receiver) gather() {
	r.bufs, r.direct, r.listed = r.bufs[:0], 0, 0
	for r.listed < r.count && r.direct < r.aim && !r.d.locked {
		c := r.chain(r.listed)
		if len(r.bufs)+r.pieces(c) >= MaxSegments {
			break
		}
		if r.short && r.listed == 0 {
			r.list(c.Writable)
		} else {
			r.bufs = append(r.bufs, c.Writable...)
		}
		r.direct += r.takes(r.listed)
		r.listed++
	}
	r.bufs = append(r.bufs, r.spill)
}

// list appends the pieces of the first chain, with gap where the driver's header
// ends.
func (r *receiver) list(segs [][]byte) {
	left := shortLen
	for _, s := range segs {
		if left > 0 && len(s) >= left {
			r.bufs = append(r.bufs, s[:left], r.gap[:])
			s = s[left:]
			left = 0
		}
		left -= min(left, len(s))
		if len(s) > 0 {
			r.bufs = append(r.bufs, s)
		}
	}
}

// extend finds chains for the end of a frame of n bytes, which is in spill, and
// says whether there were any: a guest may add buffers while the link is being
// read.
func (r *receiver) extend(n int) bool {
	room, from := r.direct, r.listed
	r.bufs = r.bufs[:0] // gathered anew whatever comes of it
	for r.direct < uint64(n) {
		if r.listed == r.count {
			if !r.merge || r.count == len(r.held) || !r.q.Next(r.chain(r.count)) {
				return false
			}
			r.count++
			r.room += r.chain(r.listed).WritableLen()
		}
		r.direct += r.takes(r.listed)
		r.listed++
	}
	rest, at := r.spill[:uint64(n)-room], uint64(0)
	if r.short && from == 0 {
		at = uint64(r.chain(0).Put(0, rest[:shortLen]))
		rest = rest[HeaderLen:]
	}
	for i := from; len(rest) > 0; i++ {
		rest = rest[r.chain(i).Put(at, rest):]
		at = 0
	}
	return true
}

// deliver gives a frame of n bytes, which is in the held chains, to the guest,
// and says whether it did.
func (r *receiver) deliver(n int) bool {
	c := r.d.counters
	short := n < HeaderLen+etherLen
	if !short && !r.d.filter.Load().accepts(r.destination()) {
		return false // not lost: nobody wanted it
	}
	r.expect(uint64(n))
	if short || !r.d.linkUp() || uint64(n) > r.direct && !r.extend(n) {
		atomic.AddUint64(&c.RxDrops, 1)
		return false
	}
	total := uint64(n) - (HeaderLen - r.header())
	used, left := 0, total
	for left > 0 { // at least one chain, for a frame has a header
		left -= min(left, r.chain(used).WritableLen())
		used++
	}
	if !r.short {
		var num [2]byte
		binary.LittleEndian.PutUint16(num[:], uint16(used))
		r.chain(0).Put(offNumBuffers, num[:])
	}
	left = total
	for i := range used {
		k := min(left, r.chain(i).WritableLen())
		r.q.Done(r.chain(i), uint32(k))
		left -= k
	}
	r.drop(used)
	atomic.AddUint64(&c.RxPackets, 1)
	atomic.AddUint64(&c.RxBytes, uint64(n-HeaderLen))
	return true
}

// expect takes a frame of n bytes for a sign of the next ones. Large ones come
// in trains, and are worth the pieces that save a copy.
func (r *receiver) expect(n uint64) {
	if n > r.least {
		r.aim, r.plain = max(r.want, r.least), 0
	} else if r.plain++; r.plain >= rxBurst {
		r.aim = r.least
	}
}

// destination is the address that the frame in bufs is for.
func (r *receiver) destination() (mac [6]byte) {
	n, skip := 0, HeaderLen
	for _, b := range r.bufs {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		if n += copy(mac[n:], b[skip:]); n == len(mac) {
			break
		}
		skip = 0
	}
	return mac
}

// drop forgets the first n held chains, which are the guest's again.
func (r *receiver) drop(n int) {
	for i := range n {
		r.room -= min(r.room, r.chain(i).WritableLen())
	}
	r.first = (r.first + n) % len(r.held)
	r.count -= n
	r.bufs = r.bufs[:0]
}
