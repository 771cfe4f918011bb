package viornd_test

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func boot(t *testing.T) (*virtiotest.Driver, *virtiotest.Queue) {
	t.Helper()
	h := virtiotest.NewHost(t, 4<<20)
	h.Plug(pci.SlotRNG, viornd.New(), nil)
	d := virtiotest.NewDriver(h, pci.SlotRNG)
	d.Init(virtio.VIRTIO_RING_F_EVENT_IDX)
	q := d.Queue(0, 64)
	d.Start()
	return d, q
}

func TestFillsBuffers(t *testing.T) {
	d, q := boot(t)
	buf := d.Host.Alloc(1 << 20)
	for _, c := range []struct {
		name  string
		parts []virtiotest.Part
		want  uint32
	}{
		{"one byte", []virtiotest.Part{virtiotest.Out(buf, 1)}, 1},
		{"two pieces", []virtiotest.Part{virtiotest.Out(buf, 100), virtiotest.Out(buf+200, 5000)}, 5100},
		{"more than is given", []virtiotest.Part{virtiotest.Out(buf, 60000), virtiotest.Out(buf+60000, 60000)}, 65536},
		{"nothing to write", []virtiotest.Part{virtiotest.In(buf, 100)}, 0},
	} {
		q.Add(c.parts...)
		q.Kick()
		if _, n := q.Wait(); n != c.want {
			t.Errorf("%s: used length %d, want %d", c.name, n, c.want)
		}
	}
	all := d.Host.Bytes(buf, 120000)
	if bytes.Equal(all[:32], all[32:64]) || bytes.Count(all[:65536], []byte{0}) > 1000 {
		t.Error("that is not random")
	}
	if bytes.Count(all[65536:], []byte{0}) != len(all)-65536 {
		t.Error("wrote behind the limit")
	}
}

func TestRestart(t *testing.T) {
	d, q := boot(t)
	buf := d.Host.Alloc(4096)
	for range 20 {
		q.Add(virtiotest.Out(buf, 64))
		q.Kick()
		q.Wait()
		d.Init(0)
		q = d.Queue(0, 32)
		d.Start()
	}
}

func TestNoAllocationPerRequest(t *testing.T) {
	d, q := boot(t)
	parts := []virtiotest.Part{virtiotest.Out(d.Host.Alloc(4096), 4096)}
	if n := testing.AllocsPerRun(100, func() {
		q.Add(parts...)
		q.Kick()
		q.Wait()
	}); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}
