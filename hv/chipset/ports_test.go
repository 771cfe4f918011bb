package chipset

import (
	"bytes"
	"testing"

	"vmd/hv/bus"
)

func TestResets(t *testing.T) {
	for _, tc := range []struct {
		name   string
		dev    func(reset func()) bus.Device
		writes []byte
		want   int // resets
		read   byte
	}{
		{"0xcf9, as SeaBIOS does it", func(f func()) bus.Device { return NewResetControl(f) }, []byte{2, 6}, 1, 2},
		{"0xcf9, as ACPI says", func(f func()) bus.Device { return NewResetControl(f) }, []byte{6}, 1, 2},
		{"0xcf9, armed only", func(f func()) bus.Device { return NewResetControl(f) }, []byte{0xfb}, 0, 0x0b},
		{"0x64, pulse", func(f func()) bus.Device { return NewI8042(f) }, []byte{0xfe}, 1, 0xff},
		{"0x64, pulse of all lines", func(f func()) bus.Device { return NewI8042(f) }, []byte{0xf0}, 1, 0xff},
		{"0x64, no pulse of line 0", func(f func()) bus.Device { return NewI8042(f) }, []byte{0xff, 0xaa, 0x20}, 0, 0xff},
		{"0x92, A20", func(f func()) bus.Device { return NewPort92(f) }, []byte{0, 2, 0}, 0, 0},
		{"0x92, reset", func(f func()) bus.Device { return NewPort92(f) }, []byte{3}, 1, 3},
		{"0x92, stays set", func(f func()) bus.Device { return NewPort92(f) }, []byte{1, 3, 1}, 1, 1},
		{"0x92, again", func(f func()) bus.Device { return NewPort92(f) }, []byte{1, 0, 1}, 2, 1},
		{"0x92, other bits", func(f func()) bus.Device { return NewPort92(f) }, []byte{0xfe}, 0, 2},
	} {
		n := 0
		d := tc.dev(func() { n++ })
		for _, v := range tc.writes {
			out8(d, 0, v)
		}
		if got := in8(d, 0); n != tc.want || got != tc.read {
			t.Errorf("%s: %d resets, reads %#x; want %d, %#x", tc.name, n, got, tc.want, tc.read)
		}
	}
	if got := in8(NewPort92(nil), 0); got != 2 {
		t.Errorf("0x92 reads %#x after reset, want A20 on", got)
	}
}

func TestDebugPort(t *testing.T) {
	var out bytes.Buffer
	d := NewDebugPort(&out)
	for _, c := range []byte("Sea") {
		out8(d, 0, c)
	}
	out16(d, 0, 'B'|'X'<<8)
	if out.String() != "SeaB" || in8(d, 0) != 0xe9 {
		t.Errorf("wrote %q, reads %#x; want SeaB, 0xe9", out.String(), in8(d, 0))
	}
	out8(NewDebugPort(nil), 0, 'x')
}

func TestPostCode(t *testing.T) {
	var p PostCode
	out8(&p, 0, 0x55)
	if p.Last() != 0x55 || in8(&p, 0) != 0x55 {
		t.Errorf("last %#x, reads %#x, want 0x55", p.Last(), in8(&p, 0))
	}
}

func TestPVPanic(t *testing.T) {
	var got []Panic
	p := NewPVPanic(func(e Panic) { got = append(got, e) })
	if mask := in8(p, 0); mask != 7 {
		t.Errorf("offers %#x, want 7", mask)
	}
	for _, v := range []byte{0, 0xf8, 1, 1, 3, 4} {
		out8(p, 0, v)
	}
	if want := []Panic{Panicked, CrashLoaded, Shutdown}; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("reported %v, want each event once: %v", got, want)
	}
	out8(NewPVPanic(nil), 0, 1)
}

// The single ports take accesses of any size.
func FuzzPorts(f *testing.F) {
	f.Add([]byte("\x04\x00\x06\x07\x00\xfe\x03\x00\x00"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		devices := func() []bus.Device {
			nop := func() {}
			return []bus.Device{
				NewResetControl(nop), NewI8042(nop), NewPort92(nop), NewPVPanic(func(Panic) {}),
				NewDebugPort(new(bytes.Buffer)), new(PostCode), Absent{},
			}
		}
		a, b := devices(), devices()
		for i := range a {
			if x, y := script(a[i], 8, ops, nil), script(b[i], 8, ops, nil); !bytes.Equal(x, y) {
				t.Errorf("%T: two runs read % x and % x", a[i], x, y)
			}
		}
	})
}
