package frame

import "encoding/binary"

// TypeRARP is the Ethernet.Type of Reverse ARP.
const TypeRARP = 0x8035

// minFrame is the shortest frame, without its checksum (IEEE 802.3, 3.2.8).
const minFrame = 60

// RARP returns a broadcast frame from mac that asks for mac's IPv4 address
// (RFC 903). Hardly anybody answers it: it is the usual way to have switches
// learn where mac is.
func RARP(mac [6]byte) []byte {
	e := Ethernet{Dst: Broadcast, Src: mac, Type: TypeRARP}
	b := e.Append(make([]byte, 0, minFrame))
	be := binary.BigEndian
	b = be.AppendUint16(b, 1)        // Ethernet
	b = be.AppendUint16(b, TypeIPv4) // addresses of which are asked for,
	b = append(b, 6, 4)              // and their lengths
	b = be.AppendUint16(b, 3)        // request reverse
	b = append(b, mac[:]...)
	b = append(b, 0, 0, 0, 0)
	b = append(b, mac[:]...)
	b = append(b, 0, 0, 0, 0)
	return b[:minFrame]
}
