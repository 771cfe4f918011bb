package vionet

// Link is where a network device's frames come from and go to: a tap, or
// something that stands in front of one. Every frame has HeaderLen bytes of
// struct virtio_net_hdr before it, little-endian.
//
// A device with several pairs of queues has a link for each: the queues of one
// tap. Offloads belong to the interface and are set on the first.
//
// One goroutine reads and another writes; the other methods may come from
// anywhere.
type Link interface {
	// Offloads are the TUN_F_ bits that the link can take.
	Offloads() uint32
	// SetOffload says which of them the guest's driver can receive.
	SetOffload(bits uint32) error
	// ReadFrame scatters the next frame over bufs, at most MaxSegments, and
	// returns its length with the header. One that does not fit fills bufs to
	// the end. Where there is no frame it returns 0: at once, or if wait is set
	// when it has been woken. An error is for good.
	ReadFrame(bufs [][]byte, wait bool) (int, error)
	// WriteFrame sends the frame gathered from bufs, at most MaxSegments. It
	// does not block: a frame that cannot go now is lost, which is an error.
	WriteFrame(bufs [][]byte) error
	// SetActive says whether frames may arrive on this link or shall come on
	// the others. A single link is always active.
	SetActive(on bool) error
	// Wake makes the ReadFrame that waits, or the next one, return.
	Wake()
}
