package vionet

import (
	"errors"

	"vmd/hv/virtio"
)

// Reasons to drop a frame that the guest sends. They are the guest's mistakes
// and cost it the frame.
var (
	errSize   = errors.New("frame too short, too long or in too many pieces")
	errHeader = errors.New("header asks for what was not negotiated, or lies outside the frame")
	errSource = errors.New("source address is not the interface's")
)

// Frame is a checked frame of the guest's with its header. Head is private: the
// guest can't change what was checked. The rest points into guest memory.
type Frame struct {
	Bufs [][]byte // Head, then what follows it
	Len  uint64   // of all Bufs, header included
	Head [HeaderLen + etherLen]byte

	bufs [1 + MaxSegments]([]byte) // backs Bufs
}

// rules is what parse checks a frame against.
type rules struct {
	features uint64 // negotiated
	locked   bool   // only mac may be the source
	mac      [6]byte
	short    bool // the driver's header is of shortLen bytes
}

// parse checks chain c and makes f of it.
func (f *Frame) parse(c *virtio.Chain, r *rules) error {
	f.Len = c.ReadableLen()
	head := f.Head[:]
	if r.short {
		if !c.Take(f.Head[:shortLen]) {
			return errSize
		}
		f.Len += HeaderLen - shortLen // what headerOK fills in
		head = f.Head[HeaderLen:]
	}
	if f.Len > maxFrame || len(c.Readable) > MaxSegments-1 || !c.Take(head) {
		return errSize
	}
	if !f.headerOK(r) {
		return errHeader
	}
	if r.locked && [6]byte(f.Head[HeaderLen+6:]) != r.mac {
		return errSource
	}
	f.bufs[0] = f.Head[:]
	f.Bufs = f.bufs[:1+copy(f.bufs[1:], c.Readable)]
	return nil
}

// headerOK checks the copied header, and clears what a driver leaves open
// (virtio 1.3, 5.1.6.2.1). The kernel parses it with the frame.
func (f *Frame) headerOK(r *rules) bool {
	h, n := header(f.Head[:HeaderLen]), f.Len-HeaderLen
	f.Head[0] &= VIRTIO_NET_HDR_F_NEEDS_CSUM // other flags mean nothing here
	f.Head[offNumBuffers], f.Head[offNumBuffers+1] = 0, 0
	csum := h.flags()&VIRTIO_NET_HDR_F_NEEDS_CSUM != 0
	if csum && (r.features&VIRTIO_NET_F_CSUM == 0 || uint64(h.csumStart())+uint64(h.csumOffset())+2 > n) {
		return false
	}
	var need uint64
	switch h.gso() {
	case VIRTIO_NET_HDR_GSO_NONE:
		clear(f.Head[2:6]) // hdr_len and gso_size
		return true
	case VIRTIO_NET_HDR_GSO_TCPV4:
		need = VIRTIO_NET_F_HOST_TSO4
	case VIRTIO_NET_HDR_GSO_TCPV6:
		need = VIRTIO_NET_F_HOST_TSO6
	default:
		return false
	}
	return csum && r.features&need != 0 && h.gsoSize() != 0 && uint64(h.hdrLen()) <= n
}
