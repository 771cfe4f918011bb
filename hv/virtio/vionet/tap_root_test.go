package vionet_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/virtiotest"
	"vmd/internal/testenv"
	"vmd/net/tap"
)

// BenchmarkTap is the way of small frames between a guest's rings and the other
// end of a real tap: what it takes to be woken, mostly. The guest is this
// process, so there are no exits in it.
func BenchmarkTap(b *testing.B) {
	for _, c := range []struct {
		name string
		run  func(b *testing.B, g *guest, sock int)
	}{
		{"trip", func(b *testing.B, g *guest, sock int) {
			buf := make([]byte, 2048)
			g.tx.Add(virtiotest.In(g.buf, 12+60))
			g.tx.Kick()
			g.tx.Wait()
			if _, err := unix.Read(sock, buf); err != nil {
				b.Fatal(err)
			}
			if _, err := unix.Write(sock, buf[:60]); err != nil {
				b.Fatal(err)
			}
			head, _ := g.rx.Wait()
			g.rx.Add(virtiotest.Out(g.buf+4096+mem.GPA(int(head)*2048), 2048))
			g.rx.Kick()
		}},
		{"send", func(b *testing.B, g *guest, sock int) {
			g.tx.Add(virtiotest.In(g.buf, 12+60))
			g.tx.Kick()
			g.tx.Wait()
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			g, sock := bootTap(b)
			for b.Loop() {
				c.run(b, g, sock)
			}
		})
	}
}

// bootTap boots a guest on a tap in a fresh namespace, with a frame to send in
// its buffer and buffers to receive into, and a socket on the tap's other side.
func bootTap(b *testing.B) (*guest, int) {
	b.Helper()
	name, tp := newTap(b)
	if err := tp.SetFilter([][6]byte{mac}, false); err != nil { // none of the kernel's own
		b.Fatal(err)
	}
	g := &guest{t: b}
	g.dev = vionet.New(vionet.Config{MAC: mac, Counters: &g.cnt}, tp)
	h := virtiotest.NewHost(b, 8<<20)
	g.fn = h.Plug(pci.SlotNIC, g.dev, nil)
	g.Driver = virtiotest.NewDriver(h, pci.SlotNIC)
	g.buf = h.Alloc(bufSize)
	g.start(virtio.VIRTIO_RING_F_EVENT_IDX)
	copy(h.Bytes(g.buf+12, 60), marked(mac, mac, 60))
	for i := range 16 {
		g.rx.Add(virtiotest.Out(g.buf+4096+mem.GPA(i*2048), 2048))
	}
	g.rx.Kick()
	return g, otherEnd(b, name).sock
}

// newTap makes a tap in a fresh namespace.
func newTap(t testing.TB) (name string, _ *tap.Tap) {
	t.Helper()
	testenv.NetNS(t)
	name, files, err := tap.Create(tap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(files[0].Fd()))
	files[0].Close()
	if err != nil {
		t.Fatal(err)
	}
	tp, err := tap.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tp.Close() })
	return name, tp
}
