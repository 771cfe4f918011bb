package viornd_test

import (
	"testing"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

// Buffers that were offered before a move are filled once, wherever.
func TestMove(t *testing.T) {
	h := virtiotest.NewHost(t, 1<<20)
	fn := h.Plug(pci.SlotRNG, viornd.New(), nil)
	d := virtiotest.NewDriver(h, pci.SlotRNG)
	d.Init(0)
	q := d.Queue(0, 64)
	d.Start()
	buf := h.Alloc(64 << 10)
	for i := range 30 {
		for range 2 {
			q.Add(virtiotest.Out(buf+mem.GPA(i*2048), 2048))
			q.Kick()
		}
		fn = d.Move(fn, d.Host.Twin(), viornd.New(), virtiopci.Options{}, q)
		for range 2 {
			if _, n := q.Wait(); n != 2048 {
				t.Errorf("%d bytes", n)
			}
		}
		if head, _, ok := q.Next(); ok {
			t.Errorf("buffer %d came back twice", head)
		}
	}
	ask := func() { q.Add(virtiotest.Out(buf, 3*mem.Page)) }
	if n := d.Host.Marks(fn, ask, func() { q.Ring(); q.Wait() }); n < 4 || n > 5 {
		t.Errorf("%d pages are marked, want 3 and the ring", n)
	}
}
