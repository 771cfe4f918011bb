package vioblk

import (
	"errors"

	"vmd/hv/virtio"
)

// Errors of a request that cannot even be answered: the driver broke the
// protocol (virtio 1.3, 5.2.6.1).
var (
	errNoHeader = errors.New("request without a whole header")
	errNoStatus = errors.New("request without room for a status")
)

// Request is one checked request. Its slices point into guest memory.
type Request struct {
	Op uint32
	// Status is what the request will be answered with. If it is not OK already
	// after parse, nothing is to be done.
	Status byte
	// Offset is where Data, Len bytes of it, is on the disk, in bytes.
	Offset int64
	Len    int64
	Data   [][]byte
	// Segments of a DISCARD or WRITE_ZEROES.
	Segments []Segment

	statusByte []byte
	segs       [maxSegments]Segment // backs Segments
}

// Segment is a range of the disk, in bytes.
type Segment struct {
	Offset, Len int64
	Unmap       bool
}

// limits is what parse checks a request against.
type limits struct {
	sectors  uint64 // capacity
	features uint64 // negotiated
	readOnly bool
}

// parse checks chain c and makes r of it. It does no I/O. Only a request that
// cannot be answered is an error; any other that cannot be carried out has a
// Status that says so.
func (r *Request) parse(c *virtio.Chain, l *limits) error {
	var h reqHeader
	if !c.Take(h[:]) {
		return errNoHeader
	}
	if r.statusByte = c.TakeLast(); r.statusByte == nil {
		return errNoStatus
	}
	r.Op, r.Data, r.Segments, r.Offset, r.Len = h.op(), nil, nil, 0, 0
	switch r.Op {
	case VIRTIO_BLK_T_IN:
		r.Data = c.Writable
		r.Status = r.setRange(h.sector(), c.WritableLen(), l)
	case VIRTIO_BLK_T_OUT:
		r.Data = c.Readable
		if r.Status = r.setRange(h.sector(), c.ReadableLen(), l); l.readOnly {
			r.Status = VIRTIO_BLK_S_IOERR // virtio 1.3, 5.2.6.2
		}
	case VIRTIO_BLK_T_FLUSH:
		r.Status = VIRTIO_BLK_S_OK
	case VIRTIO_BLK_T_GET_ID:
		r.Data, r.Status = c.Writable, VIRTIO_BLK_S_OK
	case VIRTIO_BLK_T_DISCARD:
		r.Status = r.setSegments(c, l, VIRTIO_BLK_F_DISCARD, maxDiscardSectors, 0)
	case VIRTIO_BLK_T_WRITE_ZEROES:
		r.Status = r.setSegments(c, l, VIRTIO_BLK_F_WRITE_ZEROES, maxZeroesSectors, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)
	default:
		r.Status = VIRTIO_BLK_S_UNSUPP
	}
	return nil
}

// setRange checks n bytes of data at sector.
func (r *Request) setRange(sector, n uint64, l *limits) byte {
	if n%sectorSize != 0 || n > maxTransfer || !inside(sector, n/sectorSize, l.sectors) {
		return VIRTIO_BLK_S_IOERR
	}
	r.Offset, r.Len = int64(sector)*sectorSize, int64(n)
	return VIRTIO_BLK_S_OK
}

// inside says whether n sectors from sector on exist.
func inside(sector, n, capacity uint64) bool {
	return sector <= capacity && n <= capacity-sector
}

// setSegments copies and checks the segments of a DISCARD or WRITE_ZEROES,
// which exists only with feature; each may have maxSectors and flags.
func (r *Request) setSegments(c *virtio.Chain, l *limits, feature uint64, maxSectors, flags uint32) byte {
	if l.features&feature == 0 {
		return VIRTIO_BLK_S_UNSUPP
	}
	n := c.ReadableLen() / uint64(len(segHeader{}))
	if l.readOnly || c.ReadableLen()%uint64(len(segHeader{})) != 0 || n == 0 || n > maxSegments {
		return VIRTIO_BLK_S_IOERR
	}
	var h segHeader
	for i := 0; c.Take(h[:]); i++ {
		if h.flags()&^flags != 0 {
			return VIRTIO_BLK_S_UNSUPP // virtio 1.3, 5.2.6.2
		}
		if h.sectors() > maxSectors || !inside(h.sector(), uint64(h.sectors()), l.sectors) {
			return VIRTIO_BLK_S_IOERR
		}
		r.segs[i] = Segment{
			Offset: int64(h.sector()) * sectorSize,
			Len:    int64(h.sectors()) * sectorSize,
			Unmap:  h.flags()&VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0,
		}
		r.Segments = r.segs[:i+1]
	}
	return VIRTIO_BLK_S_OK
}
