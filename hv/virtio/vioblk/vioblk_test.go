package vioblk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"vmd/hv/disk"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const imageSize = 4 << 20

func image(t testing.TB, readOnly bool) *disk.Raw {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, imageSize); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	img, err := disk.NewRaw(f, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// guest is a driver with one queue of a disk.
type guest struct {
	*virtiotest.Driver
	t    testing.TB
	fn   *virtiopci.Function
	q    *virtiotest.Queue
	head mem.GPA // a request header
	stat mem.GPA // a status
	data mem.GPA
	cnt  vioblk.Counters
}

const dataSize = 1 << 20

func boot(t testing.TB, img disk.Image, cfg vioblk.Config, features uint64, warn func(error)) *guest {
	t.Helper()
	g := &guest{t: t}
	cfg.Counters = &g.cnt
	dev, err := vioblk.New(img, cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := virtiotest.NewHost(t, 8<<20)
	g.fn = h.Plug(pci.SlotDisk, dev, warn)
	g.Driver = virtiotest.NewDriver(h, pci.SlotDisk)
	g.start(features)
	return g
}

func (g *guest) start(features uint64) {
	g.t.Helper()
	g.Init(features)
	g.q = g.Queue(0, 256)
	g.Start()
	g.head, g.stat = g.Host.Alloc(16), g.Host.Alloc(16)
	if g.data == 0 {
		g.data = g.Host.Alloc(dataSize)
	}
}

// counters reads what the device has counted so far.
func (g *guest) counters() vioblk.Counters {
	c := &g.cnt
	return vioblk.Counters{
		ReadOps: atomic.LoadUint64(&c.ReadOps), WriteOps: atomic.LoadUint64(&c.WriteOps), FlushOps: atomic.LoadUint64(&c.FlushOps),
		ReadBytes: atomic.LoadUint64(&c.ReadBytes), WriteBytes: atomic.LoadUint64(&c.WriteBytes),
		ReadNS: atomic.LoadUint64(&c.ReadNS), WriteNS: atomic.LoadUint64(&c.WriteNS), Errors: atomic.LoadUint64(&c.Errors),
	}
}

func (g *guest) header(op uint32, sector uint64) {
	b := g.Host.Bytes(g.head, 16)
	binary.LittleEndian.PutUint32(b, op)
	binary.LittleEndian.PutUint32(b[4:], 0)
	binary.LittleEndian.PutUint64(b[8:], sector)
	g.Host.Bytes(g.stat, 1)[0] = 0xff
}

// do sends one request whose data parts are given, and returns its status and
// used length.
func (g *guest) do(op uint32, sector uint64, data ...virtiotest.Part) (byte, uint32) {
	g.header(op, sector)
	parts := append([]virtiotest.Part{virtiotest.In(g.head, 16)}, data...)
	g.q.Add(append(parts, virtiotest.Out(g.stat, 1))...)
	g.q.Kick()
	_, n := g.q.Wait()
	return g.Host.Bytes(g.stat, 1)[0], n
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*7 + byte(i>>8) + seed
	}
	return b
}

var featureSets = map[string]uint64{
	"plain":     0,
	"event_idx": virtio.VIRTIO_RING_F_EVENT_IDX,
	"all":       virtio.VIRTIO_RING_F_EVENT_IDX | virtio.VIRTIO_RING_F_INDIRECT_DESC | vioblk.VIRTIO_BLK_F_DISCARD | vioblk.VIRTIO_BLK_F_WRITE_ZEROES | vioblk.VIRTIO_BLK_F_FLUSH,
}

func TestReadBackWhatWasWritten(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			img := image(t, false)
			g := boot(t, img, vioblk.Config{}, features, nil)
			want := pattern(8192, 3)
			copy(g.Host.Bytes(g.data, 8192), want)
			if s, n := g.do(vioblk.VIRTIO_BLK_T_OUT, 9, virtiotest.In(g.data, 512), virtiotest.In(g.data+512, 7680)); s != 0 || n != 1 {
				t.Fatalf("write: status %d, used %d, want 0, 1", s, n)
			}
			if s, _ := g.do(vioblk.VIRTIO_BLK_T_FLUSH, 0); s != 0 {
				t.Fatalf("flush: status %d", s)
			}
			got := make([]byte, 8192)
			if err := img.ReadAtV([][]byte{got}, 9*512); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("the image does not hold what was written (%v)", err)
			}
			back := g.data + 65536
			// 100 bytes, then the rest: data may be cut anywhere.
			if s, n := g.do(vioblk.VIRTIO_BLK_T_IN, 9, virtiotest.Out(back, 100), virtiotest.Out(back+100, 8092)); s != 0 || n != 8193 {
				t.Fatalf("read: status %d, used %d, want 0, 8193", s, n)
			}
			if !bytes.Equal(g.Host.Bytes(back, 8192), want) {
				t.Fatal("read something else than was written")
			}
			c := g.counters()
			if c.ReadOps != 1 || c.WriteOps != 1 || c.FlushOps != 1 || c.ReadBytes != 8192 || c.WriteBytes != 8192 || c.Errors != 0 {
				t.Errorf("counters %+v", c)
			}
			if c.ReadNS == 0 || c.WriteNS == 0 {
				t.Errorf("no latency counted: %+v", c)
			}
		})
	}
}

func TestRequestsOverThePin(t *testing.T) {
	dev, err := vioblk.New(image(t, false), vioblk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := virtiotest.NewHost(t, 8<<20)
	h.NoDoorbells = true // and every notification through the registers
	h.Plug(pci.SlotDisk, dev, func(err error) {
		if !strings.Contains(err.Error(), "doorbell") {
			t.Error(err)
		}
	})
	g := &guest{t: t, Driver: virtiotest.NewDriver(h, pci.SlotDisk)}
	g.INTx = true
	g.start(0)
	for i := range 50 {
		if s, _ := g.do(vioblk.VIRTIO_BLK_T_IN, uint64(i), virtiotest.Out(g.data, 512)); s != 0 {
			t.Fatalf("read %d: status %d", i, s)
		}
	}
	g.SetStatus(0) // an interrupt may have come for what had been seen already
	if g.Line().High() {
		t.Error("the line is still up after a reset")
	}
}

func TestFramingIsArbitrary(t *testing.T) {
	g := boot(t, image(t, false), vioblk.Config{}, virtio.VIRTIO_RING_F_INDIRECT_DESC, nil)
	copy(g.Host.Bytes(g.data, 512), pattern(512, 9))
	// The header in three pieces, the last with data behind it.
	at := g.Host.Alloc(600)
	g.header(vioblk.VIRTIO_BLK_T_OUT, 4)
	copy(g.Host.Bytes(at, 16), g.Host.Bytes(g.head, 16))
	copy(g.Host.Bytes(at+16, 512), pattern(512, 9))
	g.q.AddIndirect(virtiotest.In(at, 1), virtiotest.In(at+1, 9), virtiotest.In(at+10, 518), virtiotest.Out(g.stat, 1))
	g.q.Kick()
	g.q.Wait()
	if s := g.Host.Bytes(g.stat, 1)[0]; s != 0 {
		t.Fatalf("write: status %d", s)
	}
	// Data and status in one descriptor.
	g.header(vioblk.VIRTIO_BLK_T_IN, 4)
	out := g.Host.Alloc(520)
	g.q.Add(virtiotest.In(g.head, 16), virtiotest.Out(out, 513))
	g.q.Kick()
	if _, n := g.q.Wait(); n != 513 {
		t.Fatalf("used %d, want 513", n)
	}
	b := g.Host.Bytes(out, 513)
	if !bytes.Equal(b[:512], pattern(512, 9)) || b[512] != 0 {
		t.Fatalf("read back wrong, status %d", b[512])
	}
}

func TestGetID(t *testing.T) {
	g := boot(t, image(t, false), vioblk.Config{Serial: "a-serial-that-is-too-long"}, 0, nil)
	s, n := g.do(vioblk.VIRTIO_BLK_T_GET_ID, 0, virtiotest.Out(g.data, 20))
	if got := string(g.Host.Bytes(g.data, 20)); s != 0 || n != 21 || got != "a-serial-that-is-too" {
		t.Fatalf("status %d, used %d, id %q", s, n, got)
	}
}

func TestConfigSpace(t *testing.T) {
	g := boot(t, image(t, false), vioblk.Config{Queues: 3}, 0, nil)
	for _, c := range []struct {
		off  uint64
		size int
		want uint64
	}{
		{0, 4, imageSize / 512}, {4, 4, 0}, {12, 4, 254}, {20, 4, 512}, {24, 1, 3}, {34, 2, 3}, {36, 4, 1 << 21}, {56, 1, 1}, {60, 4, 0}, {0xf8, 4, 0},
	} {
		if got := g.Read(g.Device+c.off, c.size); got != c.want {
			t.Errorf("config %d: %d, want %d", c.off, got, c.want)
		}
	}
	if n := g.Read(g.Common+virtiotest.NumQueues, 2); n != 3 {
		t.Errorf("%d queues, want 3", n)
	}
}

func TestDiscardAndZero(t *testing.T) {
	img := image(t, false)
	g := boot(t, img, vioblk.Config{}, featureSets["all"], nil)
	if err := img.WriteAtV([][]byte{pattern(8192, 1)}, 0); err != nil {
		t.Fatal(err)
	}
	seg := func(i int, sector uint64, n, flags uint32) {
		b := g.Host.Bytes(g.data+mem.GPA(16*i), 16)
		binary.LittleEndian.PutUint64(b, sector)
		binary.LittleEndian.PutUint32(b[8:], n)
		binary.LittleEndian.PutUint32(b[12:], flags)
	}
	for _, c := range []struct {
		name string
		op   uint32
		segs int
		set  func()
		want byte
	}{
		{"zero two ranges", vioblk.VIRTIO_BLK_T_WRITE_ZEROES, 2, func() { seg(0, 0, 1, 0); seg(1, 2, 1, 1) }, 0},
		{"discard", vioblk.VIRTIO_BLK_T_DISCARD, 1, func() { seg(0, 8, 8, 0) }, 0},
		{"discard with a flag", vioblk.VIRTIO_BLK_T_DISCARD, 1, func() { seg(0, 8, 8, 1) }, 2},
		{"zero with an unknown flag", vioblk.VIRTIO_BLK_T_WRITE_ZEROES, 1, func() { seg(0, 8, 8, 2) }, 2},
		{"beyond the end", vioblk.VIRTIO_BLK_T_DISCARD, 1, func() { seg(0, imageSize/512-1, 2, 0) }, 1},
		{"sector that wraps", vioblk.VIRTIO_BLK_T_WRITE_ZEROES, 1, func() { seg(0, 1<<64-1, 2, 0) }, 1},
		{"too long", vioblk.VIRTIO_BLK_T_WRITE_ZEROES, 1, func() { seg(0, 0, 1<<16+1, 0) }, 1},
		{"too many", vioblk.VIRTIO_BLK_T_DISCARD, 17, func() {}, 1},
		{"none", vioblk.VIRTIO_BLK_T_DISCARD, 0, func() {}, 1},
	} {
		c.set()
		if s, _ := g.do(c.op, 0, virtiotest.In(g.data, 16*c.segs)); s != c.want {
			t.Errorf("%s: status %d, want %d", c.name, s, c.want)
		}
	}
	got := make([]byte, 2048)
	if err := img.ReadAtV([][]byte{got}, 0); err != nil {
		t.Fatal(err)
	}
	want := pattern(2048, 1)
	clear(want[:512])
	clear(want[1024:1536])
	if !bytes.Equal(got, want) {
		t.Error("WRITE_ZEROES cleared something else than it was asked to")
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name     string
		readOnly bool
		op       uint32
		sector   uint64
		part     func(g *guest) virtiotest.Part
		want     byte
	}{
		{"write to a read-only disk", true, vioblk.VIRTIO_BLK_T_OUT, 0, func(g *guest) virtiotest.Part { return virtiotest.In(g.data, 512) }, 1},
		{"read of half a sector", false, vioblk.VIRTIO_BLK_T_IN, 0, func(g *guest) virtiotest.Part { return virtiotest.Out(g.data, 256) }, 1},
		{"read behind the end", false, vioblk.VIRTIO_BLK_T_IN, imageSize / 512, func(g *guest) virtiotest.Part { return virtiotest.Out(g.data, 512) }, 1},
		{"read across the end", false, vioblk.VIRTIO_BLK_T_IN, imageSize/512 - 1, func(g *guest) virtiotest.Part { return virtiotest.Out(g.data, 1024) }, 1},
		{"sector that wraps", false, vioblk.VIRTIO_BLK_T_IN, 1<<64 - 1, func(g *guest) virtiotest.Part { return virtiotest.Out(g.data, 512) }, 1},
		{"sector that wraps in bytes", false, vioblk.VIRTIO_BLK_T_IN, 1 << 55, func(g *guest) virtiotest.Part { return virtiotest.Out(g.data, 512) }, 1},
		{"unknown type", false, 77, 0, func(g *guest) virtiotest.Part { return virtiotest.Out(g.data, 512) }, 2},
		{"discard not negotiated", false, vioblk.VIRTIO_BLK_T_DISCARD, 0, func(g *guest) virtiotest.Part { return virtiotest.In(g.data, 16) }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := boot(t, image(t, c.readOnly), vioblk.Config{ReadOnly: c.readOnly}, 0, nil)
			if s, _ := g.do(c.op, c.sector, c.part(g)); s != c.want {
				t.Errorf("status %d, want %d", s, c.want)
			}
			if s, _ := g.do(vioblk.VIRTIO_BLK_T_IN, 0, virtiotest.Out(g.data, 512)); s != 0 {
				t.Errorf("the next request: status %d", s)
			}
		})
	}
}

func TestTransferTooLarge(t *testing.T) {
	g := boot(t, image(t, false), vioblk.Config{}, 0, nil)
	var parts []virtiotest.Part
	for range 17 { // 17 MiB of one buffer
		parts = append(parts, virtiotest.Out(g.data, dataSize))
	}
	if s, _ := g.do(vioblk.VIRTIO_BLK_T_IN, 0, parts...); s != 1 {
		t.Errorf("status %d, want 1", s)
	}
}

// TestBrokenRings checks that a guest which breaks the specification loses its
// device, hears of it, and gets it back with a reset.
func TestBrokenRings(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(g *guest)
	}{
		{"chain that loops", "longer than its table", func(g *guest) {
			g.q.PutDesc(0, g.data, 16, virtio.VIRTQ_DESC_F_NEXT, 1)
			g.q.PutDesc(1, g.data, 16, virtio.VIRTQ_DESC_F_NEXT, 0)
			g.q.Post(0)
		}},
		{"head outside the table", "descriptor 256", func(g *guest) { g.q.Post(256) }},
		{"next outside the table", "descriptor 65535", func(g *guest) {
			g.q.PutDesc(0, g.data, 16, virtio.VIRTQ_DESC_F_NEXT, 65535)
			g.q.Post(0)
		}},
		{"index that jumps", "jumped", func(g *guest) { g.q.SetAvail(257) }},
		{"address outside memory", "outside guest memory", func(g *guest) { g.q.Add(virtiotest.In(1<<40, 16)) }},
		{"address that wraps", "outside guest memory", func(g *guest) { g.q.Add(virtiotest.In(1<<64-8, 16)) }},
		{"4 GiB in one chain", "", func(g *guest) {
			g.q.PutDesc(0, g.data, 1<<32-1, virtio.VIRTQ_DESC_F_NEXT, 1)
			g.q.PutDesc(1, g.data, 1<<32-1, 0, 0)
			g.q.Post(0)
		}},
		{"writable before readable", "after a writable", func(g *guest) { g.q.Add(virtiotest.Out(g.data, 16), virtiotest.In(g.head, 16)) }},
		{"indirect table not negotiated", "indirect", func(g *guest) { g.q.AddIndirect(virtiotest.In(g.head, 16)) }},
		{"no room for a header", "header", func(g *guest) { g.q.Add(virtiotest.In(g.head, 15), virtiotest.Out(g.stat, 1)) }},
		{"no room for a status", "status", func(g *guest) { g.q.Add(virtiotest.In(g.head, 16)) }},
		{"empty chain", "header", func(g *guest) { g.q.Add(virtiotest.In(g.head, 0)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			warned := make(chan error, 2)
			g := boot(t, image(t, false), vioblk.Config{}, 0, func(err error) { warned <- err })
			c.do(g)
			g.q.Ring()
			g.WaitConfig()
			if s := g.Status(); s&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
				t.Fatalf("status %#x, want NEEDS_RESET", s)
			}
			if err := <-warned; !strings.Contains(err.Error(), c.want) {
				t.Errorf("warned %q, want %q", err, c.want)
			}
			g.start(0)
			if s, _ := g.do(vioblk.VIRTIO_BLK_T_IN, 0, virtiotest.Out(g.data, 512)); s != 0 {
				t.Errorf("after a reset: status %d", s)
			}
			if len(warned) != 0 {
				t.Errorf("warned again: %v", <-warned)
			}
		})
	}
}

// slow is an image whose reads wait until they are let go.
type slow struct {
	disk.Image
	entered, release chan struct{}
	flight           atomic.Int32
}

func (s *slow) ReadAtV(bufs [][]byte, off int64) error {
	s.flight.Add(1)
	s.entered <- struct{}{}
	<-s.release
	defer s.flight.Add(-1)
	return s.Image.ReadAtV(bufs, off)
}

func TestResetWaitsForIOInFlight(t *testing.T) {
	img := &slow{Image: image(t, false), entered: make(chan struct{}), release: make(chan struct{})}
	g := boot(t, img, vioblk.Config{}, 0, nil)
	g.header(vioblk.VIRTIO_BLK_T_IN, 0)
	g.q.Add(virtiotest.In(g.head, 16), virtiotest.Out(g.data, 512), virtiotest.Out(g.stat, 1))
	g.q.Kick()
	<-img.entered
	done := make(chan int32)
	go func() {
		g.SetStatus(0)
		done <- img.flight.Load()
	}()
	select {
	case <-done:
		t.Fatal("reset returned while a read was on its way into guest memory")
	case img.release <- struct{}{}:
	}
	if n := <-done; n != 0 {
		t.Errorf("%d reads in flight after a reset", n)
	}
}

func TestPauseHoldsRequestsBack(t *testing.T) {
	dev, err := vioblk.New(image(t, false), vioblk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := virtiotest.NewHost(t, 8<<20)
	f := h.Plug(pci.SlotDisk, dev, nil)
	g := &guest{t: t, Driver: virtiotest.NewDriver(h, pci.SlotDisk)}
	g.start(0)
	for range 20 {
		f.Pause()
		g.header(vioblk.VIRTIO_BLK_T_IN, 0)
		g.q.Add(virtiotest.In(g.head, 16), virtiotest.Out(g.data, 512), virtiotest.Out(g.stat, 1))
		g.q.Ring()
		if _, _, ok := g.q.Next(); ok {
			t.Fatal("a paused device answered")
		}
		f.Resume()
		g.q.Wait()
	}
	f.Pause() // and the close of a paused device must end
}

type flushes struct {
	disk.Image
	n atomic.Int32
}

func (f *flushes) Flush() error {
	f.n.Add(1)
	return f.Image.Flush()
}

func TestDriverThatCannotFlush(t *testing.T) {
	for _, tt := range []struct {
		features uint64
		want     int32
	}{{0, 1}, {vioblk.VIRTIO_BLK_F_FLUSH, 0}} {
		img := &flushes{Image: image(t, false)}
		g := boot(t, img, vioblk.Config{}, tt.features, nil)
		g.do(vioblk.VIRTIO_BLK_T_OUT, 0, virtiotest.In(g.data, 512))
		g.do(vioblk.VIRTIO_BLK_T_IN, 0, virtiotest.Out(g.data, 512))
		if got := img.n.Load(); got != tt.want {
			t.Errorf("features %#x: %d flushes after a write and a read, want %d", tt.features, got, tt.want)
		}
	}
}

type broken struct{ disk.Image }

func (broken) ReadAtV([][]byte, int64) error  { return errors.New("bad sector") }
func (broken) WriteAtV([][]byte, int64) error { return errors.New("bad sector") }
func (broken) Flush() error                   { return errors.New("cache lost") }

func TestStorageErrorsReachTheGuest(t *testing.T) {
	g := boot(t, broken{image(t, false)}, vioblk.Config{}, 0, nil)
	for _, op := range []uint32{vioblk.VIRTIO_BLK_T_IN, vioblk.VIRTIO_BLK_T_OUT, vioblk.VIRTIO_BLK_T_FLUSH} {
		part := virtiotest.Out(g.data, 512)
		part.Write = op == vioblk.VIRTIO_BLK_T_IN
		if s, _ := g.do(op, 0, part); s != 1 {
			t.Errorf("op %d: status %d, want 1", op, s)
		}
	}
	if c := g.counters(); c.Errors != 3 || c.ReadOps != 1 || c.ReadBytes != 0 || c.WriteBytes != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestPanicCostsTheDeviceOnly(t *testing.T) {
	warned := make(chan error, 1)
	g := boot(t, panics{image(t, false)}, vioblk.Config{}, 0, func(err error) { warned <- err })
	g.header(vioblk.VIRTIO_BLK_T_IN, 0)
	g.q.Add(virtiotest.In(g.head, 16), virtiotest.Out(g.data, 512), virtiotest.Out(g.stat, 1))
	g.q.Kick()
	if err := <-warned; !strings.Contains(err.Error(), "panicked") {
		t.Error(err)
	}
	g.WaitConfig()
	g.SetStatus(0)
}

type panics struct{ disk.Image }

func (panics) ReadAtV([][]byte, int64) error { panic("bug") }

func TestSeveralQueues(t *testing.T) {
	dev, err := vioblk.New(image(t, false), vioblk.Config{Queues: 4})
	if err != nil {
		t.Fatal(err)
	}
	h := virtiotest.NewHost(t, 8<<20)
	h.Plug(pci.SlotDisk, dev, nil)
	d := virtiotest.NewDriver(h, pci.SlotDisk)
	d.Init(vioblk.VIRTIO_BLK_F_MQ)
	var qs []*virtiotest.Queue
	for i := range 3 { // the fourth stays off
		qs = append(qs, d.Queue(i, 16))
	}
	d.Start()
	if n := h.Doorbells(); n != 3 {
		t.Errorf("%d doorbells, want 3", n)
	}
	for _, q := range qs {
		g := &guest{Driver: d, t: t, q: q, head: h.Alloc(16), stat: h.Alloc(16), data: h.Alloc(512)}
		if s, _ := g.do(vioblk.VIRTIO_BLK_T_IN, 0, virtiotest.Out(g.data, 512)); s != 0 {
			t.Errorf("status %d", s)
		}
	}
}

func TestNoAllocationPerRequest(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			g := boot(t, image(t, false), vioblk.Config{}, features, nil)
			read := []virtiotest.Part{virtiotest.In(g.head, 16), virtiotest.Out(g.data, 4096), virtiotest.Out(g.data+8192, 4096), virtiotest.Out(g.stat, 1)}
			write := []virtiotest.Part{virtiotest.In(g.head, 16), virtiotest.In(g.data, 4096), virtiotest.In(g.data+8192, 4096), virtiotest.Out(g.stat, 1)}
			run := func() {
				g.header(vioblk.VIRTIO_BLK_T_OUT, 0)
				g.q.Add(write...)
				g.q.Kick()
				g.q.Wait()
				g.header(vioblk.VIRTIO_BLK_T_IN, 0)
				g.q.Add(read...)
				g.q.Kick()
				g.q.Wait()
			}
			if n := testing.AllocsPerRun(200, run); n != 0 {
				t.Errorf("%v allocations per write and read", n)
			}
		})
	}
}

func BenchmarkRead4K(b *testing.B) {
	g := boot(b, image(b, false), vioblk.Config{}, virtio.VIRTIO_RING_F_EVENT_IDX, nil)
	g.header(vioblk.VIRTIO_BLK_T_IN, 0)
	read := []virtiotest.Part{virtiotest.In(g.head, 16), virtiotest.Out(g.data, 4096), virtiotest.Out(g.stat, 1)}
	b.SetBytes(4096)
	for b.Loop() {
		g.q.Add(read...)
		g.q.Kick()
		g.q.Wait()
	}
}
