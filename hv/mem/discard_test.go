package mem

import (
	"errors"
	"testing"
)

func TestDiscard(t *testing.T) {
	const page = 4096
	m, err := Alloc(Range{0, 2 << 20}, Range{4 << 20, 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	fill := func() {
		for _, r := range m.Regions() {
			for i := range r.Bytes {
				r.Bytes[i] = 0xaa
			}
		}
	}
	for _, c := range []struct {
		name     string
		gpa      GPA
		n        uint64
		err      error
		from, to GPA // what is zero after
	}{
		{"two pages", page, 2 * page, nil, page, 3 * page},
		{"not quite", page + 1, 2 * page, nil, 2 * page, 3 * page},
		{"less than a page", page + 1, page, nil, 0, 0},
		{"nothing", page, 0, nil, 0, 0},
		{"all of a region", 4 << 20, 1 << 20, nil, 4 << 20, 5 << 20},
		{"beyond the end", 1 << 20, 1<<20 + 1, ErrRange, 0, 0},
		{"no memory", 3 << 20, page, ErrRange, 0, 0},
		{"wraps", 1<<64 - page, 2 * page, ErrRange, 0, 0},
	} {
		fill()
		if err := m.Discard(c.gpa, c.n); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		for _, r := range m.Regions() {
			for off := 0; off < len(r.Bytes); off += 512 {
				gpa := r.Base + GPA(off)
				if zero := r.Bytes[off] == 0; zero != (gpa >= c.from && gpa < c.to) {
					t.Fatalf("%s: %#x is zero: %v", c.name, gpa, zero)
				}
			}
		}
	}
}

func TestResidentFollowsDiscard(t *testing.T) {
	const size = 300 << 20 // more than one step
	m, err := Alloc(Range{0, size})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	want := func(lo, hi uint64) {
		t.Helper()
		n, err := m.Resident()
		if err != nil || n < lo || n > hi {
			t.Errorf("%d bytes resident, %v; want %d to %d", n, err, lo, hi)
		}
	}
	want(0, 0)
	b := m.Regions()[0].Bytes
	for off := 100 << 20; off < 104<<20; off += 4096 {
		b[off] = 1
	}
	b[size-1] = 1
	want(4<<20+4096, 8<<20) // the host may have given large pages
	if err := m.Discard(100<<20, 4<<20); err != nil {
		t.Fatal(err)
	}
	want(4096, 2<<20)
}

func TestDiscardDoesNotAllocate(t *testing.T) {
	m, err := Alloc(Range{0, 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n := testing.AllocsPerRun(100, func() {
		if m.Discard(0, 4096) != nil {
			t.Fatal("not discarded")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
