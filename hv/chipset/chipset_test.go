package chipset

import (
	"sync/atomic"
	"testing"
	"time"

	"vmd/hv/bus"
)

// fakeLine remembers its level and counts rising edges.
type fakeLine struct {
	high  atomic.Bool
	edges atomic.Int32
}

func (l *fakeLine) Set(high bool) {
	if !l.high.Swap(high) && high {
		l.edges.Add(1)
	}
}

func in8(d bus.Device, off uint64) byte {
	var b [1]byte
	d.Read(off, b[:])
	return b[0]
}

func in16(d bus.Device, off uint64) uint16 {
	var b [2]byte
	d.Read(off, b[:])
	return uint16(b[0]) | uint16(b[1])<<8
}

func in32(d bus.Device, off uint64) uint32 {
	return uint32(in16(d, off)) | uint32(in16(d, off+2))<<16
}

func out8(d bus.Device, off uint64, v byte)    { d.Write(off, []byte{v}) }
func out16(d bus.Device, off uint64, v uint16) { d.Write(off, []byte{byte(v), byte(v >> 8)}) }

// fakeClock is a clock that a test moves.
type fakeClock struct{ t time.Time }

func (c *fakeClock) now() time.Time          { return c.t }
func (c *fakeClock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newClock() *fakeClock {
	return &fakeClock{time.Date(2026, 9, 30, 23, 59, 58, 0, time.UTC)}
}

// script is a series of accesses that a fuzzer makes up: three bytes each, of
// which the first chooses size and direction, the second the register, and the
// third the data.
func script(d bus.Device, size uint64, ops []byte, step func(byte)) (reads []byte) {
	for ; len(ops) >= 3; ops = ops[3:] {
		n := uint64(1) << (ops[0] & 3)
		if n > size {
			n = 1
		}
		off := uint64(ops[1]) % (size - n + 1)
		b := make([]byte, n)
		for i := range b {
			b[i] = ops[2] + byte(i)*ops[0]
		}
		if ops[0]&4 != 0 {
			d.Write(off, b)
		} else {
			d.Read(off, b)
			reads = append(reads, b...)
		}
		if step != nil {
			step(ops[0])
		}
	}
	return reads
}

// socket is where a part sits: another can take its place.
type socket struct{ bus.Device }

func TestAbsent(t *testing.T) {
	var d Absent
	out8(d, 0, 1)
	if got := in32(d, 0); got != 1<<32-1 {
		t.Errorf("reads %#x, want all ones", got)
	}
}
