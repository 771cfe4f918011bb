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
