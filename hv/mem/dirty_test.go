package mem

import (
	"math/bits"
	"slices"
	"sync"
	"testing"
)

// threeRegions has 200 pages at 0, 65 right behind them and 3 at 4 MiB.
func threeRegions(t testing.TB) *Memory {
	t.Helper()
	m, err := New(
		Region{0, make([]byte, 200*Page)},
		Region{200 * Page, make([]byte, 65*Page)},
		Region{4 << 20, make([]byte, 3*Page)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// taken is the numbers of the dirty pages of region i.
func taken(t testing.TB, m *Memory, i int) []int {
	t.Helper()
	b := make([]uint64, m.BitmapWords(i))
	n, err := m.TakeDirty(i, b)
	if err != nil {
		t.Fatal(err)
	}
	var pages []int
	for w, v := range b {
		for ; v != 0; v &= v - 1 {
			pages = append(pages, w*64+bits.TrailingZeros64(v))
		}
	}
	if n != len(pages) {
		t.Errorf("region %d: said %d pages, has %d", i, n, len(pages))
	}
	return pages
}

func span(from, to int) []int {
	var s []int
	for ; from <= to; from++ {
		s = append(s, from)
	}
	return s
}

func TestTouched(t *testing.T) {
	for _, c := range []struct {
		name string
		gpa  GPA
		n    uint64
		want [3][]int
	}{
		{"a byte", Page, 1, [3][]int{{1}}},
		{"nothing", Page, 0, [3][]int{}},
		{"over a border of pages", Page - 1, 2, [3][]int{{0, 1}}},
		{"a word", 0, 64 * Page, [3][]int{span(0, 63)}},
		{"three words", 63 * Page, 66 * Page, [3][]int{span(63, 128)}},
		{"over a border of regions", 199 * Page, 2 * Page, [3][]int{{199}, {0}}},
		{"into a hole", 264 * Page, 100 * Page, [3][]int{nil, {64}}},
		{"in a hole", 300 * Page, Page, [3][]int{}},
		{"out of a hole", 4<<20 - 8, 9, [3][]int{nil, nil, {0}}},
		{"everything and more", 0, ^uint64(0), [3][]int{span(0, 199), span(0, 64), span(0, 2)}},
		{"wraps", ^GPA(0), 2, [3][]int{}},
		{"wraps from memory", 4<<20 + 2*Page, ^uint64(0), [3][]int{nil, nil, {2}}},
	} {
		m := threeRegions(t)
		m.Touched(c.gpa, c.n)
		m.Track(true)
		if p := taken(t, m, 0); p != nil {
			t.Errorf("%s: marked %v before tracking", c.name, p)
		}
		m.Touched(c.gpa, c.n)
		m.Track(true) // changes nothing
		for i := range c.want {
			if p := taken(t, m, i); !slices.Equal(p, c.want[i]) {
				t.Errorf("%s: region %d: %v, want %v", c.name, i, p, c.want[i])
			}
			if p := taken(t, m, i); p != nil {
				t.Errorf("%s: region %d: %v after they were taken", c.name, i, p)
			}
		}
		m.Track(false)
		m.Touched(c.gpa, c.n)
		if p := taken(t, m, 0); p != nil || m.Tracking() {
			t.Errorf("%s: %v without tracking", c.name, p)
		}
	}
}

func TestWritersTouch(t *testing.T) {
	m, err := Alloc(Range{0, 2 << 20}, Range{4 << 20, 64 * Page})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Track(true)
	if err := m.Write(3*Page-1, []byte{1, 2}); err != nil {
		t.Fatal(err)
	}
	if err := m.Discard(4<<20+5*Page, 2*Page); err != nil {
		t.Fatal(err)
	}
	b, err := m.Slice(4<<20+8*Page+17, 5000)
	if err != nil {
		t.Fatal(err)
	}
	m.TouchedBytes(b)
	m.TouchedBytes(nil)
	m.TouchedBytes(make([]byte, 10)) // somebody else's
	if p := taken(t, m, 0); !slices.Equal(p, []int{2, 3}) {
		t.Errorf("a write over a border marks %v", p)
	}
	if p := taken(t, m, 1); !slices.Equal(p, []int{5, 6, 8, 9}) {
		t.Errorf("a discard and a slice mark %v", p)
	}
}

func TestTakeDirtyOrs(t *testing.T) {
	m := threeRegions(t)
	m.Track(true)
	m.Touched(0, 1)
	b := []uint64{0, 0, 0, 1 << 63}
	if n, err := m.TakeDirty(0, b); n != 2 || err != nil || b[0] != 1 || b[3] != 1<<63 {
		t.Errorf("%d pages, %v: %x", n, err, b)
	}
	for _, i := range []int{-1, 3, 2} {
		if _, err := m.TakeDirty(i, b); err == nil {
			t.Errorf("region %d: taken into four words", i)
		}
	}
}

// TestMarksOfManyAreAllTaken has several writers mark while one takes: each mark
// is taken once or more, and none is lost.
func TestMarksOfManyAreAllTaken(t *testing.T) {
	m := threeRegions(t)
	m.Track(true)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for p := w; p < 200; p += 4 {
				m.Touched(GPA(p)*Page, 1)
			}
		})
	}
	all := make([]uint64, m.BitmapWords(0))
	for range 50 {
		if _, err := m.TakeDirty(0, all); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if n, err := m.TakeDirty(0, all); n != 200 || err != nil {
		t.Errorf("%d pages, %v", n, err)
	}
}

func TestTouchedDoesNotAllocate(t *testing.T) {
	m := threeRegions(t)
	m.Track(true)
	b, _ := m.Slice(0, 9000)
	all := make([]uint64, m.BitmapWords(0))
	if n := testing.AllocsPerRun(100, func() {
		m.Touched(100, 9000)
		m.TouchedBytes(b)
		m.TakeDirty(0, all)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTouched(b *testing.B) {
	m := threeRegions(b)
	b.Run("off", func(b *testing.B) {
		for range b.N {
			m.Touched(100, 9000)
		}
	})
	b.Run("on", func(b *testing.B) {
		m.Track(true)
		for range b.N {
			m.Touched(100, 9000)
		}
	})
}
