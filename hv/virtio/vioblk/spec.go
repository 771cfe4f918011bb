package vioblk

import "encoding/binary"

// Feature bits (virtio 1.3, 5.2.3), as masks.
const (
	VIRTIO_BLK_F_SEG_MAX      uint64 = 1 << 2
	VIRTIO_BLK_F_RO           uint64 = 1 << 5
	VIRTIO_BLK_F_BLK_SIZE     uint64 = 1 << 6
	VIRTIO_BLK_F_FLUSH        uint64 = 1 << 9
	VIRTIO_BLK_F_TOPOLOGY     uint64 = 1 << 10
	VIRTIO_BLK_F_MQ           uint64 = 1 << 12
	VIRTIO_BLK_F_DISCARD      uint64 = 1 << 13
	VIRTIO_BLK_F_WRITE_ZEROES uint64 = 1 << 14
)

// Request types (virtio 1.3, 5.2.6).
const (
	VIRTIO_BLK_T_IN           = 0
	VIRTIO_BLK_T_OUT          = 1
	VIRTIO_BLK_T_FLUSH        = 4
	VIRTIO_BLK_T_GET_ID       = 8
	VIRTIO_BLK_T_DISCARD      = 11
	VIRTIO_BLK_T_WRITE_ZEROES = 13
)

// Request status.
const (
	VIRTIO_BLK_S_OK     = 0
	VIRTIO_BLK_S_IOERR  = 1
	VIRTIO_BLK_S_UNSUPP = 2
)

// VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP is the one flag of a segment.
const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1

const (
	sectorSize = 512
	idSize     = 20 // of a GET_ID answer, NUL padded

	queueSize = 256
	// segMax leaves room in the queue for header and status.
	segMax = queueSize - 2

	// maxTransfer bounds what one request may move.
	maxTransfer = 16 << 20

	// Limits of DISCARD and WRITE_ZEROES: sectors per segment, and segments.
	maxDiscardSectors = 1 << 21 // 1 GiB
	maxZeroesSectors  = 1 << 16 // 32 MiB: it may come down to writing them
	maxSegments       = 16

	// Physical blocks of 4096 bytes as a power of logical ones.
	physBlockExp     = 3
	discardAlignment = 8 // sectors
)

// reqHeader is the device-readable head of struct virtio_blk_req (virtio 1.3,
// 5.2.6). It is copied out of guest memory before a field is looked at: the
// guest can rewrite the original at any moment.
type reqHeader [16]byte

func (h *reqHeader) op() uint32     { return binary.LittleEndian.Uint32(h[0:]) }
func (h *reqHeader) sector() uint64 { return binary.LittleEndian.Uint64(h[8:]) }

// segHeader is struct virtio_blk_discard_write_zeroes, copied likewise.
type segHeader [16]byte

func (h *segHeader) sector() uint64  { return binary.LittleEndian.Uint64(h[0:]) }
func (h *segHeader) sectors() uint32 { return binary.LittleEndian.Uint32(h[8:]) }
func (h *segHeader) flags() uint32   { return binary.LittleEndian.Uint32(h[12:]) }

// configSpace is struct virtio_blk_config up to wz_may_unmap (virtio 1.3,
// 5.2.4).
type configSpace [60]byte

func (c *configSpace) set(sectors uint64, queues int) {
	le := binary.LittleEndian
	le.PutUint64(c[0:], sectors)
	le.PutUint32(c[12:], segMax)
	le.PutUint32(c[20:], sectorSize)
	c[24] = physBlockExp
	le.PutUint16(c[26:], 1<<physBlockExp) // suggested minimum I/O, in blocks
	le.PutUint16(c[34:], uint16(queues))
	le.PutUint32(c[36:], maxDiscardSectors)
	le.PutUint32(c[40:], maxSegments)
	le.PutUint32(c[44:], discardAlignment)
	le.PutUint32(c[48:], maxZeroesSectors)
	le.PutUint32(c[52:], maxSegments)
	c[56] = 1 // wz_may_unmap
}
