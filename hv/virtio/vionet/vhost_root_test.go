package vionet_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/virtiotest"
	"vmd/internal/testenv"
)

// etherType of the tests' frames: local experimental (IEEE 802).
const etherType = 0x88b5

// host is the other end of a guest's tap.
type host struct {
	t    testing.TB
	sock int
	to   unix.SockaddrLinklayer
}

// bootVhost boots a guest whose frames the kernel moves, on a tap in a fresh
// namespace.
func bootVhost(t *testing.T, c vionet.Config, features uint64, warn func(error)) (*many, *host) {
	t.Helper()
	testenv.StockKernel(t)
	name, tp := newTap(t)
	fd, err := unix.Open("/dev/vhost-net", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	g := &many{guest: &guest{t: t}, wires: []*wire{nil}, tap: tp}
	c.MAC, c.Counters, c.Vhost = mac, &g.cnt, []int{fd}
	g.dev = vionet.New(c, tp)
	h := virtiotest.NewHost(t, 16<<20)
	g.fn = h.Plug(pci.SlotNIC, g.dev, warn)
	g.Driver = virtiotest.NewDriver(h, pci.SlotNIC)
	g.buf, g.at = h.Alloc(bufSize), h.Alloc(64<<10)
	g.start(features)
	return g, otherEnd(t, name)
}

func otherEnd(t testing.TB, name string) *host {
	t.Helper()
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	const proto = etherType<<8&0xff00 | etherType>>8
	h := &host{t: t}
	if h.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(h.sock) })
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(h.sock, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	h.to = unix.SockaddrLinklayer{Protocol: proto, Ifindex: i.Index}
	if err := unix.Bind(h.sock, &h.to); err != nil {
		t.Fatal(err)
	}
	limit := unix.Timeval{Sec: 20} // never reached unless something is broken
	if err := unix.SetsockoptTimeval(h.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) send(b []byte) {
	h.t.Helper()
	if err := unix.Sendto(h.sock, b, 0, &h.to); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) receive() []byte {
	h.t.Helper()
	b := make([]byte, 2000)
	n, _, err := unix.Recvfrom(h.sock, b, 0)
	if err != nil {
		h.t.Fatalf("no frame from the guest: %v", err)
	}
	return b[:n]
}

// marked is a frame of the test's.
func marked(dst, src [6]byte, n int) []byte {
	b := frame(n, src)
	copy(b, dst[:])
	b[12], b[13] = etherType>>8, etherType&0xff
	return b
}

// post gives the guest's driver n buffers to receive into.
func (g *many) post(n int) {
	for i := range n {
		g.rx.Add(virtiotest.Out(g.buf+mem.GPA(i*2048), 2048))
	}
	g.rx.Kick()
}

// next is the next of the test's frames that the guest receives. The kernel has
// frames of its own on a fresh tap.
func (g *many) next() []byte {
	g.t.Helper()
	for {
		head, n := g.rx.Wait()
		at := mem.GPA(binary.LittleEndian.Uint64(g.Host.Bytes(g.rx.Desc+16*mem.GPA(head), 8)))
		b := bytes.Clone(g.Host.Bytes(at, int(n)))
		g.rx.Add(virtiotest.Out(at, 2048))
		g.rx.Kick()
		if len(b) > 26 && b[24] == etherType>>8 && b[25] == etherType&0xff {
			return b[12:]
		}
	}
}

// transmit sends a frame of the guest's and waits for its buffer.
func (g *many) transmit(b []byte) {
	g.t.Helper()
	at := g.buf + bufSize - 4096
	clear(g.Host.Bytes(at, 12))
	copy(g.Host.Bytes(at+12, len(b)), b)
	g.tx.Add(virtiotest.In(at, 12), virtiotest.In(at+12, len(b)))
	g.tx.Kick()
	g.tx.Wait()
}

// talk has frames go both ways.
func (g *many) talk(h *host) {
	g.t.Helper()
	peer := [6]byte{2, 0, 0, 0, 0, 7}
	for i := range 20 {
		in, out := marked(mac, peer, 100+i), marked(peer, mac, 200+i)
		h.send(in)
		if got := g.next(); !bytes.Equal(got, in) {
			g.t.Fatalf("frame of %d bytes came as %d bytes, or changed", len(in), len(got))
		}
		g.transmit(out)
		if got := h.receive(); !bytes.Equal(got, out) {
			g.t.Fatalf("frame of %d bytes went as %d bytes, or changed", len(out), len(got))
		}
	}
}

func TestVhost(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			g, h := bootVhost(t, vionet.Config{}, features|control, nil)
			g.post(64)
			g.talk(h)
			if c := g.counters(); c.RxPackets+c.TxPackets != 0 {
				t.Errorf("counters %+v: the frames came through this process", c)
			}
			for range 3 {
				g.fn.Pause()
				h.send(marked(mac, mac, 99))
				g.fn.Resume()
				if got := g.next(); len(got) != 99 {
					t.Errorf("%d bytes after a pause", len(got))
				}
			}
			other := [6]byte{2, 0, 0, 0, 0, 9}
			for _, promisc := range []byte{0, 1, 0} { // the control queue is ours, the filter the tap's
				g.must(0, 0, promisc)
				h.send(marked(other, mac, 80))
				h.send(marked(mac, other, 90))
				if got := g.next(); len(got) != 90-10*int(promisc) {
					t.Errorf("promiscuous %d: %d bytes", promisc, len(got))
				}
				if promisc == 1 {
					g.next()
				}
			}
			g.start(features | control)
			g.post(64)
			h.send(marked(other, mac, 80))
			if got := g.next(); len(got) != 80 {
				t.Errorf("after a reset: %d bytes", len(got))
			}
			g.start(features | control)
			g.post(64)
			g.talk(h)
		})
	}
}

// What vhost may not do, or cannot do for a driver without MSI-X, is done here.
func TestVhostIsNotUsed(t *testing.T) {
	g, h := bootVhost(t, vionet.Config{LockMAC: true}, control, nil)
	g.post(64)
	g.talk(h)
	if c := g.counters(); c.TxPackets != 20 {
		t.Errorf("locked: counters %+v", c)
	}
	g.transmit(marked(mac, [6]byte{2, 0, 0, 0, 0, 8}, 60))
	if c := g.counters(); c.TxDrops != 1 {
		t.Errorf("locked: counters %+v", c)
	}
}

func TestVhostWithoutMSIX(t *testing.T) {
	g, h := bootVhost(t, vionet.Config{}, control, nil)
	g.post(64)
	g.talk(h)
	g.SetStatus(0)
	at := int(g.Config(0x34, 1))
	for g.Config(at, 1) != pci.CapMSIX {
		at = int(g.Config(at+1, 1))
	}
	g.SetConfig(at+2, 2, 0)
	g.INTx = true
	g.start(control)
	g.post(64)
	g.talk(h)
	if c := g.counters(); c.TxPackets != 20 {
		t.Errorf("counters %+v", c)
	}
}

func TestVhostLinkDown(t *testing.T) {
	g, h := bootVhost(t, vionet.Config{Down: true}, control, nil)
	g.post(64)
	h.send(marked(mac, mac, 70))
	if g.Read(g.Device+6, 2) != 0 {
		t.Error("the link is up")
	}
	if g.dev.SetLink(true); g.Read(g.Device+6, 2) != 1 {
		t.Error("the link is down")
	}
	g.WaitConfig()
	if got := g.next(); len(got) != 70 {
		t.Errorf("%d bytes", len(got))
	}
	g.talk(h)
}

// A ring that the kernel cannot follow costs the guest its device.
func TestVhostBrokenRing(t *testing.T) {
	warned := make(chan error, 1)
	g, _ := bootVhost(t, vionet.Config{}, control, func(err error) { warned <- err })
	g.tx.SetAvail(9999)
	g.tx.Ring()
	g.WaitConfig()
	<-warned
	if g.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
		t.Errorf("status %#x", g.Status())
	}
}
