package vioscsi

import (
	"encoding/binary"
	"errors"

	"vmd/hv/virtio"
)

// Errors of a request that cannot even be answered: the driver broke the
// protocol.
var (
	errNoHeader   = errors.New("request without a whole header")
	errNoResponse = errors.New("request without room for a response")
)

// CDB is a command descriptor block: the operation in its first byte, all
// numbers big-endian. One that is shorter than the field is padded.
type CDB [cdbSize]byte

// Op is the operation code.
func (c *CDB) Op() byte { return c[0] }

func (c *CDB) u16(i int) uint32 { return uint32(binary.BigEndian.Uint16(c[i:])) }
func (c *CDB) u24(i int) uint32 { return uint32(c[i])<<16 | c.u16(i+1) }
func (c *CDB) u32(i int) uint32 { return binary.BigEndian.Uint32(c[i:]) }
func (c *CDB) u64(i int) uint64 { return binary.BigEndian.Uint64(c[i:]) }

// blocks returns the address and number of blocks of a READ (SBC-3, 5.10 to
// 5.13).
func (c *CDB) blocks() (lba uint64, n uint32) {
	switch c.Op() {
	case opRead6:
		if n = uint32(c[4]); n == 0 {
			n = 256
		}
		return uint64(c.u24(1) & 0x1fffff), n
	case opRead10:
		return uint64(c.u32(2)), c.u16(7)
	case opRead12:
		return uint64(c.u32(2)), c.u32(6)
	}
	return c.u64(2), c.u32(10) // READ(16)
}

// Request is one checked request to the drive. Its slices point into guest
// memory.
type Request struct {
	CDB   CDB
	Found bool     // there is a logical unit of that number
	Data  [][]byte // room for data, after the response
	Room  uint64   // bytes of Data

	segs [][]byte // backs Data
}

// parse checks chain c and makes r of it. Only a request that cannot be
// answered is an error.
func (r *Request) parse(c *virtio.Chain) error {
	var h reqHeader
	if !c.Take(h[:]) {
		return errNoHeader
	}
	room := c.WritableLen()
	if room < uint64(len(respHeader{})) {
		return errNoResponse
	}
	r.CDB, r.Found = h.cdb(), isDrive(h.lun())
	r.segs = after(r.segs[:0], c.Writable, uint64(len(respHeader{})))
	r.Data, r.Room = r.segs, room-uint64(len(respHeader{}))
	return nil
}

// isDrive says whether lun is that of target 0, unit 0, in the form of virtio
// 1.3, 5.6.6.1: 1, target, and a unit in flat format or in that of a peripheral.
func isDrive(lun []byte) bool {
	return lun[0] == 1 && lun[1] == 0 && lun[2]&0x3f == 0 && lun[3] == 0
}

// after appends to dst what follows the first skip bytes of segs.
func after(dst, segs [][]byte, skip uint64) [][]byte {
	for _, s := range segs {
		k := min(skip, uint64(len(s)))
		skip -= k
		if s = s[k:]; len(s) > 0 {
			dst = append(dst, s)
		}
	}
	return dst
}

// first shortens segs to n bytes, in place. There must be as many.
func first(segs [][]byte, n uint64) [][]byte {
	for i, s := range segs {
		if uint64(len(s)) >= n {
			segs[i] = s[:n]
			return segs[:i+1]
		}
		n -= uint64(len(s))
	}
	return segs
}
