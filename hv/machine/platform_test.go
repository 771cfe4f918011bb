package machine

import (
	"slices"
	"testing"

	"vmd/hv/mem"
)

func TestRAMRanges(t *testing.T) {
	for _, c := range []struct {
		size uint64
		want []mem.Range
	}{
		{4096, []mem.Range{{Base: 0, Size: 4096}}},
		{3 << 30, []mem.Range{{Base: 0, Size: 3 << 30}}},
		{3<<30 + 4096, []mem.Range{{Base: 0, Size: 3 << 30}, {Base: 4 << 30, Size: 4096}}},
		{8 << 30, []mem.Range{{Base: 0, Size: 3 << 30}, {Base: 4 << 30, Size: 5 << 30}}},
	} {
		if got := ramRanges(c.size); !slices.Equal(got, c.want) {
			t.Errorf("%d bytes: %v, want %v", c.size, got, c.want)
		}
	}
}

func TestPCIWindows(t *testing.T) {
	for _, c := range []struct {
		ram       uint64
		bits      int
		base, end uint64 // of the one above 4 GiB
	}{
		{1 << 30, 40, 4 << 30, 1 << 40},
		{3 << 30, 48, 4 << 30, 1 << 46},
		{3<<30 + 4096, 36, 5 << 30, 1 << 36},
		{7 << 30, 36, 8 << 30, 1 << 36},
		{1 << 40, 39, 0, 0}, // no room
	} {
		w := pciWindows(c.ram, c.bits)
		if w.MMIO64.Base != c.base || w.MMIO64.Base+w.MMIO64.Size != c.end {
			t.Errorf("%d bytes, %d bits: %#x+%#x, want %#x-%#x", c.ram, c.bits, w.MMIO64.Base, w.MMIO64.Size, c.base, c.end)
		}
		if w.MMIO.Base != 0xc0000000 || w.MMIO.Size != 0x3ec00000 {
			t.Errorf("%d bytes: window below 4 GiB %+v", c.ram, w.MMIO)
		}
	}
}
