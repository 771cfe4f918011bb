package vioscsi_test

import (
	"bytes"
	"testing"

	"vmd/hv/disk"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio/vioscsi"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

// A drive moves with its tray out, the event of that not told yet, and the tray
// locked; and with a command on its way.
func TestMove(t *testing.T) {
	img, content := medium(t)
	h := virtiotest.NewHost(t, 1<<20)
	fn := h.Plug(pci.SlotCD, vioscsi.New(img), nil)
	g := &guest{t: t, Driver: virtiotest.NewDriver(h, pci.SlotCD)}
	g.Init(0)
	g.ctl, g.q = g.Queue(0, 16), g.Queue(2, 64)
	g.Start()
	g.head, g.resp, g.data = h.Alloc(64), h.Alloc(128), h.Alloc(dataSize)
	move := func() {
		t.Helper()
		fn = g.Move(fn, g.Host.Twin(), vioscsi.New(img), virtiopci.Options{}, g.ctl, g.q)
	}
	status := func(want ...byte) {
		t.Helper()
		got := g.cmd(drive, 8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8).data
		if len(got) != 8 || got[4] != want[0] || got[5] != want[1] {
			t.Errorf("event status % x, want % x", got, want)
		}
	}
	g.cmd(drive, 0, 0x1b, 0, 0, 0, 2, 0) // eject
	move()
	status(3, 0)
	move()
	status(0, 0)
	g.cmd(drive, 0, 0x1b, 0, 0, 0, 3, 0) // take it back
	g.cmd(drive, 0, 0x1e, 0, 0, 0, 1, 0) // lock it
	move()
	status(2, 2)
	if a := g.cmd(drive, 0, 0x1b, 0, 0, 0, 2, 0); a.status != 2 {
		t.Error("a locked tray came out after a move")
	}
	read := g.cmd(drive, 3*2048, 0x28, 0, 0, 0, 0, 7, 0, 0, 3, 0)
	if !bytes.Equal(read.data, content[7*2048:10*2048]) {
		t.Error("another block was read after a move")
	}
}

func TestMarksWhatItWrites(t *testing.T) {
	img, _ := medium(t)
	h := virtiotest.NewHost(t, 1<<20)
	fn := h.Plug(pci.SlotCD, vioscsi.New(img), nil)
	d := virtiotest.NewDriver(h, pci.SlotCD)
	d.Init(0)
	q := d.Queue(2, 64)
	d.Start()
	head, resp, data := h.Alloc(64), h.Alloc(4096), h.Alloc(dataSize)
	copy(h.Bytes(head, 51), append(append(bytes.Clone(drive), make([]byte, 15)...), 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0))
	parts := []virtiotest.Part{virtiotest.In(head, 51), virtiotest.Out(resp, respSize)}
	for i := range 8 {
		parts = append(parts, virtiotest.Out(data+mem.GPA(i*8192), 2048))
	}
	n := h.Marks(fn, func() { q.Add(parts...) }, func() {
		q.Ring()
		q.Wait()
	})
	if n < 9 || n > 11 {
		t.Errorf("%d pages are marked, want 8 of data, the response and the ring", n)
	}
}

func TestRestoreAnotherMedium(t *testing.T) {
	img, _ := medium(t)
	b, err := vioscsi.New(img).SaveState()
	if err != nil {
		t.Fatal(err)
	}
	if err := vioscsi.New(img).RestoreState(b); err != nil {
		t.Error(err)
	}
	if vioscsi.New(shorter{img}).RestoreState(b) == nil {
		t.Error("a drive with another medium was taken")
	}
}

type shorter struct{ disk.Image }

func (shorter) Size() int64 { return 2048 }
