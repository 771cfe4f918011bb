package vionet_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"vmd/hv/mem"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/virtiotest"
)

// hostileFrames write what a locked guest may not send into its buffer, and
// return the parts of it.
var hostileFrames = map[string]func(g *guest) []virtiotest.Part{
	"a stranger's": func(g *guest) []virtiotest.Part {
		copy(g.Host.Bytes(g.buf+12, 60), frame(60, [6]byte{2, 9, 9, 9, 9, 9}))
		return []virtiotest.Part{virtiotest.In(g.buf, 72)}
	},
	"too short": func(g *guest) []virtiotest.Part { return []virtiotest.Part{virtiotest.In(g.buf, 20)} },
	"too long":  func(g *guest) []virtiotest.Part { return []virtiotest.Part{virtiotest.In(g.buf, 80<<10)} },
	"with a header that lies": func(g *guest) []virtiotest.Part {
		copy(g.Host.Bytes(g.buf, 12), []byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		copy(g.Host.Bytes(g.buf+12, 60), frame(60, mac))
		return []virtiotest.Part{virtiotest.In(g.buf, 72)}
	},
	"in pieces": func(g *guest) (p []virtiotest.Part) {
		for i := range 250 {
			p = append(p, virtiotest.In(g.buf+mem.GPA(i), 1))
		}
		return append(p, virtiotest.Out(g.buf+4096, 1))
	},
}

// What a guest sends that it may not send costs a count, and no memory, no
// message and no wait. Another guest's frames come and go meanwhile: two devices
// have nothing in common.
func TestFloodOfHostileFrames(t *testing.T) {
	for name, parts := range hostileFrames {
		t.Run(name, func(t *testing.T) {
			warned := func(err error) { t.Errorf("vmd said: %v", err) }
			bad := boot(t, vionet.Config{LockMAC: true}, virtio.VIRTIO_RING_F_EVENT_IDX, warned)
			bad.wire.setQuiet()
			good := boot(t, vionet.Config{LockMAC: true}, virtio.VIRTIO_RING_F_EVENT_IDX, warned)
			good.wire.setQuiet()
			frames := parts(bad)
			var stop atomic.Bool
			var flood sync.WaitGroup
			var sent uint64
			send := func() {
				bad.tx.Add(frames...)
				bad.tx.Kick()
				bad.tx.Wait()
				sent++
			}
			for range 100 { // buffers have grown
				send()
			}
			if n := testing.AllocsPerRun(100, send); n != 0 {
				t.Errorf("%v allocations per frame", n)
			}
			flood.Go(func() {
				for !stop.Load() {
					send()
				}
			})
			const rounds = 500
			for range rounds {
				good.pass()
			}
			stop.Store(true)
			flood.Wait()
			if c := bad.counters(); c.TxPackets != 0 || c.TxDrops != sent {
				t.Errorf("%d frames sent; counted %+v", sent, c)
			}
			if c := good.counters(); c.TxPackets != rounds || c.RxPackets != rounds || c.TxDrops+c.RxDrops != 0 {
				t.Errorf("%d frames each way; counted %+v", rounds, c)
			}
			if bad.wire.sent.Load() != 0 {
				t.Error("hostile frames went out")
			}
		})
	}
}

// pass moves a frame out and one in.
func (g *guest) pass() {
	g.t.Helper()
	copy(g.Host.Bytes(g.buf+12, 60), frame(60, mac))
	g.tx.Add(virtiotest.In(g.buf, 72))
	g.tx.Kick()
	g.tx.Wait()
	g.rx.Add(virtiotest.Out(g.buf+8192, 2048))
	g.rx.Kick()
	in := frame(60, [6]byte{2, 0, 0, 0, 0, 1})
	copy(in, mac[:])
	g.wire.send(in)
	g.rx.Wait()
}
