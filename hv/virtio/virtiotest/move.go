package virtiotest

import (
	"bytes"
	"fmt"
	"testing"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/state"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
)

// Moved is all that travels with a device, but for memory.
type Moved struct {
	Bus    pci.BusState    `cbor:"1,keyasint"`
	Device virtiopci.State `cbor:"2,keyasint"`
}

// Twin makes another machine with a copy of h's memory and nothing in it.
func (h *Host) Twin() *Host {
	h.t.Helper()
	n := NewHost(h.t, int(h.Mem.Size()))
	copy(n.ram(), h.ram())
	n.free = h.free
	return n
}

func (h *Host) ram() []byte { return h.Bytes(RAMBase, int(h.Mem.Size())) }

// Save pauses f, the only device of h, and returns its state as it travels.
func (h *Host) Save(f *virtiopci.Function) []byte {
	h.t.Helper()
	f.Pause()
	s := Moved{Bus: h.PCI.Save()}
	var err error
	if s.Device, err = f.Save(); err != nil {
		h.t.Fatalf("save: %v", err)
	}
	b, err := state.Encode(s)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// Restore puts dev into slot, in the state of b.
func (h *Host) Restore(slot int, dev virtio.Device, o virtiopci.Options, b []byte) (*virtiopci.Function, error) {
	h.t.Helper()
	var s Moved
	if err := state.Decode(b, &s); err != nil {
		return nil, err
	}
	f := h.insert(slot, dev, o)
	if err := h.PCI.Restore(s.Bus); err != nil {
		return f, err
	}
	return f, f.Restore(s.Device)
}

// Move takes the guest, whose driver d has queues qs of device f, to the machine
// h, a Twin of its own where dev is like f's device. There the driver goes on.
// What is saved there before it does must be the same once more. f ends.
func (d *Driver) Move(f *virtiopci.Function, h *Host, dev virtio.Device, o virtiopci.Options, qs ...*Queue) *virtiopci.Function {
	t := h.t
	t.Helper()
	b := d.Host.Save(f)
	copy(h.ram(), d.Host.ram()) // now that it changes no more
	d.Host.remove(f)
	n, err := h.Restore(d.Slot, dev, o, b)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	if was, is := view(t, b), view(t, h.Save(n)); was != is {
		t.Fatalf("state that was saved, restored and saved again\nwas %s\nis  %s", was, is)
	}
	if !bytes.Equal(h.ram(), d.Host.ram()) {
		t.Fatal("a device that stands still writes to memory")
	}
	d.rebind(h, qs)
	n.Resume()
	return n
}

// view is a state to compare and to read. That of a device which needs a reset
// is not brought back: only the driver's reset is awaited.
func view(t testing.TB, b []byte) string {
	t.Helper()
	var s Moved
	if err := state.Decode(b, &s); err != nil {
		t.Fatal(err)
	}
	if s.Device.Core.Status&virtio.VIRTIO_CONFIG_S_NEEDS_RESET != 0 {
		s.Device.Device = nil
	}
	return fmt.Sprintf("%+v\ndevice %x", s, s.Device.Device)
}

// rebind makes the driver's view that of machine h.
func (d *Driver) rebind(h *Host, qs []*Queue) {
	msix := len(d.msis)
	d.Host = h
	if msix > 0 {
		d.msis = h.msis[len(h.msis)-msix:]
	}
	d.line = h.Line(d.Config(0x3c, 1)).(*Line)
	for _, q := range qs {
		q.rebind()
	}
}

// rebind finds a queue's parts in the memory of the driver's machine.
func (q *Queue) rebind() {
	q.find()
	if q.irq = &q.d.line.event; !q.d.INTx && len(q.d.msis) > 0 {
		q.irq = &q.d.msis[1+q.index].event
	}
}

// Marks has the driver ask while f is paused, and then do, in which it rings and
// waits but writes nothing, while pages are tracked. Each page that the device
// has changed must be marked. It returns how many are.
func (h *Host) Marks(f *virtiopci.Function, ask, do func()) (marked int) {
	h.t.Helper()
	f.Pause()
	ask()
	before := bytes.Clone(h.ram())
	h.Mem.Track(true)
	defer h.Mem.Track(false)
	if err := f.Track(true); err != nil {
		h.t.Fatal(err)
	}
	f.Resume()
	do()
	f.Pause()
	dirty := make([]uint64, h.Mem.BitmapWords(0))
	marked, err := h.Mem.TakeDirty(0, dirty)
	if err != nil {
		h.t.Fatal(err)
	}
	for at, now := 0, h.ram(); at < len(now); at += mem.Page {
		page := at / mem.Page
		if !bytes.Equal(before[at:][:mem.Page], now[at:][:mem.Page]) && dirty[page/64]>>(page%64)&1 == 0 {
			h.t.Errorf("page %d behind %#x changed and is not marked", page, RAMBase)
		}
	}
	f.Resume()
	if err := f.Track(false); err != nil {
		h.t.Fatal(err)
	}
	return marked
}
