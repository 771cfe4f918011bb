package mem

import (
	"bytes"
	"errors"
	"testing"
)

// twoRegions has RAM at 0x1000-0x1fff and, right behind it, at 0x2000-0x2fff,
// and a third piece at 0x10000.
func twoRegions(t testing.TB) *Memory {
	t.Helper()
	m, err := New(
		Region{0x1000, make([]byte, 0x1000)},
		Region{0x2000, make([]byte, 0x1000)},
		Region{0x10000, make([]byte, 0x1000)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNewRefuses(t *testing.T) {
	b := make([]byte, 16)
	for name, regions := range map[string][]Region{
		"empty region":    {{0, nil}},
		"wrapping region": {{^GPA(0) - 7, b}},
		"overlap":         {{0, b}, {8, b}},
		"not sorted":      {{64, b}, {0, b}},
	} {
		if _, err := New(regions...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestSlice(t *testing.T) {
	m := twoRegions(t)
	for _, c := range []struct {
		gpa GPA
		n   uint64
		ok  bool
	}{
		{0x1000, 1, true}, {0x1000, 0x1000, true}, {0x1fff, 1, true}, {0x2000, 0x1000, true},
		{0xfff, 1, false}, {0xfff, 2, false}, {0x1000, 0x1001, false}, {0x1fff, 2, false},
		{0x3000, 1, false}, {0x10fff, 1, true}, {0x10fff, 2, false}, {0x11000, 1, false},
		{0x1000, ^uint64(0), false}, {^GPA(0), 1, false}, {^GPA(0), ^uint64(0), false},
		{0x5000, 0, true}, {^GPA(0), 0, true},
	} {
		b, err := m.Slice(c.gpa, c.n)
		if ok := err == nil; ok != c.ok || ok && uint64(len(b)) != c.n {
			t.Errorf("%d bytes at %#x: %d bytes, %v", c.n, c.gpa, len(b), err)
		}
		if err != nil && !errors.Is(err, ErrRange) {
			t.Errorf("%d bytes at %#x: %v", c.n, c.gpa, err)
		}
		if err == nil && uint64(cap(b)) != c.n {
			t.Errorf("%d bytes at %#x: room for %d", c.n, c.gpa, cap(b))
		}
	}
}

func TestReadWriteAcrossRegions(t *testing.T) {
	m := twoRegions(t)
	want := []byte("across the border")
	if err := m.Write(0x2000-7, want); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := m.Read(0x2000-7, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWriteChecksFirst(t *testing.T) {
	m := twoRegions(t)
	for _, at := range []GPA{0x3000 - 4, 0xfff, 0x11000 - 4, ^GPA(0) - 3} {
		if err := m.Write(at, bytes.Repeat([]byte{0xff}, 8)); !errors.Is(err, ErrRange) {
			t.Errorf("8 bytes at %#x: %v", at, err)
		}
		if err := m.Read(at, make([]byte, 8)); !errors.Is(err, ErrRange) {
			t.Errorf("read 8 bytes at %#x: %v", at, err)
		}
	}
	for _, r := range m.Regions() {
		if bytes.IndexByte(r.Bytes, 0xff) >= 0 {
			t.Errorf("region at %#x was written", r.Base)
		}
	}
}

func TestSizeAndEmptyMemory(t *testing.T) {
	if n := twoRegions(t).Size(); n != 0x3000 {
		t.Errorf("size %#x", n)
	}
	m, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Slice(0, 1); err == nil {
		t.Error("memory without regions has bytes")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestSliceDoesNotAllocate(t *testing.T) {
	m := twoRegions(t)
	if n := testing.AllocsPerRun(100, func() { m.Slice(0x10010, 16) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAlloc(t *testing.T) {
	m, err := Alloc(Range{0, 4 << 20}, Range{4 << 30, 12288})
	if err != nil {
		t.Fatal(err)
	}
	if n := m.Size(); n != 4<<20+12288 {
		t.Errorf("size %d", n)
	}
	r := m.Regions()
	if len(r) != 2 || r[0].Base != 0 || r[1].Base != 4<<30 {
		t.Fatalf("regions at %v", r)
	}
	for _, r := range r {
		if address(r.Bytes)%hugePage != uintptr(r.Base%hugePage) {
			t.Errorf("region at %#x lies at %#x: no large pages", r.Base, address(r.Bytes))
		}
		if cap(r.Bytes) != len(r.Bytes) {
			t.Errorf("region at %#x reaches into what follows", r.Base)
		}
		r.Bytes[len(r.Bytes)-1] = 1 // it is there
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := m.Slice(0, 1); !errors.Is(err, ErrRange) {
		t.Errorf("closed memory: %v", err)
	}
}

func TestAllocRefuses(t *testing.T) {
	for name, r := range map[string][]Range{
		"nothing":        {},
		"no bytes":       {{0, 0}},
		"half a page":    {{0, 2048}},
		"crooked base":   {{4096, 4096}},
		"crooked middle": {{0, 4096}, {4 << 20, 4096}},
		"overlap":        {{0, 4 << 20}, {2 << 20, 4096}},
		"endless":        {{0, 1 << 62}},
		"wrapping":       {{0, ^uint64(0) &^ 4095}},
		"sum wraps":      {{0, 1 << 45}, {1 << 46, 1 << 63}},
	} {
		if m, err := Alloc(r...); err == nil {
			m.Close()
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzMemory(f *testing.F) {
	f.Add(uint64(0x1ff0), []byte("12345678901234567890"))
	f.Add(^uint64(0), []byte{1})
	f.Add(uint64(0x2ffe), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, at uint64, p []byte) {
		m := twoRegions(t)
		werr := m.Write(GPA(at), p)
		got := make([]byte, len(p))
		rerr := m.Read(GPA(at), got)
		if (werr == nil) != (rerr == nil) {
			t.Fatalf("write %v, read %v", werr, rerr)
		}
		if werr == nil && !bytes.Equal(got, p) {
			t.Fatalf("wrote % x, read % x", p, got)
		}
	})
}
