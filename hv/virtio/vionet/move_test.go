package vionet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

// move takes the guest to another machine, whose interface is on the same wire.
func (g *guest) move(c vionet.Config, o virtiopci.Options, more ...*virtiotest.Queue) {
	g.t.Helper()
	c.MAC, c.Counters = mac, &g.cnt
	g.dev = vionet.New(c, g.wire)
	g.fn = g.Move(g.fn, g.Host.Twin(), g.dev, o, append(more, g.rx, g.tx)...)
}

// Frames cross a guest's moves in order, each once, both ways: also those for
// which the receiver holds several chains already.
func TestMovesWithFramesInFlight(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(len(name))))
			g := boot(t, vionet.Config{}, features, nil)
			const piece = 2048
			for i := range 200 {
				g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*piece), piece))
			}
			g.rx.Kick()
			var sent, came, out, gone uint32
			number := func(i uint32) []byte {
				b := frame(60+int(i*37%1400), mac)
				binary.BigEndian.PutUint32(b[14:], i)
				return b
			}
			receive := func(head uint16, n uint32) {
				t.Helper()
				at := g.buf + mem.GPA(int(head)%200*piece)
				if got := g.Host.Bytes(at+12, int(n)-12); !bytes.Equal(got, number(came)) {
					t.Fatalf("frame %d: %d bytes came, another or changed", came, len(got))
				}
				came++
			}
			for range 600 {
				switch k := r.IntN(20); {
				case k < 8 && sent-came < 100 && sent < 190:
					g.wire.send(number(sent))
					sent++
				case k < 12:
					if head, n, ok := g.rx.Next(); ok {
						receive(head, n)
					}
				case k < 19 && out-gone < 50:
					at := g.buf + mem.GPA(900<<10+int(out%50)*piece)
					clear(g.Host.Bytes(at, 12))
					b := number(out)
					copy(g.Host.Bytes(at+12, len(b)), b)
					g.tx.Add(virtiotest.In(at, 12+len(b)))
					if out++; r.IntN(2) == 0 {
						g.tx.Kick()
					}
				case k < 19:
					g.tx.Kick()
					g.tx.Wait()
					if got := <-g.wire.out; !bytes.Equal(got[12:], number(gone)) {
						t.Fatalf("frame %d went out as another", gone)
					}
					gone++
				default:
					g.move(vionet.Config{}, virtiopci.Options{})
				}
			}
			for came < sent {
				receive(g.rx.Wait())
			}
			g.tx.Kick()
			for ; gone < out; gone++ {
				g.tx.Wait()
				if got := <-g.wire.out; !bytes.Equal(got[12:], number(gone)) {
					t.Fatalf("frame %d went out as another", gone)
				}
			}
		})
	}
}

// moveMany takes the guest to another machine with as many fresh links.
func (g *many) moveMany(c vionet.Config) {
	g.t.Helper()
	var links []vionet.Link
	for i := range g.wires {
		g.wires[i] = newWire()
		links = append(links, g.wires[i])
	}
	c.MAC, c.Counters = mac, &g.cnt
	g.wire, g.dev = g.wires[0], vionet.New(c, links...)
	qs := []*virtiotest.Queue{g.ctl}
	for _, p := range g.pairs {
		qs = append(qs, p[0], p[1])
	}
	g.fn = g.Move(g.fn, g.Host.Twin(), g.dev, virtiopci.Options{}, qs...)
}

// What the driver has said by the control queue holds on the other side, and a
// reset forgets it there.
func TestMoveKeepsWhatTheDriverSaid(t *testing.T) {
	own, other, group := [6]byte{2, 1, 1, 1, 1, 1}, [6]byte{2, 0, 0, 0, 0, 9}, [6]byte{0x33, 0x33, 0, 0, 0, 1}
	features := featureSets["tso"] | control | vionet.VIRTIO_NET_F_MQ | vionet.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS
	g := bootMany(t, 3, vionet.Config{}, features, nil)
	g.must(0, 0, 0)                            // not promiscuous
	g.must(append([]byte{1, 1}, own[:]...)...) // an address of its own
	g.must(append(append([]byte{1, 0, 1, 0, 0, 0}, other[:]...), append([]byte{1, 0, 0, 0}, group[:]...)...)...)
	g.must(4, 0, 2, 0)                                                      // two pairs of three
	g.must(5, 0, byte(vionet.VIRTIO_NET_F_GUEST_CSUM), 0, 0, 0, 0, 0, 0, 0) // no TSO
	if !g.dev.Announce() {
		t.Fatal("the driver was not asked to announce itself")
	}
	for range 2 {
		g.moveMany(vionet.Config{})
		if got := g.wires[0].offload; got != vionet.TUN_F_CSUM {
			t.Errorf("offloads %#x, want %#x", got, vionet.TUN_F_CSUM)
		}
		if !g.wires[1].isActive() || g.wires[2].isActive() {
			t.Error("frames do not arrive on the first two links alone")
		}
		if got := g.Read(g.Device+6, 2); got != 3 {
			t.Errorf("status %d, want an announcement to be wanted", got)
		}
		if got := g.Read(g.Device, 1); got != 2 {
			t.Error("the driver's address is lost")
		}
		g.rx.Add(virtiotest.Out(g.buf, 2048))
		g.rx.Add(virtiotest.Out(g.buf+2048, 2048))
		g.rx.Add(virtiotest.Out(g.buf+4096, 2048))
		g.rx.Kick()
		g.wire.send(to(mac, 70), to(own, 71), to(other, 72), to([6]byte{2}, 73), to(group, 74))
		for _, want := range []uint32{71, 72, 74} {
			if _, n := g.rx.Wait(); n != 12+want {
				t.Errorf("frame of %d bytes, want %d", n-12, want)
			}
		}
	}
	g.start(features)
	if got := g.Read(g.Device+6, 2); got != 1 || g.Read(g.Device, 1) != uint64(mac[0]) || g.wires[1].isActive() {
		t.Errorf("after a reset: status %d, address %#x", got, g.Read(g.Device, 6))
	}
}

// A cable that is pulled here and was not there is news to the driver.
func TestMoveTellsOfTheLink(t *testing.T) {
	for _, there := range []bool{false, true} {
		g := boot(t, vionet.Config{Down: there}, vionet.VIRTIO_NET_F_STATUS, nil)
		gen := g.Read(g.Common+virtiotest.ConfigGeneration, 1)
		b, h := g.Host.Save(g.fn), g.Host.Twin()
		fn, err := h.Restore(pci.SlotNIC, vionet.New(vionet.Config{MAC: mac, Down: !there}, newWire()), virtiopci.Options{}, b)
		if err != nil {
			t.Fatal(err)
		}
		d := virtiotest.NewDriver(h, pci.SlotNIC)
		fn.Resume()
		d.WaitConfig()
		if got := d.Read(d.Device+6, 2) != 0; got != there || d.Read(d.Common+virtiotest.ConfigGeneration, 1) == gen {
			t.Errorf("down there %v: link %v here, generation %d there", there, got, gen)
		}
	}
}

func TestRestoreAnotherInterface(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		mac        [6]byte
		cfg        vionet.Config
		links      int
	}{
		{"address", "address", [6]byte{2}, vionet.Config{}, 1},
		{"MTU", "MTU", mac, vionet.Config{MTU: 9000}, 1},
		{"pairs", "another device", mac, vionet.Config{}, 2},
		{"locked", "locked", mac, vionet.Config{LockMAC: true}, 1},
		{"the same", "", mac, vionet.Config{}, 1},
	} {
		g := bootMany(t, 1, vionet.Config{}, control, nil)
		g.must(1, 1, 2, 3, 4, 5, 6, 7)
		b := g.Host.Save(g.fn)
		tc.cfg.MAC = tc.mac
		var links []vionet.Link
		for range tc.links {
			links = append(links, newWire())
		}
		_, err := g.Host.Twin().Restore(pci.SlotNIC, vionet.New(tc.cfg, links...), virtiopci.Options{}, b)
		switch {
		case tc.want == "" && err != nil, tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// bootLegacy boots a driver of virtio 0.9 without mergeable buffers, whose
// header has 10 bytes, or with them.
func bootLegacy(t testing.TB, c vionet.Config, features uint64) *guest {
	t.Helper()
	g := &guest{t: t, wire: newWire()}
	c.MAC, c.Counters = mac, &g.cnt
	g.dev = vionet.New(c, g.wire)
	h := virtiotest.NewHost(t, 8<<20)
	g.fn = h.PlugWith(pci.SlotNIC, g.dev, virtiopci.Options{Interface: virtiopci.Transitional})
	g.Driver = virtiotest.NewLegacy(h, pci.SlotNIC)
	g.buf = h.Alloc(bufSize)
	g.start(features)
	return g
}

// split cuts a buffer of size bytes into descriptors.
func split(at mem.GPA, size int, cuts []int, part func(mem.GPA, int) virtiotest.Part) []virtiotest.Part {
	var parts []virtiotest.Part
	for _, n := range append(cuts, size) {
		n = min(n, size)
		parts = append(parts, part(at, n))
		at, size = at+mem.GPA(n), size-n
	}
	return parts
}

// TestShortHeader has frames go both ways with a driver whose header ends before
// num_buffers, however it cuts its buffers, and through a move.
func TestShortHeader(t *testing.T) {
	const header, piece = 10, 2048
	for name, c := range map[string]vionet.Config{"open": {}, "locked": {LockMAC: true}} {
		t.Run(name, func(t *testing.T) {
			g := bootLegacy(t, c, vionet.VIRTIO_NET_F_CSUM|vionet.VIRTIO_NET_F_GUEST_CSUM)
			for i, cuts := range [][]int{{}, {10}, {1}, {9, 1}, {11}, {12}, {4, 4, 4, 4}, {23}, {10, 14}} {
				at := g.buf + mem.GPA(i*piece)
				want := to(mac, 60+i)
				for k := range 2 {
					g.rx.Add(split(at+mem.GPA(k*1024), 1024, cuts, virtiotest.Out)...)
				}
				g.rx.Kick()
				g.wire.send(to(mac, 3000), want, want) // the first is too long
				for k := range 2 {
					if i%3 == 2 {
						g.move(c, virtiopci.Options{Interface: virtiopci.Transitional})
					}
					if _, n := g.rx.Wait(); n != uint32(header+len(want)) {
						t.Fatalf("cut %v: used length %d, want %d", cuts, n, header+len(want))
					}
					if got := g.Host.Bytes(at+mem.GPA(k*1024)+header, len(want)); !bytes.Equal(got, want) {
						t.Fatalf("cut %v: frame came as % x", cuts, got[:20])
					}
				}
				out := frame(64+i, mac)
				clear(g.Host.Bytes(at, header))
				copy(g.Host.Bytes(at+header, len(out)), out)
				g.tx.Add(split(at, header+len(out), cuts, virtiotest.In)...)
				g.tx.Kick()
				g.tx.Wait()
				if got := <-g.wire.out; !bytes.Equal(got[12:], out) || got[10]|got[11] != 0 {
					t.Fatalf("cut %v: frame went as % x", cuts, got[:30])
				}
			}
			if c := g.counters(); c.RxPackets != 18 || c.RxDrops != 9 || c.TxPackets != 9 || c.TxDrops != 0 {
				t.Errorf("counters %+v", c)
			}
			for _, n := range []int{0, 9, 10, 23} { // without a whole Ethernet header
				g.tx.Add(virtiotest.In(g.buf, n))
				g.tx.Kick()
				g.tx.Wait()
			}
			if c := g.counters(); c.TxDrops != 4 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

// A legacy driver that merges buffers has the long header.
func TestLegacyMerges(t *testing.T) {
	g := bootLegacy(t, vionet.Config{}, vionet.VIRTIO_NET_F_MRG_RXBUF)
	g.rx.Add(virtiotest.Out(g.buf, 2048))
	g.rx.Kick()
	g.wire.send(to(mac, 60))
	if _, n := g.rx.Wait(); n != 72 || binary.LittleEndian.Uint16(g.Host.Bytes(g.buf+10, 2)) != 1 {
		t.Errorf("used length %d, header % x", n, g.Host.Bytes(g.buf, 12))
	}
}

// A header of the driver's may be cut into more pieces than a read has: that is
// the driver's fault, and of no consequence.
func TestShortHeaderInPieces(t *testing.T) {
	failed := make(chan error, 1)
	g := &guest{t: t, wire: newWire()}
	g.dev = vionet.New(vionet.Config{MAC: mac}, g.wire)
	h := virtiotest.NewHost(t, 8<<20)
	h.PlugWith(pci.SlotNIC, g.dev, virtiopci.Options{Interface: virtiopci.Transitional, Warn: func(err error) { failed <- err }})
	g.Driver = virtiotest.NewLegacy(h, pci.SlotNIC)
	g.buf = h.Alloc(bufSize)
	g.start(0)
	var parts []virtiotest.Part
	for i := range 255 {
		parts = append(parts, virtiotest.Out(g.buf+mem.GPA(i), 1))
	}
	g.rx.Add(parts...)
	g.rx.Kick()
	if err := <-failed; !strings.Contains(err.Error(), "too many pieces") {
		t.Error(err)
	}
	g.start(0)
	g.rx.Add(parts[:250]...)
	g.rx.Kick()
	g.wire.send(to(mac, 60))
	if _, n := g.rx.Wait(); n != 70 || !bytes.Equal(h.Bytes(g.buf+10, 60), to(mac, 60)) {
		t.Errorf("used length %d", n)
	}
}

// The bytes of a short header cost a frame no allocation either.
func TestNoAllocationPerFrameOfShortHeader(t *testing.T) {
	g := bootLegacy(t, vionet.Config{}, 0)
	g.wire.setQuiet()
	framed := append(make([]byte, vionet.HeaderLen), frame(1000, mac)...)
	in := []virtiotest.Part{virtiotest.Out(g.buf, 10), virtiotest.Out(g.buf+4096, 2036)}
	out := []virtiotest.Part{virtiotest.In(g.buf+8192, 10), virtiotest.In(g.buf+12288, 1000)}
	run := func() {
		g.rx.Add(in...)
		g.rx.Kick()
		g.wire.mu.Lock()
		g.wire.in = append(g.wire.in, framed)
		g.wire.cond.Broadcast()
		g.wire.mu.Unlock()
		g.rx.Wait()
		g.tx.Add(out...)
		g.tx.Kick()
		g.tx.Wait()
	}
	for range 100 {
		run()
	}
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations per frame in and out", n)
	}
}

var _ virtio.Stateful = (*vionet.Device)(nil)

// Every page that an interface writes is marked, also where a frame was read
// into buffers and then thrown away.
func TestMarksWhatItWrites(t *testing.T) {
	for name, features := range map[string]uint64{"plain": 0, "merged": vionet.VIRTIO_NET_F_MRG_RXBUF | vionet.VIRTIO_NET_F_GUEST_CSUM | vionet.VIRTIO_NET_F_GUEST_TSO4} {
		t.Run(name, func(t *testing.T) {
			g := bootMany(t, 1, vionet.Config{}, control|features, nil)
			g.must(0, 0, 0) // not promiscuous
			g.start(control | features)
			g.must(0, 0, 0)
			n := g.Host.Marks(g.fn, func() {
				for i := range 40 {
					g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*4096), 2048))
				}
			}, func() {
				g.rx.Ring()
				g.wire.send(to([6]byte{2, 9}, 1400), to(mac, 1000), to(mac, 1001))
				g.rx.Wait()
				g.rx.Wait()
				g.wire.send(to([6]byte{2, 9}, 2000)) // for nobody here, and none comes after it
				g.wire.idle()
			})
			if n < 4 || n > 45 {
				t.Errorf("%d pages are marked", n)
			}
		})
	}
}
