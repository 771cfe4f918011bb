package vionet_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/virtiopci"
)

// While pages are marked the frames of a pair that the kernel served come
// through this process, filtered by it, and everything is marked; afterwards
// the kernel has the pair back, and the filter.
func TestVhostTracked(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			g, h := bootVhost(t, vionet.Config{}, features|control, nil)
			g.post(64)
			g.talk(h)
			peer, other := [6]byte{2, 0, 0, 0, 0, 7}, [6]byte{2, 0, 0, 0, 0, 9}
			before := g.counters()
			for range 3 {
				g.Host.Mem.Track(true)
				if err := g.fn.Track(true); err != nil {
					t.Fatal(err)
				}
				g.talk(h)
				now := g.counters()
				if now.TxPackets != before.TxPackets+20 || now.RxPackets < before.RxPackets+20 {
					t.Errorf("counters %+v after %+v: the frames did not come through this process", now, before)
				}
				dirty := make([]uint64, g.Host.Mem.BitmapWords(0))
				if n, err := g.Host.Mem.TakeDirty(0, dirty); err != nil || n < 10 {
					t.Errorf("%d pages are marked, %v", n, err)
				}
				g.must(0, 0, 0) // while the kernel has no filter of ours
				h.send(marked(other, peer, 80))
				h.send(marked(mac, peer, 90))
				if got := g.next(); len(got) != 90 {
					t.Errorf("a frame for another of %d bytes came", len(got))
				}
				if err := g.fn.Track(false); err != nil {
					t.Fatal(err)
				}
				g.Host.Mem.Track(false)
				before = g.counters()
				g.talk(h)
				if now := g.counters(); now != before {
					t.Errorf("counters %+v after %+v: the kernel has not got the pair back", now, before)
				}
				h.send(marked(other, peer, 80))
				h.send(marked(mac, peer, 91))
				if got := g.next(); len(got) != 91 {
					t.Errorf("a frame for another of %d bytes came", len(got))
				}
				g.must(0, 0, 1)
				h.send(marked(other, peer, 81))
				if got := g.next(); len(got) != 81 {
					t.Errorf("promiscuous: a frame of %d bytes came", len(got))
				}
			}
			// Paused while it is tracked, and tracked while it is paused.
			g.fn.Pause()
			if err := g.fn.Track(true); err != nil {
				t.Fatal(err)
			}
			g.fn.Resume()
			g.talk(h)
			g.fn.Pause()
			if err := g.fn.Track(false); err != nil {
				t.Fatal(err)
			}
			h.send(marked(mac, peer, 92))
			if _, _, ok := g.rx.Next(); ok {
				t.Error("a paused interface receives")
			}
			g.fn.Resume()
			if got := g.next(); len(got) != 92 {
				t.Errorf("a frame of %d bytes came after a pause", len(got))
			}
			g.talk(h)
		})
	}
}

// A guest whose pair the kernel serves moves to where it does so too, and to
// where it does not.
func TestVhostMoves(t *testing.T) {
	for name, features := range featureSets {
		t.Run(name, func(t *testing.T) {
			g, h := bootVhost(t, vionet.Config{}, features|control, nil)
			g.post(64)
			g.talk(h)
			g.must(0, 0, 0)
			for _, vhost := range []bool{true, false, true} {
				c := vionet.Config{MAC: mac, Counters: &g.cnt}
				if vhost {
					fd, err := unix.Open("/dev/vhost-net", unix.O_RDWR|unix.O_CLOEXEC, 0)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { unix.Close(fd) })
					c.Vhost = []int{fd}
				}
				before := g.counters()
				g.dev = vionet.New(c, g.tap)
				g.fn = g.Move(g.fn, g.Host.Twin(), g.dev, virtiopci.Options{}, g.rx, g.tx, g.ctl)
				g.talk(h)
				if now := g.counters(); (now.TxPackets == before.TxPackets) != vhost {
					t.Errorf("vhost %v: counters %+v after %+v", vhost, now, before)
				}
				h.send(marked([6]byte{2, 0, 0, 0, 0, 9}, mac, 80))
				h.send(marked(mac, mac, 90))
				if got := g.next(); len(got) != 90 {
					t.Errorf("vhost %v: the filter is lost", vhost)
				}
			}
		})
	}
}
