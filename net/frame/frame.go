// Package frame parses and builds the headers of frames: Ethernet, IPv4, UDP.
//
// What it parses may come from a guest. Nothing is read beyond the slice given,
// no field is believed before it is checked against it, and nothing allocates.
package frame

import (
	"encoding/binary"
	"errors"
)

// Lengths of headers in bytes, without options.
const (
	EthernetLen = 14
	IPv4Len     = 20
	UDPLen      = 8
)

// Values of Ethernet.Type and IPv4.Protocol.
const (
	TypeIPv4    = 0x0800
	ProtocolUDP = 17
)

// Broadcast is the Ethernet address of everybody.
var Broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Why bytes are not the frame that they should be.
var (
	ErrShort    = errors.New("frame is too short")
	ErrHeader   = errors.New("frame has a malformed header")
	ErrChecksum = errors.New("frame has a wrong checksum")
	ErrFragment = errors.New("packet is a fragment")
	ErrProtocol = errors.New("packet is of another protocol")
)

// Ethernet is the header of a frame (IEEE 802.3, type interpretation).
type Ethernet struct {
	Dst, Src [6]byte
	Type     uint16
}

// ParseEthernet splits b into its header and the rest.
func ParseEthernet(b []byte) (Ethernet, []byte, error) {
	if len(b) < EthernetLen {
		return Ethernet{}, nil, ErrShort
	}
	return Ethernet{
		Dst:  [6]byte(b[0:6]),
		Src:  [6]byte(b[6:12]),
		Type: binary.BigEndian.Uint16(b[12:]),
	}, b[EthernetLen:], nil
}

// Append appends the header to b.
func (e *Ethernet) Append(b []byte) []byte {
	b = append(b, e.Dst[:]...)
	b = append(b, e.Src[:]...)
	return binary.BigEndian.AppendUint16(b, e.Type)
}

// IPv4 is the header of a whole packet (RFC 791). Options are checked for length
// and passed over.
type IPv4 struct {
	TOS, TTL, Protocol byte
	Src, Dst           [4]byte
}

// ParseIPv4 splits b into its header and the payload; what follows the packet,
// as padding does, is left out. A fragment is an ErrFragment.
func ParseIPv4(b []byte) (IPv4, []byte, error) {
	if len(b) < IPv4Len {
		return IPv4{}, nil, ErrShort
	}
	headerLen := int(b[0]&0xf) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case b[0]>>4 != 4 || headerLen < IPv4Len || total < headerLen:
		return IPv4{}, nil, ErrHeader
	case total > len(b):
		return IPv4{}, nil, ErrShort
	case finish(sum(0, b[:headerLen])) != 0:
		return IPv4{}, nil, ErrChecksum
	case binary.BigEndian.Uint16(b[6:])&0x3fff != 0: // more to come, or an offset
		return IPv4{}, nil, ErrFragment
	}
	return IPv4{
		TOS:      b[1],
		TTL:      b[8],
		Protocol: b[9],
		Src:      [4]byte(b[12:16]),
		Dst:      [4]byte(b[16:20]),
	}, b[headerLen:total], nil
}

// Append appends the header of a packet with n bytes of payload to b.
func (h *IPv4) Append(b []byte, n int) []byte {
	at := len(b)
	b = append(b, 0x45, h.TOS)
	b = binary.BigEndian.AppendUint16(b, uint16(IPv4Len+n))
	b = append(b, 0, 0, 0, 0, h.TTL, h.Protocol, 0, 0)
	b = append(b, h.Src[:]...)
	b = append(b, h.Dst[:]...)
	binary.BigEndian.PutUint16(b[at+10:], finish(sum(0, b[at:])))
	return b
}

// UDP is the header of a datagram (RFC 768).
type UDP struct {
	SrcPort, DstPort uint16
}

// ParseUDP splits b, the payload of ip, into its header and the payload. With
// partial the checksum is not in place yet: the sender left it to whoever puts
// the frame onto a wire (virtio 1.3, 5.1.6.2, VIRTIO_NET_HDR_F_NEEDS_CSUM).
func ParseUDP(ip *IPv4, b []byte, partial bool) (UDP, []byte, error) {
	if ip.Protocol != ProtocolUDP {
		return UDP{}, nil, ErrProtocol
	}
	if len(b) < UDPLen {
		return UDP{}, nil, ErrShort
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case n < UDPLen:
		return UDP{}, nil, ErrHeader
	case n > len(b):
		return UDP{}, nil, ErrShort
	}
	b = b[:n]
	if given := binary.BigEndian.Uint16(b[6:]); given != 0 && !partial && finish(ip.pseudo(n)+sum(0, b)) != 0 {
		return UDP{}, nil, ErrChecksum
	}
	return UDP{SrcPort: binary.BigEndian.Uint16(b), DstPort: binary.BigEndian.Uint16(b[2:])}, b[UDPLen:], nil
}

// pseudo is the sum over the pseudo header of n bytes of the packet's protocol.
func (h *IPv4) pseudo(n int) uint32 {
	return sum(sum(uint32(h.Protocol)+uint32(n), h.Src[:]), h.Dst[:])
}

// AppendUDP appends a frame to b with payload in a datagram in a packet. The
// Type of e and Protocol of ip are set here. The payload must fit a packet.
func AppendUDP(b []byte, e *Ethernet, ip *IPv4, u *UDP, payload []byte) []byte {
	e.Type, ip.Protocol = TypeIPv4, ProtocolUDP
	n := UDPLen + len(payload)
	b = ip.Append(e.Append(b), n)
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, u.SrcPort)
	b = binary.BigEndian.AppendUint16(b, u.DstPort)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0, 0)
	b = append(b, payload...)
	c := finish(ip.pseudo(n) + sum(0, b[at:]))
	if c == 0 {
		c = 0xffff // 0 says that there is none
	}
	binary.BigEndian.PutUint16(b[at+6:], c)
	return b
}

// sum adds the 16-bit words of b to s (RFC 1071). The sum over 64 KiB still fits.
func sum(s uint32, b []byte) uint32 {
	for len(b) >= 2 {
		s += uint32(b[0])<<8 | uint32(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// finish folds a sum and returns its complement.
func finish(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
