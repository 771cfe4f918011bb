package agentx

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/posteo/go-agentx/pdu"
)

// byteOrder is that of one PDU: flag NETWORK_BYTE_ORDER rules every number of
// it, the header's included (RFC 2741, 6.1).
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func orderOf(f pdu.Flags) byteOrder {
	if f&pdu.FlagNetworkByteOrder != 0 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

const (
	version    = 1
	maxPayload = 1 << 20
	maxSubIDs  = 128
)

// errFraming means that the stream cannot be cut into PDUs any more.
var errFraming = errors.New("not an agentx stream")

// parseHeader reads a header; b has at least pdu.HeaderSize octets.
func parseHeader(b []byte) (pdu.Header, error) {
	h := pdu.Header{Version: b[0], Type: pdu.Type(b[1]), Flags: pdu.Flags(b[2])}
	o := orderOf(h.Flags)
	h.SessionID, h.TransactionID = o.Uint32(b[4:]), o.Uint32(b[8:])
	h.PacketID, h.PayloadLength = o.Uint32(b[12:]), o.Uint32(b[16:])
	if h.Version != version {
		return h, fmt.Errorf("%w: pdu version %d", errFraming, h.Version)
	}
	if h.PayloadLength > maxPayload {
		return h, fmt.Errorf("%w: pdu of %d octets", errFraming, h.PayloadLength)
	}
	return h, nil
}

// searchRange is what a Get, GetNext or GetBulk asks for (RFC 2741, 5.2).
type searchRange struct {
	start, end []uint32
	include    bool
}

// request is a decoded PDU of the master. Its slices are reused from one PDU to
// the next, and names point into words.
type request struct {
	context      string
	nonRepeaters int
	repetitions  int
	ranges       []searchRange
	binds        []VarBind
	words        []uint32
}

// keepWords bounds what a single large PDU leaves behind.
const keepWords = 1 << 14

// decode reads the payload of a request with header h.
func (r *request) decode(h pdu.Header, payload []byte) error {
	if cap(r.words) > keepWords {
		*r = request{}
	}
	r.context, r.nonRepeaters, r.repetitions = "", 0, 0
	r.ranges, r.binds, r.words = r.ranges[:0], r.binds[:0], r.words[:0]
	d := decoder{b: payload, order: orderOf(h.Flags), words: r.words}
	if len(payload)%4 != 0 {
		d.fail("payload of %d octets", len(payload))
	}
	if h.Flags&pdu.FlagNonDefaultContext != 0 {
		r.context = d.text()
	}
	switch h.Type {
	case pdu.TypeGetBulk:
		r.nonRepeaters, r.repetitions = int(d.uint16()), int(d.uint16())
		fallthrough
	case pdu.TypeGet, pdu.TypeGetNext:
		for d.err == nil && len(d.b) > 0 {
			r.ranges = append(r.ranges, d.searchRange())
		}
	case pdu.TypeTestSet:
		for d.err == nil && len(d.b) > 0 {
			r.binds = append(r.binds, d.varBind())
		}
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d octets left over", len(d.b))
	}
	r.words = d.words
	return d.err
}

// decoder takes a payload apart. After an error it returns zero values.
type decoder struct {
	b     []byte
	order byteOrder
	words []uint32 // backs the identifiers it returns
	err   error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.b = nil
}

// take returns the next n octets, or nil.
func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail("%d octets where %d are left", n, len(d.b))
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) uint16() uint16 {
	if b := d.take(2); b != nil {
		return d.order.Uint16(b)
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return d.order.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return d.order.Uint64(b)
	}
	return 0
}

// text reads an octet string, which is padded to a multiple of four octets even
// at the end of a PDU (RFC 2741, 5.3).
func (d *decoder) text() string {
	n := d.uint32()
	if uint64(n) > uint64(len(d.b)) {
		d.fail("string of %d octets where %d are left", n, len(d.b))
		return ""
	}
	b := d.take((int(n) + 3) &^ 3)
	if b == nil {
		return ""
	}
	return string(b[:n])
}

// oid reads an identifier (RFC 2741, 5.1):
//
//	n_subid  prefix  include  reserved  n_subid words
//
// A prefix p stands for 1.3.6.1.p in front of the words.
func (d *decoder) oid() (oid []uint32, include bool) {
	head := d.take(4)
	if head == nil {
		return nil, false
	}
	n, prefix := int(head[0]), head[1]
	total := n
	if prefix != 0 {
		total += 5
	}
	if total > maxSubIDs {
		d.fail("identifier of %d arcs", total)
		return nil, false
	}
	b := d.take(4 * n)
	if b == nil {
		return nil, false
	}
	from := len(d.words)
	if prefix != 0 {
		d.words = append(d.words, 1, 3, 6, 1, uint32(prefix))
	}
	for ; len(b) > 0; b = b[4:] {
		d.words = append(d.words, d.order.Uint32(b))
	}
	return d.words[from:len(d.words):len(d.words)], head[2] != 0
}

func (d *decoder) searchRange() (r searchRange) {
	r.start, r.include = d.oid()
	r.end, _ = d.oid()
	return r
}

func (d *decoder) varBind() (v VarBind) {
	v.Value.Type = d.uint16()
	d.uint16() // reserved
	v.Name, _ = d.oid()
	switch v.Value.Type {
	case TypeInteger, TypeCounter32, TypeGauge32, TypeTimeTicks:
		v.Value.Number = uint64(d.uint32())
	case TypeCounter64:
		v.Value.Number = d.uint64()
	case TypeOctetString, TypeIPAddress, TypeOpaque:
		v.Value.Text = d.text()
	case TypeOID:
		v.Value.OID, _ = d.oid()
	case TypeNull, TypeNoSuchObject, TypeNoSuchInstance, TypeEndOfMIBView:
	default:
		d.fail("variable of type %d", v.Value.Type)
	}
	return v
}

// response is the head of a Response (RFC 2741, 6.2.16). What follows is not
// looked at: net-snmp echoes the variables of our own request.
type response struct {
	upTime uint32
	code   pdu.Error
	index  uint16
}

func parseResponse(h pdu.Header, payload []byte) (r response, err error) {
	d := decoder{b: payload, order: orderOf(h.Flags)}
	r.upTime = d.uint32()
	r.code, r.index = pdu.Error(d.uint16()), d.uint16()
	return r, d.err
}
