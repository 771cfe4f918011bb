package bus

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
)

// reg answers reads with the offset and remembers writes.
type reg struct {
	off  uint64
	data []byte
}

func (r *reg) Read(off uint64, data []byte) {
	for i := range data {
		data[i] = byte(off) + byte(i)
	}
}

func (r *reg) Write(off uint64, data []byte) { r.off, r.data = off, append(r.data[:0], data...) }

func mapOK(t *testing.T, b *Bus, base, size uint64, d Device) {
	t.Helper()
	if err := b.Map(base, size, d); err != nil {
		t.Fatal(err)
	}
}

func TestDispatch(t *testing.T) {
	var b Bus
	var low, high reg
	mapOK(t, &b, 0x100, 8, &low)
	mapOK(t, &b, 0x108, 8, &high)
	p := make([]byte, 4)
	b.Read(0x104, p)
	if !bytes.Equal(p, []byte{4, 5, 6, 7}) {
		t.Errorf("read % x", p)
	}
	b.Write(0x10c, []byte{9, 8})
	if high.off != 4 || !bytes.Equal(high.data, []byte{9, 8}) || low.data != nil {
		t.Errorf("write arrived as %+v and %+v", low, high)
	}
	if n := b.Unclaimed.Load(); n != 0 {
		t.Errorf("%d unclaimed", n)
	}
}

func TestUnclaimedReadsOnes(t *testing.T) {
	var b Bus
	var r reg
	mapOK(t, &b, 0x100, 8, &r)
	for i, c := range []struct {
		addr uint64
		n    int
	}{{0, 1}, {0xff, 1}, {0xff, 2}, {0x108, 4}, {0x107, 2}, {0x104, 8}, {^uint64(0), 1}, {^uint64(0), 8}} {
		p := make([]byte, c.n)
		b.Read(c.addr, p)
		if !bytes.Equal(p, bytes.Repeat([]byte{0xff}, c.n)) {
			t.Errorf("%d bytes at %#x: % x", c.n, c.addr, p)
		}
		b.Write(c.addr, p)
		if r.data != nil {
			t.Errorf("%d bytes at %#x reached the device", c.n, c.addr)
		}
		if got, want := b.Unclaimed.Load(), uint64(2*i+2); got != want {
			t.Errorf("%d unclaimed, want %d", got, want)
		}
	}
}

func TestMapRefuses(t *testing.T) {
	var b Bus
	mapOK(t, &b, 0x100, 0x10, &reg{})
	mapOK(t, &b, 0x120, 0x10, &reg{})
	for _, c := range []struct{ base, size uint64 }{
		{0x200, 0}, {^uint64(0), 2}, {0x100, 0x10}, {0xf0, 0x11}, {0x10f, 1}, {0x110, 0x11}, {0, 0x1000}, {0x128, 1},
	} {
		if err := b.Map(c.base, c.size, &reg{}); err == nil {
			t.Errorf("%#x+%#x was mapped", c.base, c.size)
		}
	}
	mapOK(t, &b, 0x110, 0x10, &reg{}) // exactly between
}

func TestUnmap(t *testing.T) {
	var b Bus
	var r reg
	mapOK(t, &b, 0x100, 8, &r)
	b.Unmap(0x104) // no range begins there
	b.Write(0x100, []byte{1})
	if r.data == nil {
		t.Error("unmap of another address took the range away")
	}
	b.Unmap(0x100)
	r.data = nil
	b.Write(0x100, []byte{1})
	if r.data != nil {
		t.Error("unmapped device was written")
	}
	mapOK(t, &b, 0x100, 8, &r)
}

func TestAccessDoesNotAllocate(t *testing.T) {
	var b Bus
	var r reg
	for i := range uint64(20) {
		mapOK(t, &b, i*0x10, 8, &r)
	}
	p := make([]byte, 4)
	if n := testing.AllocsPerRun(100, func() { b.Read(0x54, p); b.Write(0x54, p); b.Read(0x5c, p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Devices come and go while vCPUs look others up.
func TestMapWhileRead(t *testing.T) {
	var b Bus
	mapOK(t, &b, 0x1000, 8, &reg{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var p [1]byte
			for range 2000 {
				if b.Read(0x1003, p[:]); p[0] != 3 {
					t.Errorf("read %#x", p[0])
					return
				}
			}
		})
	}
	for i := range 200 {
		base := uint64(i%7) * 0x10
		mapOK(t, &b, base, 8, &reg{})
		b.Unmap(base)
	}
	wg.Wait()
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var s Bus
			for i := range uint64(n) {
				s.Map(i*0x10, 8, &reg{})
			}
			var p [1]byte
			for b.Loop() {
				s.Read(0, p[:])
			}
		})
	}
}
