package vioscsi

import "encoding/binary"

// Queues (virtio 1.3, 5.6.2).
const (
	controlQueue = iota
	eventQueue
	requestQueue
	numQueues
)

const (
	controlQueueSize = 64
	requestQueueSize = 128
)

// Response codes (virtio 1.3, 5.6.6.1 and 5.6.6.2).
const (
	VIRTIO_SCSI_S_OK                = 0
	VIRTIO_SCSI_S_OVERRUN           = 1
	VIRTIO_SCSI_S_BAD_TARGET        = 3
	VIRTIO_SCSI_S_FAILURE           = 9
	VIRTIO_SCSI_S_FUNCTION_COMPLETE = 0
)

// Types of control requests (virtio 1.3, 5.6.6.2).
const (
	VIRTIO_SCSI_T_TMF          = 0
	VIRTIO_SCSI_T_AN_QUERY     = 1
	VIRTIO_SCSI_T_AN_SUBSCRIBE = 2
)

// SCSI status (SAM-5, 5.3.1).
const (
	statusGood           = 0x00
	statusCheckCondition = 0x02
)

const (
	lunSize   = 8
	cdbSize   = 32
	senseSize = 96
	senseLen  = 18 // of it, fixed format

	blockSize = 2048
	// maxTransfer bounds what one command may move: max_sectors of 512 bytes.
	maxSectors  = 0xffff
	maxTransfer = maxSectors * 512
	segMax      = requestQueueSize - 2
)

// reqHeader is the device-readable struct virtio_scsi_req_cmd (virtio 1.3,
// 5.6.6.1): LUN, tag, attributes, CDB. It is copied out of guest memory before
// a field is looked at.
type reqHeader [19 + cdbSize]byte

func (h *reqHeader) lun() []byte { return h[:lunSize] }
func (h *reqHeader) cdb() CDB    { return CDB(h[19:]) }

// respHeader is the struct that answers it, at the start of the writable part;
// data follow it.
type respHeader [12 + senseSize]byte

func (h *respHeader) set(response, status byte, residual uint32, s sense) {
	*h = respHeader{10: status, 11: response}
	binary.LittleEndian.PutUint32(h[4:], residual)
	if status == statusCheckCondition {
		binary.LittleEndian.PutUint32(h[0:], senseLen)
		s.put(h[12:])
	}
}

// ctlHeader is what control requests begin with: the type, and for TMF subtype
// and LUN, for the others the LUN at once (virtio 1.3, 5.6.6.2).
type ctlHeader [4]byte

func (h *ctlHeader) typ() uint32 { return binary.LittleEndian.Uint32(h[:]) }

// sense says what went wrong: sense key, additional code and its qualifier
// (SPC-4, 4.5.6).
type sense struct{ key, asc, ascq byte }

var (
	noSense     = sense{}
	noMedium    = sense{2, 0x3a, 0x00}
	readError   = sense{3, 0x11, 0x00}
	badOpcode   = sense{5, 0x20, 0x00}
	badAddress  = sense{5, 0x21, 0x00}
	badField    = sense{5, 0x24, 0x00}
	noSaving    = sense{5, 0x39, 0x00}
	lockedIn    = sense{5, 0x53, 0x02}
	fixedFormat = byte(0x70)
)

// put writes fixed-format sense data (SPC-4, 4.5.3).
func (s sense) put(b []byte) {
	clear(b[:senseLen])
	b[0], b[2], b[7], b[12], b[13] = fixedFormat, s.key, senseLen-8, s.asc, s.ascq
}

// configSpace is struct virtio_scsi_config (virtio 1.3, 5.6.4).
type configSpace [36]byte

func (c *configSpace) set() {
	le := binary.LittleEndian
	le.PutUint32(c[0:], numQueues-requestQueue)
	le.PutUint32(c[4:], segMax)
	le.PutUint32(c[8:], maxSectors)
	le.PutUint32(c[12:], requestQueueSize) // cmd_per_lun
	le.PutUint32(c[16:], 16)               // event_info_size
	le.PutUint32(c[20:], senseSize)
	le.PutUint32(c[24:], cdbSize)
	// max_channel, max_target and max_lun are 0: there is one drive.
}
