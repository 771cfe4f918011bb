package vionet

import "encoding/binary"

// Feature bits (virtio 1.3, 5.1.3), as masks.
const (
	VIRTIO_NET_F_CSUM       uint64 = 1 << 0
	VIRTIO_NET_F_GUEST_CSUM uint64 = 1 << 1
	VIRTIO_NET_F_MTU        uint64 = 1 << 3
	VIRTIO_NET_F_MAC        uint64 = 1 << 5
	VIRTIO_NET_F_GUEST_TSO4 uint64 = 1 << 7
	VIRTIO_NET_F_GUEST_TSO6 uint64 = 1 << 8
	VIRTIO_NET_F_HOST_TSO4  uint64 = 1 << 11
	VIRTIO_NET_F_HOST_TSO6  uint64 = 1 << 12
	VIRTIO_NET_F_MRG_RXBUF  uint64 = 1 << 15
	VIRTIO_NET_F_STATUS     uint64 = 1 << 16
)

// Fields of struct virtio_net_hdr (virtio 1.3, 5.1.6).
const (
	VIRTIO_NET_HDR_F_NEEDS_CSUM = 1

	VIRTIO_NET_HDR_GSO_NONE  = 0
	VIRTIO_NET_HDR_GSO_TCPV4 = 1
	VIRTIO_NET_HDR_GSO_TCPV6 = 4
)

// VIRTIO_NET_S_LINK_UP is the bit of the configuration's status.
const VIRTIO_NET_S_LINK_UP = 1

// Offloads of a Link: the kernel's bits for TUNSETOFFLOAD (linux/if_tun.h).
const (
	TUN_F_CSUM = 0x01
	TUN_F_TSO4 = 0x02
	TUN_F_TSO6 = 0x04
)

// Queues of a device with one pair.
const (
	rxQueue = iota
	txQueue

	queueSize = 256
)

const (
	// HeaderLen is the length of the header in front of each frame.
	HeaderLen = 12
	// MaxSegments is how many buffers a frame may be spread over.
	MaxSegments = 256

	etherLen = 14
	tagLen   = 4
	// maxFrame is the largest frame with its header: an IP packet of 65535
	// bytes behind a tagged Ethernet header.
	maxFrame   = HeaderLen + etherLen + tagLen + 65535
	defaultMTU = 1500
)

// offNumBuffers is where num_buffers is in the header.
const offNumBuffers = 10

// header is struct virtio_net_hdr with num_buffers, copied.
type header []byte

func (h header) flags() byte        { return h[0] }
func (h header) gso() byte          { return h[1] }
func (h header) hdrLen() uint16     { return binary.LittleEndian.Uint16(h[2:]) }
func (h header) gsoSize() uint16    { return binary.LittleEndian.Uint16(h[4:]) }
func (h header) csumStart() uint16  { return binary.LittleEndian.Uint16(h[6:]) }
func (h header) csumOffset() uint16 { return binary.LittleEndian.Uint16(h[8:]) }

// configSpace is struct virtio_net_config up to mtu (virtio 1.3, 5.1.4).
type configSpace [12]byte
