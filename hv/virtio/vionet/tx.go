package vionet

import (
	"sync/atomic"

	"vmd/hv/virtio"
)

// txBurst is how many frames may be sent before the guest gets their buffers
// back.
const txBurst = 64

// sender owns the transmit queue.
type sender struct {
	d     *Device
	link  Link
	q     *virtio.Queue
	rules rules
	chain virtio.Chain
	frame Frame
}

func (s *sender) serve() {
	for n := 1; s.q.Next(&s.chain); n++ {
		s.send()
		s.q.Done(&s.chain, 0)
		if n%txBurst == 0 {
			s.q.Flush()
		}
	}
}

// send passes the chain's frame to the link. One that the guest may not send,
// or that the link does not take now, is dropped and counted.
func (s *sender) send() {
	c := s.d.counters
	err := s.frame.parse(&s.chain, &s.rules)
	if err == nil && s.d.linkUp() {
		if err = s.link.WriteFrame(s.frame.Bufs); err == nil {
			atomic.AddUint64(&c.TxPackets, 1)
			atomic.AddUint64(&c.TxBytes, s.frame.Len-HeaderLen)
			return
		}
	}
	atomic.AddUint64(&c.TxDrops, 1)
}
