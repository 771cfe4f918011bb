package virtiotest

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"testing"

	"vmd/hv/state"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
)

// FuzzRestore has the device restored from states of somebody else's making.
func (v Victim) FuzzRestore(f *testing.F) {
	saves := v.saves(f)
	for i := range saves {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0})
	}
	f.Add(byte(raw), saves[0])
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		if which != raw {
			b = edit(t, saves[int(which)%len(saves)], b)
		}
		v.restore(t, b)
	})
}

// edited is FuzzRestore with states that have one or two numbers changed, the
// same in every run.
func (v Victim) edited(t *testing.T) {
	saves, r := v.saves(t), rand.New(rand.NewPCG(3, 4))
	for i := range 60 {
		edits := make([]byte, 10*(1+i%2))
		for k := 0; k < len(edits); k += 10 {
			binary.LittleEndian.PutUint16(edits[k:], uint16(r.Uint32()))
			binary.LittleEndian.PutUint64(edits[k+2:], values[r.IntN(len(values))])
		}
		t.Run("", func(t *testing.T) { v.restore(t, edit(t, saves[i%len(saves)], edits)) })
	}
}

// restore has the device restored from b. What it does not refuse it must be
// able to live with, as with a hostile guest: be saved again, go on, and be as
// good as new after a reset.
func (v Victim) restore(t *testing.T, b []byte) {
	h, d := NewHost(t, hostileRAM), &fight{t: t, v: v, warns: make(chan struct{}, 1000)}
	o := v.Options
	o.Warn = d.warned
	var err error
	if d.fn, err = h.Restore(v.Slot, v.New(t, h), o, b); err != nil {
		return
	}
	for range 3 {
		d.travel(h.Save(d.fn), o)
		d.fn.Resume()
		h.ringAll(b)
	}
	h.PCI.Reset()
	if err := h.PCI.Assign(); err != nil {
		t.Fatal(err)
	}
	if v.Legacy {
		d.Driver = NewLegacy(h, v.Slot)
	} else {
		d.Driver = NewDriver(h, v.Slot)
	}
	d.recover()
}

// raw says that the bytes are all of a state, and not edits to one of ours.
const raw = 255

// edit changes a state: each ten bytes of edits name one of its numbers and give
// it a value. So most of what is tried passes the decoder.
func edit(t testing.TB, b, edits []byte) []byte {
	t.Helper()
	var s Moved
	if err := state.Decode(b, &s); err != nil {
		t.Fatal(err)
	}
	leaves := numbers(nil, reflect.ValueOf(&s).Elem())
	for ; len(edits) >= 10; edits = edits[10:] {
		n := leaves[int(binary.LittleEndian.Uint16(edits))%len(leaves)]
		switch x := binary.LittleEndian.Uint64(edits[2:]); {
		case n.CanUint():
			n.SetUint(x)
		case n.CanInt():
			n.SetInt(int64(x))
		default:
			n.SetBool(x&1 != 0)
		}
	}
	b, err := state.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// numbers appends every number and truth value in v.
func numbers(to []reflect.Value, v reflect.Value) []reflect.Value {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			to = numbers(to, v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			to = numbers(to, v.Index(i))
		}
	default:
		to = append(to, v)
	}
	return to
}

// travel has b, which was saved here, taken elsewhere: as it is.
func (f *fight) travel(b []byte, o virtiopci.Options) {
	f.t.Helper()
	h := NewHost(f.t, hostileRAM)
	fn, err := h.Restore(f.v.Slot, f.v.New(f.t, h), o, b)
	if err != nil {
		f.t.Fatalf("what was saved is not taken: %v\n%s", err, view(f.t, b))
	}
	if was, is := view(f.t, b), view(f.t, h.Save(fn)); was != is {
		f.t.Errorf("saved, restored and saved again\nwas %s\nis  %s", was, is)
	}
}

// ringAll moves the rings on that b names, and rings every doorbell.
func (h *Host) ringAll(b []byte) {
	var s Moved
	if state.Decode(b, &s) != nil {
		return
	}
	for _, q := range s.Device.Core.Queues {
		if ring, err := h.Mem.Slice(q.Avail, 8); err == nil && q.Enabled {
			ring[2]++ // one more available, whatever is there
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.bells {
		ring(d.FD)
	}
}

// saves are states that a real guest brings the device into.
func (v Victim) saves(t testing.TB) [][]byte {
	h := NewHost(t, hostileRAM)
	o := v.Options
	o.Warn = func(error) {}
	fn := h.PlugWith(v.Slot, v.New(t, h), o)
	bs := [][]byte{h.Save(fn)}
	fn.Resume()
	var d *Driver
	if v.Legacy {
		d = NewLegacy(h, v.Slot)
	} else {
		d = NewDriver(h, v.Slot)
	}
	d.Init(d.Offered() & (virtio.VIRTIO_RING_F_INDIRECT_DESC | 1<<24 - 1))
	bs = append(bs, h.Save(fn))
	fn.Resume()
	var qs []*Queue
	for i, max := range fn.Device().QueueSizes() {
		qs = append(qs, d.Queue(i, min(max, 16)))
	}
	d.Start()
	bs = append(bs, h.Save(fn))
	fn.Resume()
	f := fight{Driver: d, qs: qs}
	f.flood()
	return append(bs, h.Save(fn))
}
