package agentx

import (
	"encoding/binary"

	"github.com/posteo/go-agentx/pdu"
	"github.com/posteo/go-agentx/value"
)

// maxPDU is what net-snmp takes: anything above 65536 octets it drops without
// an answer.
const maxPDU = 65535

func appendHeader(b []byte, o byteOrder, h pdu.Header) []byte {
	b = append(b, version, byte(h.Type), byte(h.Flags), 0)
	b = o.AppendUint32(b, h.SessionID)
	b = o.AppendUint32(b, h.TransactionID)
	b = o.AppendUint32(b, h.PacketID)
	return o.AppendUint32(b, h.PayloadLength)
}

// setLength writes the length of the PDU that begins at from and ends with b.
func setLength(b []byte, o byteOrder, from int) {
	o.PutUint32(b[from+16:], uint32(len(b)-from-pdu.HeaderSize))
}

// appendOID shortens what it can to a prefix; both masters expand it. SNMP has no
// identifiers of more than 128 arcs (RFC 2578, 3.5): what is longer is cut.
func appendOID(b []byte, o byteOrder, oid []uint32) []byte {
	oid = oid[:min(len(oid), maxSubIDs)]
	prefix := byte(0)
	if len(oid) >= 5 && oid[0] == 1 && oid[1] == 3 && oid[2] == 6 && oid[3] == 1 && oid[4]-1 < 255 {
		prefix, oid = byte(oid[4]), oid[5:]
	}
	b = append(b, byte(len(oid)), prefix, 0, 0)
	for _, arc := range oid {
		b = o.AppendUint32(b, arc)
	}
	return b
}

var padding [3]byte

func appendText(b []byte, o byteOrder, s string) []byte {
	b = o.AppendUint32(b, uint32(len(s)))
	b = append(b, s...)
	return append(b, padding[:-len(s)&3]...)
}

func appendVarBind(b []byte, o byteOrder, name []uint32, v Value) []byte {
	b = o.AppendUint16(b, v.Type)
	b = append(b, 0, 0)
	b = appendOID(b, o, name)
	switch v.Type {
	case TypeInteger, TypeCounter32, TypeGauge32, TypeTimeTicks:
		b = o.AppendUint32(b, uint32(v.Number))
	case TypeCounter64:
		b = o.AppendUint64(b, v.Number)
	case TypeOctetString, TypeIPAddress, TypeOpaque:
		b = appendText(b, o, v.Text)
	case TypeOID:
		b = appendOID(b, o, v.OID)
	}
	return b
}

// beginResponse appends the head of an answer to the request h; endResponse
// completes it. Its byte order is that of the request.
func beginResponse(b []byte, h pdu.Header) []byte {
	o := orderOf(h.Flags)
	b = appendHeader(b, o, pdu.Header{
		Type:          pdu.TypeResponse,
		Flags:         h.Flags & pdu.FlagNetworkByteOrder,
		SessionID:     h.SessionID,
		TransactionID: h.TransactionID,
		PacketID:      h.PacketID,
	})
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sysUpTime, which is the master's to know; error; index
}

// endResponse fills in the length, error and index of the response at from.
func endResponse(b []byte, h pdu.Header, from int, code uint16, index int) {
	o := orderOf(h.Flags)
	o.PutUint16(b[from+pdu.HeaderSize+4:], code)
	o.PutUint16(b[from+pdu.HeaderSize+6:], uint16(min(index, 1<<16-1)))
	setLength(b, o, from)
}

// The bodies of the few requests a session begins and ends with are go-agentx's.
// It speaks little endian, and so do we when we begin.

var ours = binary.LittleEndian

func openBody(description string) ([]byte, error) {
	return (&pdu.Open{Description: pdu.OctetString{Text: description}}).MarshalBinary()
}

func registerBody(subtree []uint32) ([]byte, error) {
	r := pdu.Register{Timeout: pdu.Timeout{Priority: priority}}
	r.Subtree.SetIdentifier(value.OID(subtree))
	return r.MarshalBinary()
}

func closeBody(why pdu.Reason) ([]byte, error) {
	return (&pdu.Close{Reason: why}).MarshalBinary()
}

// capsBody is that of AddAgentCaps (RFC 2741, 6.2.14), which the library lacks.
func capsBody(id []uint32, text string) []byte {
	return appendText(appendOID(nil, ours, id), ours, text)
}
