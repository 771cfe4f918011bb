package vionet_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
	"vmd/internal/testenv"
)

func TestMain(m *testing.M) {
	if testenv.InLab() { // which is slow: there only what needs its kernel
		flag.Set("test.run", "Vhost")
	}
	goleak.VerifyTestMain(m)
}

var mac = [6]byte{0xfe, 0xe1, 0xbb, 1, 2, 3}

// wire is a Link whose far end is the test.
type wire struct {
	mu      sync.Mutex
	cond    sync.Cond
	in      [][]byte // frames on their way to the guest, with header
	out     chan []byte
	woken   bool
	reading bool // the device waits for a frame
	quiet   bool // count what is sent instead of keeping it
	sent    atomic.Uint64
	err     error // of the next read
	full    error // of every write
	offload uint32
	active  bool
	eat     bool // the next look for a frame lasts until it is woken
}

func newWire() *wire {
	w := &wire{out: make(chan []byte, 300)}
	w.cond.L = &w.mu
	return w
}

func (w *wire) Offloads() uint32 { return vionet.TUN_F_CSUM | vionet.TUN_F_TSO4 | vionet.TUN_F_TSO6 }

func (w *wire) SetOffload(bits uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offload = bits
	return nil
}

func (w *wire) ReadFrame(bufs [][]byte, wait bool) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for (wait || w.eat) && len(w.in) == 0 && !w.woken && w.err == nil {
		w.reading = true
		w.cond.Broadcast()
		w.cond.Wait()
	}
	w.reading, w.eat = false, false
	if w.err != nil {
		return 0, w.err
	}
	if w.woken || len(w.in) == 0 {
		w.woken = false
		return 0, nil
	}
	n, f := 0, w.in[0]
	w.in = append(w.in[:0], w.in[1:]...)
	for _, b := range bufs {
		k := copy(b, f[n:])
		n += k
	}
	return n, nil
}

func (w *wire) WriteFrame(bufs [][]byte) error {
	w.mu.Lock()
	full, quiet := w.full, w.quiet
	w.mu.Unlock()
	if full != nil {
		return full
	}
	if quiet {
		for _, b := range bufs {
			w.sent.Add(uint64(len(b)))
		}
		return nil
	}
	w.out <- bytes.Join(bufs, nil)
	return nil
}

func (w *wire) SetActive(on bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active = on
	return nil
}

func (w *wire) isActive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active
}

func (w *wire) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.woken = true
	w.cond.Broadcast()
}

func (w *wire) setQuiet() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = true
}

func (w *wire) fill(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = err
}

// send puts frames onto the wire, each behind an empty header.
func (w *wire) send(frames ...[]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range frames {
		w.in = append(w.in, append(make([]byte, vionet.HeaderLen), f...))
	}
	w.cond.Broadcast()
}

// idle returns when the device waits for the next frame.
func (w *wire) idle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.reading || len(w.in) > 0 {
		w.cond.Wait()
	}
}

func frame(n int, src [6]byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 3)
	}
	copy(b[6:], src[:])
	return b
}

type guest struct {
	*virtiotest.Driver
	t      testing.TB
	wire   *wire
	dev    *vionet.Device
	fn     *virtiopci.Function
	rx, tx *virtiotest.Queue
	buf    mem.GPA
	cnt    vionet.Counters
}

const bufSize = 1 << 20

func boot(t testing.TB, c vionet.Config, features uint64, warn func(error)) *guest {
	t.Helper()
	g := &guest{t: t, wire: newWire()}
	c.MAC, c.Counters = mac, &g.cnt
	g.dev = vionet.New(c, g.wire)
	h := virtiotest.NewHost(t, 8<<20)
	g.fn = h.Plug(pci.SlotNIC, g.dev, warn)
	g.Driver = virtiotest.NewDriver(h, pci.SlotNIC)
	g.buf = h.Alloc(bufSize)
	g.start(features)
	return g
}

func (g *guest) start(features uint64) {
	g.t.Helper()
	g.Init(features)
	g.rx, g.tx = g.Queue(0, 256), g.Queue(1, 256)
	g.Start()
}

func (g *guest) counters() vionet.Counters {
	c := &g.cnt
	return vionet.Counters{
		RxPackets: atomic.LoadUint64(&c.RxPackets), RxBytes: atomic.LoadUint64(&c.RxBytes), RxDrops: atomic.LoadUint64(&c.RxDrops),
		TxPackets: atomic.LoadUint64(&c.TxPackets), TxBytes: atomic.LoadUint64(&c.TxBytes), TxDrops: atomic.LoadUint64(&c.TxDrops),
	}
}

var featureSets = map[string]uint64{
	"plain":     0,
	"mergeable": vionet.VIRTIO_NET_F_MRG_RXBUF | virtio.VIRTIO_RING_F_EVENT_IDX,
	"tso": vionet.VIRTIO_NET_F_MRG_RXBUF | virtio.VIRTIO_RING_F_EVENT_IDX | virtio.VIRTIO_RING_F_INDIRECT_DESC | vionet.VIRTIO_NET_F_CSUM |
		vionet.VIRTIO_NET_F_GUEST_CSUM | vionet.VIRTIO_NET_F_GUEST_TSO4 | vionet.VIRTIO_NET_F_HOST_TSO4 | vionet.VIRTIO_NET_F_GUEST_TSO6,
}

func TestReceive(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			g := boot(t, vionet.Config{}, features, nil)
			for i := range 100 {
				g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*2048), 100), virtiotest.Out(g.buf+mem.GPA(i*2048+100), 1948))
			}
			g.rx.Kick()
			for i := range 70 {
				want := frame(60+i*20, mac)
				g.wire.send(want)
				head, n := g.rx.Wait()
				got := g.Host.Bytes(g.buf+mem.GPA(int(head)/2*2048), 2048)[:n]
				if !bytes.Equal(got[12:], want) {
					t.Fatalf("frame %d of %d bytes came as %d bytes, or changed", i, len(want), n-12)
				}
				if num := binary.LittleEndian.Uint16(got[10:]); num != 1 {
					t.Fatalf("num_buffers %d, want 1", num)
				}
			}
			if c := g.counters(); c.RxPackets != 70 || c.RxBytes != 70*60+20*69*70/2 || c.RxDrops != 0 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

func TestReceiveMerged(t *testing.T) {
	g := boot(t, vionet.Config{}, featureSets["tso"], nil)
	if g.wire.offload != g.wire.Offloads() {
		t.Errorf("offloads %#x, want %#x", g.wire.offload, g.wire.Offloads())
	}
	const piece = 1536
	for i := range 120 {
		g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*piece), piece))
	}
	g.rx.Kick()
	for _, size := range []int{65000, 60, 14 + 65535} {
		want := frame(size, mac)
		g.wire.send(want)
		var got []byte
		for k, num := 0, 1; k < num; k++ {
			head, n := g.rx.Wait()
			b := g.Host.Bytes(g.buf+mem.GPA(int(head)*piece), int(n))
			if k == 0 {
				num = int(binary.LittleEndian.Uint16(b[10:]))
				if want := (size + 12 + piece - 1) / piece; num != want {
					t.Fatalf("num_buffers %d, want %d", num, want)
				}
			}
			got = append(got, b...)
		}
		if !bytes.Equal(got[12:], want) {
			t.Fatalf("frame of %d bytes came as %d bytes, or changed", size, len(got)-12)
		}
	}
}

// TestReceiveBuffersThatComeLate reads a frame when the ring had no room for all
// of it, and finds the rest when the frame is there.
func TestReceiveBuffersThatComeLate(t *testing.T) {
	g := boot(t, vionet.Config{}, featureSets["tso"], nil)
	const piece = 2048
	for round := range 10 {
		base := round * 33
		g.rx.Add(virtiotest.Out(g.buf+mem.GPA(base%256*piece), piece))
		g.rx.Kick()
		g.wire.idle()
		for i := 1; i < 33; i++ {
			g.rx.Add(virtiotest.Out(g.buf+mem.GPA((base+i)%256*piece), piece))
		}
		want := frame(33*piece-12, mac)
		if round%2 == 1 {
			want = want[:31*piece] // and one is left for the next frame
		}
		g.wire.send(want)
		var got []byte
		for len(got) < len(want)+12 {
			head, n := g.rx.Wait()
			got = append(got, g.Host.Bytes(g.buf+mem.GPA(int(head)*piece), int(n))...)
		}
		if !bytes.Equal(got[12:], want) {
			t.Fatalf("round %d: frame of %d bytes came as %d bytes, or changed", round, len(want), len(got)-12)
		}
	}
}

func TestReceiveWithoutRoom(t *testing.T) {
	g := boot(t, vionet.Config{}, 0, nil)
	g.wire.send(frame(60, mac), frame(61, mac), frame(1000, mac), frame(62, mac))
	for i := range 3 {
		g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*200), 200))
	}
	g.rx.Kick()
	for _, want := range []uint32{72, 73, 74} { // the long one is dropped
		if _, n := g.rx.Wait(); n != want {
			t.Errorf("used length %d, want %d", n, want)
		}
	}
	// The ring is empty: frames wait on the link.
	g.wire.send(frame(63, mac))
	g.rx.Add(virtiotest.Out(g.buf, 200))
	g.rx.Kick()
	if _, n := g.rx.Wait(); n != 75 {
		t.Errorf("used length %d, want 75", n)
	}
	if c := g.counters(); c.RxPackets != 4 || c.RxDrops != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestSend(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			g := boot(t, vionet.Config{}, features, nil)
			want := frame(1514, mac)
			copy(g.Host.Bytes(g.buf+12, 1514), want)
			for _, cuts := range [][]int{{1526}, {12, 1514}, {5, 7, 1, 13, 1500}, {25, 1501}} {
				var parts []virtiotest.Part
				at := g.buf
				for _, n := range cuts {
					parts = append(parts, virtiotest.In(at, n))
					at += mem.GPA(n)
				}
				g.tx.Add(parts...)
				g.tx.Kick()
				g.tx.Wait()
				if got := <-g.wire.out; !bytes.Equal(got[12:], want) {
					t.Fatalf("cut %v: another frame came out", cuts)
				}
			}
			if c := g.counters(); c.TxPackets != 4 || c.TxBytes != 4*1514 || c.TxDrops != 0 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

func TestSendDrops(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  vionet.Config
		do   func(g *guest)
	}{
		{"header only", vionet.Config{}, func(g *guest) { g.tx.Add(virtiotest.In(g.buf, 12)) }},
		{"no Ethernet header", vionet.Config{}, func(g *guest) { g.tx.Add(virtiotest.In(g.buf, 25)) }},
		{"too long", vionet.Config{}, func(g *guest) { g.tx.Add(virtiotest.In(g.buf, 70000)) }},
		{"link down", vionet.Config{Down: true}, func(g *guest) { g.tx.Add(virtiotest.In(g.buf, 72)) }},
		{"link full", vionet.Config{}, func(g *guest) {
			g.wire.fill(errors.New("no buffers"))
			g.tx.Add(virtiotest.In(g.buf, 72))
		}},
		{"another's address", vionet.Config{LockMAC: true}, func(g *guest) {
			copy(g.Host.Bytes(g.buf+12, 60), frame(60, [6]byte{1, 2, 3, 4, 5, 6}))
			g.tx.Add(virtiotest.In(g.buf, 72))
		}},
		{"checksum not negotiated", vionet.Config{}, func(g *guest) {
			g.Host.Bytes(g.buf, 1)[0] = 1
			g.tx.Add(virtiotest.In(g.buf, 72))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := boot(t, c.cfg, 0, nil)
			c.do(g)
			g.tx.Kick()
			g.tx.Wait()
			if c := g.counters(); c.TxDrops != 1 || c.TxPackets != 0 || len(g.wire.out) != 0 {
				t.Errorf("counters %+v, %d frames out", c, len(g.wire.out))
			}
		})
	}
}

func TestLockedAddressMaySend(t *testing.T) {
	g := boot(t, vionet.Config{LockMAC: true}, 0, nil)
	copy(g.Host.Bytes(g.buf+12, 60), frame(60, mac))
	g.tx.Add(virtiotest.In(g.buf, 72))
	g.tx.Kick()
	g.tx.Wait()
	if len(g.wire.out) != 1 {
		t.Error("dropped")
	}
}

func TestConfigSpace(t *testing.T) {
	g := boot(t, vionet.Config{MTU: 9000}, vionet.VIRTIO_NET_F_STATUS, nil)
	if got := g.Read(g.Device, 4) | g.Read(g.Device+4, 2)<<32; got != 0x0302_01bb_e1fe {
		t.Errorf("MAC %#x", got)
	}
	if got := g.Read(g.Device+10, 2); got != 9000 {
		t.Errorf("MTU %d", got)
	}
	if g.Offered()&vionet.VIRTIO_NET_F_MTU == 0 {
		t.Error("MTU not offered")
	}
	gen := g.Read(g.Common+virtiotest.ConfigGeneration, 1)
	g.dev.SetLink(false)
	g.WaitConfig()
	if got := g.Read(g.Device+6, 2); got != 0 {
		t.Errorf("status %d with the cable pulled", got)
	}
	if g.Read(g.Common+virtiotest.ConfigGeneration, 1) == gen {
		t.Error("generation did not change")
	}
	g.dev.SetLink(true)
	g.WaitConfig()
	if got := g.Read(g.Device+6, 2); got != 1 {
		t.Errorf("status %d with the cable in", got)
	}
	g.dev.SetLink(true)
	if g.MSI(0).Pending() {
		t.Error("interrupt although nothing changed")
	}
}

func TestLinkDownDropsWhatArrives(t *testing.T) {
	g := boot(t, vionet.Config{Down: true}, 0, nil)
	g.rx.Add(virtiotest.Out(g.buf, 2048))
	g.rx.Kick()
	g.wire.send(frame(60, mac))
	g.wire.idle()
	g.dev.SetLink(true)
	g.wire.send(frame(61, mac))
	if _, n := g.rx.Wait(); n != 73 {
		t.Errorf("used length %d, want 73", n)
	}
	if c := g.counters(); c.RxDrops != 1 || c.RxPackets != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestResetWhileWaitingForFrames(t *testing.T) {
	g := boot(t, vionet.Config{}, featureSets["mergeable"], nil)
	for range 50 {
		g.rx.Add(virtiotest.Out(g.buf, 2048))
		g.rx.Ring()
		g.start(featureSets["mergeable"])
	}
	g.rx.Add(virtiotest.Out(g.buf, 2048))
	g.rx.Kick()
	g.wire.send(frame(60, mac))
	if _, n := g.rx.Wait(); n != 72 {
		t.Errorf("used length %d, want 72", n)
	}
}

func TestPauseGivesBuffersBack(t *testing.T) {
	g := boot(t, vionet.Config{}, featureSets["tso"], nil)
	for i := range 60 {
		g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*2048), 2048))
	}
	g.rx.Kick()
	for i := range 20 {
		g.wire.idle()
		g.fn.Pause()
		g.wire.send(frame(60+i, mac))
		if _, _, ok := g.rx.Next(); ok {
			t.Fatal("a paused device delivered")
		}
		g.fn.Resume()
		if head, n := g.rx.Wait(); n != uint32(72+i) || int(head) != i {
			t.Fatalf("buffer %d with %d bytes, want %d with %d", head, n, i, 72+i)
		}
	}
}

// A look for a frame that takes the wake does not make the queue wait for
// another: it is to halt.
func TestPauseBetweenTwoLooks(t *testing.T) {
	g := boot(t, vionet.Config{}, featureSets["mergeable"], nil)
	g.wire.mu.Lock()
	g.wire.eat = true
	g.wire.mu.Unlock()
	g.rx.Add(virtiotest.Out(g.buf, 2048))
	g.rx.Kick()
	g.wire.idle()
	g.fn.Pause()
	g.fn.Resume()
	g.wire.send(frame(60, mac))
	if _, n := g.rx.Wait(); n != 72 {
		t.Errorf("used length %d, want 72", n)
	}
}

func TestReceiveBufferTooSmall(t *testing.T) {
	warned := make(chan error, 1)
	g := boot(t, vionet.Config{}, 0, func(err error) { warned <- err })
	g.rx.Add(virtiotest.Out(g.buf, 11))
	g.rx.Kick()
	g.WaitConfig()
	<-warned
	if g.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
		t.Errorf("status %#x", g.Status())
	}
}

func TestLinkGone(t *testing.T) {
	warned := make(chan error, 1)
	g := boot(t, vionet.Config{}, 0, func(err error) { warned <- err })
	gone := errors.New("tap was removed")
	g.wire.mu.Lock()
	g.wire.err = gone
	g.wire.cond.Broadcast()
	g.wire.mu.Unlock()
	g.rx.Add(virtiotest.Out(g.buf, 2048))
	g.rx.Ring()
	if err := <-warned; !errors.Is(err, gone) {
		t.Errorf("warned %v", err)
	}
}

func TestNoAllocationPerFrame(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			g := boot(t, vionet.Config{}, features, nil)
			g.wire.setQuiet()
			framed := append(make([]byte, vionet.HeaderLen), frame(1000, mac)...)
			parts := []virtiotest.Part{virtiotest.Out(g.buf, 12), virtiotest.Out(g.buf+4096, 2036)}
			for range 80 {
				g.rx.Add(parts...)
			}
			g.rx.Kick()
			out := []virtiotest.Part{virtiotest.In(g.buf+8192, 12), virtiotest.In(g.buf+12288, 1000)}
			run := func() {
				g.wire.mu.Lock()
				g.wire.in = append(g.wire.in, framed)
				g.wire.cond.Broadcast()
				g.wire.mu.Unlock()
				g.rx.Wait()
				g.rx.Add(parts...)
				g.rx.Kick()
				g.tx.Add(out...)
				g.tx.Kick()
				g.tx.Wait()
			}
			for range 300 { // every chain that the receiver holds has been used
				run()
			}
			if n := testing.AllocsPerRun(200, run); n != 0 {
				t.Errorf("%v allocations per frame in and out", n)
			}
		})
	}
}

func BenchmarkSend(b *testing.B) {
	g := boot(b, vionet.Config{}, virtio.VIRTIO_RING_F_EVENT_IDX, nil)
	g.wire.setQuiet()
	out := []virtiotest.Part{virtiotest.In(g.buf, 12), virtiotest.In(g.buf+4096, 1514)}
	b.SetBytes(1514)
	for b.Loop() {
		g.tx.Add(out...)
		g.tx.Kick()
		g.tx.Wait()
	}
}
