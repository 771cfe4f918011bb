package vionet

import (
	"encoding/binary"

	"vmd/hv/virtio"
)

// Feature bits (virtio 1.3, 5.1.3), as masks.
const (
	VIRTIO_NET_F_CSUM                uint64 = 1 << 0
	VIRTIO_NET_F_GUEST_CSUM          uint64 = 1 << 1
	VIRTIO_NET_F_CTRL_GUEST_OFFLOADS uint64 = 1 << 2
	VIRTIO_NET_F_MTU                 uint64 = 1 << 3
	VIRTIO_NET_F_MAC                 uint64 = 1 << 5
	VIRTIO_NET_F_GUEST_TSO4          uint64 = 1 << 7
	VIRTIO_NET_F_GUEST_TSO6          uint64 = 1 << 8
	VIRTIO_NET_F_HOST_TSO4           uint64 = 1 << 11
	VIRTIO_NET_F_HOST_TSO6           uint64 = 1 << 12
	VIRTIO_NET_F_MRG_RXBUF           uint64 = 1 << 15
	VIRTIO_NET_F_STATUS              uint64 = 1 << 16
	VIRTIO_NET_F_CTRL_VQ             uint64 = 1 << 17
	VIRTIO_NET_F_CTRL_RX             uint64 = 1 << 18
	VIRTIO_NET_F_GUEST_ANNOUNCE      uint64 = 1 << 21
	VIRTIO_NET_F_MQ                  uint64 = 1 << 22
	VIRTIO_NET_F_CTRL_MAC_ADDR       uint64 = 1 << 23
)

// Fields of struct virtio_net_hdr (virtio 1.3, 5.1.6).
const (
	VIRTIO_NET_HDR_F_NEEDS_CSUM = 1

	VIRTIO_NET_HDR_GSO_NONE  = 0
	VIRTIO_NET_HDR_GSO_TCPV4 = 1
	VIRTIO_NET_HDR_GSO_TCPV6 = 4
)

// Bits of the configuration's status (virtio 1.3, 5.1.4).
const (
	VIRTIO_NET_S_LINK_UP  = 1
	VIRTIO_NET_S_ANNOUNCE = 2
)

// Classes and commands of the control queue (virtio 1.3, 5.1.6.5).
const (
	VIRTIO_NET_CTRL_RX          = 0
	VIRTIO_NET_CTRL_RX_PROMISC  = 0
	VIRTIO_NET_CTRL_RX_ALLMULTI = 1

	VIRTIO_NET_CTRL_MAC           = 1
	VIRTIO_NET_CTRL_MAC_TABLE_SET = 0
	VIRTIO_NET_CTRL_MAC_ADDR_SET  = 1

	VIRTIO_NET_CTRL_ANNOUNCE     = 3
	VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0

	VIRTIO_NET_CTRL_MQ              = 4
	VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0

	VIRTIO_NET_CTRL_GUEST_OFFLOADS     = 5
	VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0

	VIRTIO_NET_OK  = 0
	VIRTIO_NET_ERR = 1
)

// Offloads of a Link: the kernel's bits for TUNSETOFFLOAD (linux/if_tun.h).
const (
	TUN_F_CSUM = 0x01
	TUN_F_TSO4 = 0x02
	TUN_F_TSO6 = 0x04
)

// MaxPairs is how many pairs of queues, and so links, a device may have.
const MaxPairs = 8

const queueSize = 256

// Queues are numbered in pairs, receive before transmit; the control queue comes
// after the last pair that there is once features are negotiated (virtio 1.3,
// 5.1.2).
func rxQueue(pair int) int       { return 2 * pair }
func txQueue(pair int) int       { return 2*pair + 1 }
func controlQueue(pairs int) int { return 2 * pairs }

const (
	// HeaderLen is the length of the header in front of each frame on a Link.
	HeaderLen = 12
	// shortLen is that of a legacy driver without mergeable buffers: its header
	// ends before num_buffers (virtio 1.3, 5.1.6.1).
	shortLen = offNumBuffers
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

// shortHeader says whether a driver that negotiated features has a header of
// shortLen bytes.
func shortHeader(features uint64) bool {
	return features&(virtio.VIRTIO_F_VERSION_1|VIRTIO_NET_F_MRG_RXBUF) == 0
}

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
