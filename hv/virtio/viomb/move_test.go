package viomb_test

import (
	"encoding/binary"
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

// A balloon moves with what is in it, its target, and the buffer of statistics
// that the device has read and not returned.
func TestMove(t *testing.T) {
	h, g := virtiotest.NewHost(t, ramSize), &guest{}
	g.dev = viomb.New(h.Mem, &g.c)
	fn := h.Plug(pci.SlotBalloon, g.dev, nil)
	g.Driver = virtiotest.NewDriver(h, pci.SlotBalloon)
	g.Init(all)
	inflate, deflate, stats := g.Queue(0, 128), g.Queue(1, 128), g.Queue(2, 16)
	g.Start()
	at := g.used(10 * page)
	g.send(inflate, uint32(at/page))
	g.Write(g.Device+4, 4, 1)
	g.dev.SetTarget(3 * page)
	buf := g.Host.Alloc(page)
	say := func(free uint64) {
		b := g.Host.Bytes(buf, 10)
		binary.LittleEndian.PutUint16(b, viomb.VIRTIO_BALLOON_S_MEMFREE)
		binary.LittleEndian.PutUint64(b[2:], free)
		stats.Add(virtiotest.In(buf, 10))
		stats.Kick()
	}
	say(1000)
	for i := range uint64(5) {
		twin := g.Host.Twin()
		g.dev = viomb.New(twin.Mem, &g.c)
		fn = g.Move(fn, twin, g.dev, virtiopci.Options{}, inflate, deflate, stats)
		if got := g.Read(g.Device, 8); got != 1<<32|3 {
			t.Errorf("target and size are %#x", got)
		}
		if c := g.counters(); c.Balloon != page {
			t.Errorf("counters %+v", c)
		}
		g.dev.Refresh() // returns the buffer that was taken there
		stats.Wait()
		if c := g.counters(); c.Free != 1000+i {
			t.Errorf("after move %d: counters %+v", i, c)
		}
		say(1001 + i)
		g.send(inflate, uint32(at/page)+2+uint32(i))
		if got := g.zeros(at, 10); got != 2+int(i) {
			t.Errorf("%d pages gone", got)
		}
	}
	g.Host.Marks(fn, func() {}, func() {
		g.dev.Refresh()
		stats.Wait()
	})
}

// Pages that a guest gives back read as zero, here and where it moves.
func TestMarksWhatIsGivenBack(t *testing.T) {
	h, g := virtiotest.NewHost(t, ramSize), &guest{}
	g.dev = viomb.New(h.Mem, &g.c)
	fn := h.Plug(pci.SlotBalloon, g.dev, nil)
	g.Driver = virtiotest.NewDriver(h, pci.SlotBalloon)
	g.Init(all)
	inflate, report := g.Queue(0, 128), g.Queue(3, 128)
	g.Start()
	at, free := g.used(10*page), g.used(64*page)
	pfns := g.Host.Alloc(page)
	binary.LittleEndian.PutUint32(g.Host.Bytes(pfns, 4), uint32(at/page)+1)
	n := g.Host.Marks(fn, func() {
		inflate.Add(virtiotest.In(pfns, 4))
		report.Add(virtiotest.Out(free, 64*page))
	}, func() {
		inflate.Ring()
		report.Ring()
		inflate.Wait()
		report.Wait()
	})
	if n < 65 || n > 69 {
		t.Errorf("%d pages are marked, want 65 and the rings", n)
	}
}

func TestRestoreRefusesTargets(t *testing.T) {
	h := virtiotest.NewHost(t, ramSize)
	big := viomb.New(virtiotest.NewHost(t, 2*ramSize).Mem, nil)
	big.SetTarget(2 * ramSize)
	b, err := big.SaveState()
	if err != nil {
		t.Fatal(err)
	}
	if viomb.New(h.Mem, nil).RestoreState(b) == nil {
		t.Error("a target of more than the guest has was taken")
	}
	if viomb.New(h.Mem, nil).RestoreState(nil) == nil {
		t.Error("nothing was taken")
	}
}
