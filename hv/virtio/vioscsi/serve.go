package vioscsi

import (
	"vmd/hv/disk"
	"vmd/hv/virtio"
)

// server owns the request queue. Nothing in it is shared.
type server struct {
	image disk.Image
	q     *virtio.Queue
	drive *drive
	chain virtio.Chain
	req   Request
	resp  respHeader
	buf   answer
}

// serve answers what the queue holds.
func (s *server) serve() {
	for s.q.Next(&s.chain) {
		if err := s.req.parse(&s.chain); err != nil {
			s.q.Fail(err)
			return
		}
		s.q.Done(&s.chain, s.do(&s.req))
		s.q.Flush() // the medium is slow and its reader waits
	}
}

// do carries r out, answers it, and returns how many bytes from the start of
// the chain's writable part the driver may rely on.
func (s *server) do(r *Request) uint32 {
	if !r.Found {
		return s.answer(r, VIRTIO_SCSI_S_BAD_TARGET, 0, noSense)
	}
	switch r.CDB.Op() {
	case opRead6, opRead10, opRead12, opRead16:
		return s.read(r)
	}
	cmd := &commands[r.CDB.Op()]
	switch {
	case cmd.fill == nil:
		return s.answer(r, VIRTIO_SCSI_S_OK, 0, badOpcode)
	case cmd.medium && !s.drive.loaded:
		return s.answer(r, VIRTIO_SCSI_S_OK, 0, noMedium)
	}
	s.buf = answer{}
	n, bad := cmd.fill(s.drive, &r.CDB, &s.buf)
	if bad != noSense {
		return s.answer(r, VIRTIO_SCSI_S_OK, 0, bad)
	}
	n = int(min(uint64(n), uint64(cmd.alloc(&r.CDB)), r.Room))
	n = s.chain.Put(uint64(len(s.resp)), s.buf[:n])
	return s.answer(r, VIRTIO_SCSI_S_OK, uint64(n), noSense)
}

// read moves blocks of the medium straight into the guest's buffers. Where
// they are too short it fills them and says so.
func (s *server) read(r *Request) uint32 {
	lba, count := r.CDB.blocks()
	want := uint64(count) * blockSize
	switch {
	case !s.drive.loaded:
		return s.answer(r, VIRTIO_SCSI_S_OK, 0, noMedium)
	case lba > s.drive.blocks || uint64(count) > s.drive.blocks-lba:
		return s.answer(r, VIRTIO_SCSI_S_OK, 0, badAddress)
	case want > maxTransfer:
		return s.answer(r, VIRTIO_SCSI_S_OK, 0, badField)
	}
	n := min(want, r.Room)
	if n > 0 && s.image.ReadAtV(first(r.Data, n), int64(lba*blockSize)) != nil {
		return s.answer(r, VIRTIO_SCSI_S_OK, 0, readError)
	}
	if n < want {
		return s.answer(r, VIRTIO_SCSI_S_OVERRUN, n, noSense)
	}
	return s.answer(r, VIRTIO_SCSI_S_OK, n, noSense)
}

// answer writes the response to r, for which n bytes of data were written.
func (s *server) answer(r *Request, response byte, n uint64, bad sense) uint32 {
	status := byte(statusGood)
	if bad != noSense {
		status = statusCheckCondition
	}
	s.resp.set(response, status, uint32(r.Room-n), bad)
	s.chain.Put(0, s.resp[:])
	return uint32(len(s.resp)) + uint32(n)
}

// control owns the control queue.
type control struct {
	q     *virtio.Queue
	chain virtio.Chain
}

// serve answers what the queue holds. A request has been carried out when a
// later one can be taken, so there is never one to abort; and no events to
// subscribe to.
func (c *control) serve() {
	for c.q.Next(&c.chain) {
		n, err := c.do()
		if err != nil {
			c.q.Fail(err)
			return
		}
		c.q.Done(&c.chain, n)
	}
}

func (c *control) do() (uint32, error) {
	var h ctlHeader
	if !c.chain.Take(h[:]) {
		return 0, errNoHeader
	}
	var resp [5]byte // u32 events, u8 response
	n := len(resp)
	switch h.typ() {
	case VIRTIO_SCSI_T_AN_QUERY, VIRTIO_SCSI_T_AN_SUBSCRIBE:
		resp[4] = VIRTIO_SCSI_S_OK
	case VIRTIO_SCSI_T_TMF:
		n, resp[0] = 1, VIRTIO_SCSI_S_FUNCTION_COMPLETE
	default:
		n, resp[0] = 1, VIRTIO_SCSI_S_FAILURE
	}
	if c.chain.WritableLen() < uint64(n) {
		return 0, errNoResponse
	}
	return uint32(c.chain.Put(0, resp[:n])), nil
}
