package dhcp

import (
	"encoding/binary"
	"sync/atomic"

	"vmd/net/frame"
)

// headerLen is the virtio_net_hdr before each frame of a Link (linux/virtio_net.h,
// struct virtio_net_hdr_mrg_rxbuf).
const headerLen = 12

// needsChecksum is VIRTIO_NET_HDR_F_NEEDS_CSUM.
const needsChecksum = 1

// maxWaiting is how many answers wait for the guest. It asks and does not read
// at its own loss.
const maxWaiting = 8

// Link is where frames go to and come from: a tap. Each has a virtio_net_hdr of
// 12 bytes before it. One goroutine reads, another writes; Wake makes a
// ReadFrame that waits, or the next one, return 0 bytes.
type Link interface {
	Offloads() uint32
	SetOffload(bits uint32) error
	SetActive(on bool) error
	ReadFrame(bufs [][]byte, wait bool) (int, error)
	WriteFrame(bufs [][]byte) error
	Wake()
}

// Responder is a Link that answers the guest's requests itself and passes all
// else to and from the link behind it.
type Responder struct {
	Link
	config Config

	in  [maxFrame]byte // the frame being written; the writer's
	out reply          // its answer; the writer's

	// waiting[i%maxWaiting] for read ≤ i < written are the reader's, the
	// others the writer's.
	waiting       [maxWaiting]reply
	read, written atomic.Uint32
}

// reply is an answer on its way to the guest, with its header.
type reply struct {
	n int
	b [headerLen + MaxReply]byte
}

// Respond puts a Responder in front of l.
func Respond(l Link, c Config) *Responder { return &Responder{Link: l, config: c} }

// WriteFrame takes a frame from the guest. bufs may be guest memory: it is read
// once to glance at and once whole, and what counts is the copy.
func (r *Responder) WriteFrame(bufs [][]byte) error {
	if r.mayBeRequest(bufs) && r.answer(bufs) {
		return nil
	}
	return r.Link.WriteFrame(bufs)
}

// lookAt is how much of a frame shows what mayBeRequest wants to know.
const lookAt = headerLen + frame.EthernetLen + frame.IPv4Len

// mayBeRequest sorts out nearly all that is not a request, by a glance at a few
// bytes.
func (r *Responder) mayBeRequest(bufs [][]byte) bool {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	if n < headerLen+minFrame || n > headerLen+maxFrame {
		return false
	}
	var h [lookAt]byte
	gather(h[:], bufs, 0)
	e := h[headerLen:]
	return h[1] == 0 && // VIRTIO_NET_HDR_GSO_NONE
		binary.BigEndian.Uint16(e[12:]) == frame.TypeIPv4 &&
		e[frame.EthernetLen+9] == frame.ProtocolUDP &&
		([6]byte(e[:6]) == frame.Broadcast || [6]byte(e[:6]) == r.config.HostMAC)
}

// answer returns whether the frame in bufs is a request. If so, its answer
// waits to be read.
func (r *Responder) answer(bufs [][]byte) bool {
	var h [headerLen]byte
	gather(h[:], bufs, 0)
	f := r.in[:gather(r.in[:], bufs, headerLen)]
	b, ours := r.config.AppendReply(r.out.b[:headerLen], f, h[0]&needsChecksum != 0)
	n := r.written.Load()
	if len(b) == headerLen || n-r.read.Load() == maxWaiting { // nothing to say, or nobody who listens
		return ours
	}
	w := &r.waiting[n%maxWaiting]
	w.n = copy(w.b[:], b)
	r.written.Store(n + 1)
	r.Link.Wake()
	return true
}

// ReadFrame returns an answer that waits, or a frame of the link's.
func (r *Responder) ReadFrame(bufs [][]byte, wait bool) (int, error) {
	if n := r.take(bufs); n > 0 {
		return n, nil
	}
	return r.Link.ReadFrame(bufs, wait)
}

func (r *Responder) take(bufs [][]byte) int {
	i := r.read.Load()
	if i == r.written.Load() {
		return 0
	}
	w := &r.waiting[i%maxWaiting]
	n := 0
	for _, b := range bufs {
		n += copy(b, w.b[n:w.n])
	}
	r.read.Store(i + 1)
	return n
}

// gather copies from bufs, less their first skip bytes, into b and returns how
// much there was.
func gather(b []byte, bufs [][]byte, skip int) int {
	n := 0
	for _, s := range bufs {
		if skip >= len(s) {
			skip -= len(s)
			continue
		}
		n += copy(b[n:], s[skip:])
		skip = 0
	}
	return n
}
