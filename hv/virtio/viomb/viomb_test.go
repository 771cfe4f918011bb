package viomb_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ramSize = 16 << 20
	page    = 4096
	all     = viomb.VIRTIO_BALLOON_F_STATS_VQ | viomb.VIRTIO_BALLOON_F_DEFLATE_ON_OOM | viomb.VIRTIO_BALLOON_F_REPORTING
)

type guest struct {
	*virtiotest.Driver
	dev *viomb.Device
	c   viomb.Counters
}

func boot(t testing.TB, warn func(error)) *guest {
	t.Helper()
	h, g := virtiotest.NewHost(t, ramSize), &guest{}
	g.dev = viomb.New(h.Mem, &g.c)
	h.Plug(pci.SlotBalloon, g.dev, warn)
	g.Driver = virtiotest.NewDriver(h, pci.SlotBalloon)
	return g
}

// counters is what the device has counted so far.
func (g *guest) counters() (c viomb.Counters) {
	from := []*uint64{&g.c.Total, &g.c.Free, &g.c.Available, &g.c.Balloon, &g.c.Reported}
	for i, to := range []*uint64{&c.Total, &c.Free, &c.Available, &c.Balloon, &c.Reported} {
		*to = atomic.LoadUint64(from[i])
	}
	return c
}

// used fills n bytes and says where.
func (g *guest) used(n int) mem.GPA {
	at := g.Host.Alloc(n)
	for i, b := 0, g.Host.Bytes(at, n); i < n; i += 64 {
		b[i] = 0xaa
	}
	return at
}

// zeros counts the pages from at on that are empty.
func (g *guest) zeros(at mem.GPA, pages int) (n int) {
	for i := range pages {
		if g.Host.Bytes(at+mem.GPA(i*page), page)[0] == 0 {
			n++
		}
	}
	return n
}

// send has the device take an array of page numbers.
func (g *guest) send(q *virtiotest.Queue, pfns ...uint32) {
	at := g.Host.Alloc(4 * len(pfns))
	b := g.Host.Bytes(at, 4*len(pfns))
	for i, p := range pfns {
		binary.LittleEndian.PutUint32(b[4*i:], p)
	}
	q.Add(virtiotest.In(at, len(b)))
	q.Kick()
	q.Wait()
}

func TestInflate(t *testing.T) {
	g := boot(t, nil)
	g.Init(all)
	q := g.Queue(0, 128)
	g.Queue(1, 128)
	g.Start()
	at := g.used(100 * page)
	first := uint32(at / page)
	want := func(name string, n int) {
		t.Helper()
		if got := g.zeros(at, 100); got != n {
			t.Errorf("%s: %d pages gone, want %d", name, got, n)
		}
	}
	g.send(q, first+3)
	want("one page", 1)
	g.send(q, first+10, first+11, first+12, first+12, first+9, first+8)
	want("runs up and down", 6)
	g.send(q, 0, 0xffffffff, uint32((virtiotest.RAMBase+ramSize)/page), first+20, 0xfffffffe)
	want("outside memory", 7)
	var many []uint32
	for i := range uint32(100) {
		for range 7 {
			many = append(many, first+(i*37)%100)
		}
	}
	g.send(q, many...)
	want("many in any order", 100)
}

func TestDeflateTakesNothing(t *testing.T) {
	g := boot(t, nil)
	g.Init(all)
	g.Queue(0, 128)
	q := g.Queue(1, 128)
	g.Start()
	at := g.used(4 * page)
	g.send(q, uint32(at/page), uint32(at/page)+1)
	if n := g.zeros(at, 4); n != 0 {
		t.Errorf("%d pages gone", n)
	}
}

func TestBadArrays(t *testing.T) {
	for _, n := range []int{1, 7, 4*65536 + 4} {
		g := boot(t, func(error) {})
		g.Init(all)
		q := g.Queue(0, 128)
		g.Start()
		q.Add(virtiotest.In(g.Host.Alloc(n), n))
		q.Kick()
		g.WaitConfig()
		if g.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
			t.Errorf("%d bytes: status %#x", n, g.Status())
		}
	}
}

// Drivers disagree on the number of the reporting queue.
func TestReporting(t *testing.T) {
	for _, c := range []struct {
		name     string
		features uint64
		queue    int
	}{
		{"by the specification", all, 4},
		{"as Linux has it", all, 3},
		{"as Linux has it without statistics", viomb.VIRTIO_BALLOON_F_REPORTING, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := boot(t, nil)
			g.Init(c.features)
			q := g.Queue(c.queue, 128)
			g.Start()
			at := g.used(32 * page)
			q.Add(virtiotest.Out(at, 8*page), virtiotest.Out(at+16*page, 4*page), virtiotest.Out(at+20*page+1, page))
			q.Kick()
			if _, n := q.Wait(); n != 0 {
				t.Errorf("used length %d", n)
			}
			if n := g.zeros(at, 32); n != 12 {
				t.Errorf("%d pages gone, want 12", n)
			}
			g.SetStatus(0)
			if g.counters().Reported != 13*page {
				t.Errorf("%d bytes reported", g.counters().Reported)
			}
		})
	}
}

func (g *guest) stat(q *virtiotest.Queue, at mem.GPA, entries ...uint64) {
	b := g.Host.Bytes(at, 5*len(entries))
	for i := 0; i < len(entries); i += 2 {
		binary.LittleEndian.PutUint16(b[5*i:], uint16(entries[i]))
		binary.LittleEndian.PutUint64(b[5*i+2:], entries[i+1])
	}
	q.Add(virtiotest.In(at, len(b)))
	q.Kick()
}

func TestStatistics(t *testing.T) {
	g := boot(t, nil)
	g.dev.Refresh() // nobody there
	g.Init(all)
	q := g.Queue(2, 128)
	g.Start()
	at := g.Host.Alloc(2 * page)
	g.stat(q, at, 4, 1000, 5, 5000, 6, 3000, 77, 1)
	g.dev.Refresh()
	if _, n := q.Wait(); n != 0 {
		t.Errorf("used length %d", n)
	}
	g.stat(q, at, 4, 900)
	g.dev.Refresh()
	q.Wait()
	if g.counters() != (viomb.Counters{Total: 5000, Free: 900, Available: 3000}) {
		t.Errorf("counters %+v", g.counters())
	}
	// One buffer more than drivers have sends the first one back.
	g.stat(q, at, 4, 800)
	q.Add(virtiotest.In(at, 3))
	q.Kick()
	q.Wait()
	g.SetStatus(0)
	if g.counters() != (viomb.Counters{}) {
		t.Errorf("counters after a reset %+v", g.counters())
	}
	g.dev.Refresh()
}

func TestTooManyStatistics(t *testing.T) {
	g := boot(t, nil)
	g.Init(all)
	q := g.Queue(2, 128)
	g.Start()
	at := g.Host.Alloc(1 << 20)
	entries := make([]uint64, 2*70)
	for i := range 70 {
		entries[2*i], entries[2*i+1] = 4, uint64(i)
	}
	g.stat(q, at, entries...)
	g.dev.Refresh()
	q.Wait()
	if g.counters().Free != 63 {
		t.Errorf("free %d, want that of the 64th", g.counters().Free)
	}
}

func TestTarget(t *testing.T) {
	g := boot(t, nil)
	g.dev.SetTarget(4 << 20) // before there is a driver
	g.Init(all)
	g.Start()
	if got := g.Read(g.Device, 4); got != 1024 {
		t.Errorf("target %d pages", got)
	}
	g.dev.SetTarget(1 << 40)
	g.WaitConfig()
	if got := g.Read(g.Device, 4); got != ramSize/page*15/16 {
		t.Errorf("target %d pages", got)
	}
	g.Write(g.Device+4, 4, 512)
	if g.counters().Balloon != 2<<20 || g.Read(g.Device+4, 4) != 512 {
		t.Errorf("balloon %d", g.counters().Balloon)
	}
	g.Write(g.Device+4, 4, 0xffffffff)
	g.Write(g.Device+4, 2, 0)
	g.Write(g.Device, 4, 0)
	if g.counters().Balloon != ramSize || g.Read(g.Device, 4) == 0 {
		t.Errorf("balloon %d", g.counters().Balloon)
	}
}

func TestPause(t *testing.T) {
	h := virtiotest.NewHost(t, ramSize)
	dev := viomb.New(h.Mem, nil)
	f := h.PlugWith(pci.SlotBalloon, dev, virtiopci.Options{Interface: virtiopci.Transitional})
	g := &guest{Driver: virtiotest.NewLegacy(h, pci.SlotBalloon), dev: dev}
	g.Init(0)
	q := g.Queue(0, 0)
	g.Queue(1, 0)
	g.Start()
	at := g.used(page)
	for range 3 {
		f.Pause()
		f.Resume()
	}
	g.send(q, uint32(at/page))
	if g.zeros(at, 1) != 1 {
		t.Error("the page is still there")
	}
}

func TestNoAllocationPerRequest(t *testing.T) {
	g := boot(t, nil)
	g.Init(all)
	inflate, report := g.Queue(0, 128), g.Queue(4, 128)
	stats := g.Queue(2, 128)
	g.Start()
	at := g.used(4 * page)
	pfns := g.Host.Alloc(4)
	binary.LittleEndian.PutUint32(g.Host.Bytes(pfns, 4), uint32(at/page))
	in, out := []virtiotest.Part{virtiotest.In(pfns, 4)}, []virtiotest.Part{virtiotest.Out(at, 2*page)}
	if n := testing.AllocsPerRun(100, func() {
		inflate.Add(in...)
		inflate.Kick()
		inflate.Wait()
		report.Add(out...)
		report.Kick()
		report.Wait()
		stats.Add(in...)
		stats.Kick()
		g.dev.Refresh()
		stats.Wait()
	}); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

// FuzzRequests sends buffers of any shape to all queues.
func FuzzRequests(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 2, 10, 0, 4, 1, 3})
	f.Add([]byte{2, 255, 4, 255, 0, 9})
	f.Fuzz(func(t *testing.T, ops []byte) {
		g := boot(t, func(error) {})
		g.Init(all)
		var qs [5]*virtiotest.Queue
		for i := range qs {
			qs[i] = g.Queue(i, 16)
		}
		g.Start()
		at := g.Host.Alloc(16 * page)
		copy(g.Host.Bytes(at, 16*page), ops)
		for ; len(ops) >= 2; ops = ops[2:] {
			q, n := qs[ops[0]%5], int(ops[1])
			q.Add(virtiotest.Part{GPA: at + mem.GPA(ops[0]>>3)*100, N: n, Write: ops[0]&0x80 != 0})
			q.Ring()
			g.dev.Refresh()
		}
		g.Host.PCI.Reset()
	})
}
