package vionet_test

import (
	"bytes"
	"testing"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/virtiotest"
	"vmd/net/tap"
)

const control = vionet.VIRTIO_NET_F_CTRL_VQ | vionet.VIRTIO_NET_F_CTRL_RX | vionet.VIRTIO_NET_F_CTRL_MAC_ADDR |
	vionet.VIRTIO_NET_F_GUEST_ANNOUNCE | vionet.VIRTIO_NET_F_STATUS

// many is a guest whose interface has several pairs of queues.
type many struct {
	*guest
	wires []*wire
	pairs [][2]*virtiotest.Queue
	ctl   *virtiotest.Queue
	at    mem.GPA
	tap   *tap.Tap // instead of wires
}

// bootMany boots a guest with n links. The rings are those of a driver that
// knows of all pairs, or of the first only without VIRTIO_NET_F_MQ.
func bootMany(t testing.TB, n int, c vionet.Config, features uint64, warn func(error)) *many {
	t.Helper()
	g := &many{guest: &guest{t: t}}
	var links []vionet.Link
	for range n {
		g.wires = append(g.wires, newWire())
		links = append(links, g.wires[len(g.wires)-1])
	}
	c.MAC, c.Counters = mac, &g.cnt
	g.wire, g.dev = g.wires[0], vionet.New(c, links...)
	h := virtiotest.NewHost(t, 16<<20)
	g.fn = h.Plug(pci.SlotNIC, g.dev, warn)
	g.Driver = virtiotest.NewDriver(h, pci.SlotNIC)
	g.buf, g.at = h.Alloc(bufSize), h.Alloc(64<<10)
	g.start(features)
	return g
}

func (g *many) start(features uint64) {
	g.t.Helper()
	g.Init(features)
	pairs := 1
	if features&vionet.VIRTIO_NET_F_MQ != 0 {
		pairs = len(g.wires)
	}
	g.pairs = nil
	for i := range pairs {
		g.pairs = append(g.pairs, [2]*virtiotest.Queue{g.Queue(2*i, 256), g.Queue(2*i+1, 256)})
	}
	g.rx, g.tx, g.ctl = g.pairs[0][0], g.pairs[0][1], g.Queue(2*pairs, 64)
	g.Start()
}

// command sends a command and returns the answer.
func (g *many) command(b ...byte) byte {
	g.t.Helper()
	copy(g.Host.Bytes(g.at, len(b)), b)
	ack := g.at + 60<<10
	g.Host.Bytes(ack, 1)[0] = 0xee
	g.ctl.Add(virtiotest.In(g.at, 2), virtiotest.In(g.at+2, len(b)-2), virtiotest.Out(ack, 1))
	g.ctl.Kick()
	if _, n := g.ctl.Wait(); n != 1 {
		g.t.Errorf("command % x: used length %d, want 1", b, n)
	}
	return g.Host.Bytes(ack, 1)[0]
}

func (g *many) must(b ...byte) {
	g.t.Helper()
	if got := g.command(b...); got != vionet.VIRTIO_NET_OK {
		g.t.Fatalf("command % x: answer %d", b, got)
	}
}

func to(dst [6]byte, n int) []byte {
	b := frame(n, mac)
	copy(b, dst[:])
	return b
}

func TestReceiveFilter(t *testing.T) {
	other, group := [6]byte{2, 0, 0, 0, 0, 9}, [6]byte{0x33, 0x33, 0, 0, 0, 1}
	g := bootMany(t, 1, vionet.Config{}, control, nil)
	for i := range 60 {
		g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*2048), 13), virtiotest.Out(g.buf+mem.GPA(i*2048+13), 2000))
	}
	g.rx.Kick()
	size := 60
	// passes sends frames for each of dst and one that passes always, and
	// expects those for want.
	passes := func(what string, dst [][6]byte, want ...bool) {
		t.Helper()
		first := size
		for _, d := range dst {
			g.wire.send(to(d, size))
			size++
		}
		g.wire.send(to(mac, size))
		size++
		for i, w := range append(want, true) {
			if !w {
				continue
			}
			if _, n := g.rx.Wait(); int(n) != 12+first+i {
				t.Fatalf("%s: frame of %d bytes, want %d", what, n, 12+first+i)
			}
		}
	}
	all := [][6]byte{other, group, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	passes("at first", all, true, true, true)
	g.must(0, 0, 0)
	passes("plain", all, false, false, true)
	g.must(0, 1, 1)
	passes("all multicast", all, false, true, true)
	g.must(0, 1, 0)
	g.must(append(append([]byte{1, 0, 1, 0, 0, 0}, other[:]...), append([]byte{1, 0, 0, 0}, group[:]...)...)...)
	passes("listed", all, true, true, true)
	g.must(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	passes("nothing listed", all, false, false, true)
	if c := g.counters(); c.RxDrops != 0 {
		t.Errorf("%d frames lost", c.RxDrops)
	}
	g.start(control)
	g.rx.Add(virtiotest.Out(g.buf, 2048))
	g.rx.Kick()
	g.wire.send(to(other, 77))
	if _, n := g.rx.Wait(); n != 12+77 {
		t.Errorf("after a reset: %d bytes", n)
	}
}

func TestAddressOfTheGuests(t *testing.T) {
	next := [6]byte{2, 9, 8, 7, 6, 5}
	g := bootMany(t, 1, vionet.Config{}, control, nil)
	g.must(append([]byte{1, 1}, next[:]...)...)
	g.must(0, 0, 0)
	if got := g.Read(g.Device, 4) | g.Read(g.Device+4, 2)<<32; got != 0x0506_0708_0902 {
		t.Errorf("address %#x", got)
	}
	g.rx.Add(virtiotest.Out(g.buf, 2048))
	g.rx.Kick()
	g.wire.send(to(mac, 60), to(next, 61))
	if _, n := g.rx.Wait(); n != 73 {
		t.Errorf("%d bytes", n)
	}
	g.start(control)
	if got := g.Read(g.Device, 4); got != 0x01bb_e1fe {
		t.Errorf("address %#x after a reset", got)
	}
}

// A frame for somebody else does not come near a locked guest's memory, and the
// guest stays who it is.
func TestLockedGuestSeesNothingOfOthers(t *testing.T) {
	for _, extra := range []uint64{0, vionet.VIRTIO_NET_F_MRG_RXBUF} {
		g := bootMany(t, 1, vionet.Config{LockMAC: true}, control|extra, nil)
		if got := g.command(1, 1, 2, 9, 8, 7, 6, 5); got != vionet.VIRTIO_NET_ERR {
			t.Errorf("another address: answer %d", got)
		}
		g.must(0, 0, 1)
		for i := range 40 {
			g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*2048), 2048))
		}
		g.rx.Kick()
		g.wire.send(to([6]byte{2, 0, 0, 0, 0, 9}, 1000))
		g.wire.idle()
		if !bytes.Equal(g.Host.Bytes(g.buf, 40*2048), make([]byte, 40*2048)) {
			t.Error("a frame for another address is in the guest's memory")
		}
		for i := range 30 {
			want := to(mac, 100+i)
			g.wire.send(want)
			head, n := g.rx.Wait()
			if got := g.Host.Bytes(g.buf+mem.GPA(int(head)*2048), int(n)); !bytes.Equal(got[12:], want) {
				t.Fatalf("frame of %d bytes came as %d bytes, or changed", len(want), n-12)
			}
		}
	}
}

func TestAnnounce(t *testing.T) {
	g := bootMany(t, 1, vionet.Config{}, control, nil)
	g.dev.Announce()
	g.WaitConfig()
	if got := g.Read(g.Device+6, 2); got != vionet.VIRTIO_NET_S_LINK_UP|vionet.VIRTIO_NET_S_ANNOUNCE {
		t.Errorf("status %d", got)
	}
	g.must(3, 0)
	if got := g.Read(g.Device+6, 2); got != vionet.VIRTIO_NET_S_LINK_UP {
		t.Errorf("status %d once announced", got)
	}
	g.start(control &^ vionet.VIRTIO_NET_F_GUEST_ANNOUNCE)
	g.dev.Announce()
	if got := g.Read(g.Device+6, 2); got != vionet.VIRTIO_NET_S_LINK_UP || g.MSI(0).Pending() {
		t.Errorf("status %d of a driver that knows nothing of it", got)
	}
}

func TestOffloadsTurnedOff(t *testing.T) {
	f := control | featureSets["tso"] | vionet.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS
	g := bootMany(t, 1, vionet.Config{}, f, nil)
	for _, c := range []struct {
		bits byte
		want uint32
	}{{2, vionet.TUN_F_CSUM}, {0, 0}, {0x82, vionet.TUN_F_CSUM | vionet.TUN_F_TSO4}} {
		g.must(5, 0, c.bits, 0, 0, 0, 0, 0, 0, 0)
		g.wire.mu.Lock()
		got := g.wire.offload
		g.wire.mu.Unlock()
		if got != c.want {
			t.Errorf("features %#x: offloads %#x, want %#x", c.bits, got, c.want)
		}
	}
}

func TestPairs(t *testing.T) {
	f := control | vionet.VIRTIO_NET_F_MQ | vionet.VIRTIO_NET_F_MRG_RXBUF
	g := bootMany(t, 3, vionet.Config{}, f, nil)
	if got := g.Read(g.Device+8, 2); got != 3 {
		t.Errorf("at most %d pairs", got)
	}
	active := func() (n int) {
		for _, w := range g.wires[1:] {
			if w.isActive() {
				n++
			}
		}
		return n + 1
	}
	for _, n := range []byte{1, 3, 2, 3} {
		g.must(4, 0, n, 0)
		if got := active(); got != int(n) {
			t.Errorf("%d links are active, want %d", got, n)
		}
	}
	if got := g.command(4, 0, 4, 0); got != vionet.VIRTIO_NET_ERR {
		t.Errorf("4 pairs: answer %d", got)
	}
	for i, p := range g.pairs {
		at := g.buf + mem.GPA(i*8192)
		p[0].Add(virtiotest.Out(at, 2048))
		p[0].Kick()
		g.wires[i].send(to(mac, 60+i))
		if _, n := p[0].Wait(); int(n) != 72+i {
			t.Errorf("pair %d: received %d bytes", i, n)
		}
		copy(g.Host.Bytes(at+4096, 100), make([]byte, 100))
		p[1].Add(virtiotest.In(at+4096, 80+i))
		p[1].Kick()
		p[1].Wait()
		if got := <-g.wires[i].out; len(got) != 80+i {
			t.Errorf("pair %d: sent %d bytes", i, len(got))
		}
	}
	if c := g.counters(); c.RxPackets != 3 || c.TxPackets != 3 {
		t.Errorf("counters %+v", c)
	}
	g.start(control) // without MQ the control queue is number 2
	if got := active(); got != 1 {
		t.Errorf("%d links are active after a reset", got)
	}
	g.must(0, 0, 0)
}

func TestOddCommands(t *testing.T) {
	g := bootMany(t, 1, vionet.Config{}, control, nil)
	for _, b := range [][]byte{{9, 9, 9}, {0, 0, 7}, append([]byte{1, 0}, make([]byte, 20<<10)...)} {
		if got := g.command(b...); got != vionet.VIRTIO_NET_ERR {
			t.Errorf("command of %d bytes % x: answer %d", len(b), b[:2], got)
		}
	}
	g.must(0, 0, 1)
}

func TestCommandWithoutRoomForAnAnswer(t *testing.T) {
	warned := make(chan error, 1)
	g := bootMany(t, 1, vionet.Config{}, control, func(err error) { warned <- err })
	g.ctl.Add(virtiotest.In(g.at, 3))
	g.ctl.Kick()
	g.WaitConfig()
	<-warned
	if g.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
		t.Errorf("status %#x", g.Status())
	}
}
