package qcow2

import (
	"bytes"
	"strings"
	"testing"
)

func TestInfo(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{Size: 1 << 30},
		{Size: 512, ClusterBits: 9},
		{Size: 1 << 30, BackingName: "/var/vm/base.qcow2", BackingFormat: "qcow2"},
		{Size: 1 << 30, BackingName: strings.Repeat("n", maxBackingName), BackingFormat: "raw", ClusterBits: 12},
		{Size: 1 << 30, BackingName: "no format", ClusterBits: 21},
	} {
		f := newImageFile(t, o)
		h, err := Info(bytes.NewReader(f.data), int64(len(f.data)))
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if o.ClusterBits == 0 {
			o.ClusterBits = DefaultClusterBits
		}
		got := Options{h.Size, h.BackingName, h.BackingFormat, h.ClusterBits}
		if got != o || h.Version != 3 || h.RefcountBits != 16 || h.Dirty || h.Corrupt || h.Snapshots != 0 {
			t.Errorf("%+v: info %+v", o, h)
		}
		if !Detect(f.data) || Detect(f.data[1:]) || Detect(f.data[:3]) {
			t.Errorf("%+v: not detected by its first bytes", o)
		}
	}
}

func TestCreateRefusals(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"odd size":         {Size: 1000},
		"negative size":    {Size: -512},
		"too large":        {Size: 1 << 60},
		"tiny clusters":    {ClusterBits: 8},
		"giant clusters":   {ClusterBits: 22},
		"long name":        {BackingName: strings.Repeat("n", maxBackingName+1)},
		"name for cluster": {BackingName: strings.Repeat("n", 500), ClusterBits: 9},
		"long format":      {BackingName: "n", BackingFormat: strings.Repeat("f", 16)},
	} {
		m := newMem(nil)
		if err := create(m, o); err == nil {
			t.Errorf("%s: no error", name)
		}
		if Detect(m.data) {
			t.Errorf("%s: there is an image", name)
		}
	}
}

// Every width of refcounts, next to its neighbours.
func TestCounts(t *testing.T) {
	t.Parallel()
	for order := uint(0); order <= maxRefOrder; order++ {
		g := geometry{clusterBits: 9, refOrder: order}
		slice := make([]byte, 512)
		n := int64(512 * 8 >> order)
		for k := range n {
			setCount(slice, k, order, g.maxCount())
			setCount(slice, (k+n/2)%n, order, 0)
			setCount(slice, k, order, uint64(k)&g.maxCount())
		}
		for k := range n / 2 {
			if got := getCount(slice, k, order); k > 0 && got != 0 && got != uint64(k)&g.maxCount() {
				t.Errorf("order %d: count %d is %d", order, k, got)
			}
			if got, want := getCount(slice, n/2+k, order), uint64(n/2+k)&g.maxCount(); got != want {
				t.Errorf("order %d: count %d is %d, want %d", order, n/2+k, got, want)
			}
		}
	}
	// As the format has it: the first count is in the lowest bits.
	b := []byte{0}
	setCount(b, 1, 1, 2)
	if b[0] != 2<<2 {
		t.Errorf("two-bit count 1: byte %#x", b[0])
	}
}
