package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"vmd/hv/disk"
)

// model does the same to an image and to a plain disk. Of discarded sectors,
// whose contents are open, it keeps what the image makes of them.
type model struct {
	t    testing.TB
	r    *rand.Rand
	img  *Image
	want plain
}

func newModel(t testing.TB, seed uint64, img *Image, base plain) *model {
	want := make(plain, img.Size())
	copy(want, base)
	return &model{t, rand.New(rand.NewPCG(seed, 1)), img, want}
}

// where picks a range, often of few clusters and often aligned to them.
func (m *model) where() (off, n int64) {
	size, c := m.img.Size(), m.img.cluster()
	off = m.r.Int64N(size/sectorSize) * sectorSize
	if m.r.IntN(2) == 0 {
		off &^= c - 1
	}
	n = (1 + m.r.Int64N(2*c/sectorSize)) * sectorSize
	if m.r.IntN(4) == 0 {
		n = (1 + m.r.Int64N(8)) * c
	}
	return off, min(n, size-off)
}

// step does one thing.
func (m *model) step() {
	off, n := m.where()
	what, err := "", error(nil)
	switch m.r.IntN(10) {
	case 0, 1, 2, 3:
		b := random(m.r, n)
		what, err = "write", m.img.WriteAtV(split(m.r, b), off)
		copy(m.want[off:], b)
	case 4:
		what, err = "zero", m.img.WriteZeroes(off, n, m.r.IntN(2) == 0)
		clear(m.want[off : off+n])
	case 5:
		what, err = "discard", m.img.Discard(off, n)
		m.discarded(off, n)
	case 6:
		what, err = "flush", m.img.Flush()
	default:
		what = "read"
		m.compare(off, n)
	}
	if err != nil {
		m.t.Fatalf("%s of %d at %d: %v", what, n, off, err)
	}
}

// discarded checks that clusters not in the range as a whole are as they were.
func (m *model) discarded(off, n int64) {
	first, end := m.img.inner(off, n)
	from, to := first<<m.img.clusterBits, min(end<<m.img.clusterBits, m.img.Size())
	if from < to {
		if err := m.img.ReadAtV([][]byte{m.want[from:to]}, from); err != nil {
			m.t.Fatal(err)
		}
	}
	m.compare(off, n)
}

func (m *model) compare(off, n int64) {
	m.t.Helper()
	got := make([]byte, n)
	if err := m.img.ReadAtV(split(m.r, got), off); err != nil {
		m.t.Fatalf("read of %d at %d: %v", n, off, err)
	}
	if bytes.Equal(got, m.want[off:off+n]) {
		return
	}
	for k := range got {
		if got[k] != m.want[off+int64(k)] {
			m.t.Fatalf("read of %d at %d: byte %d is %#x, want %#x", n, off, k, got[k], m.want[off+int64(k)])
		}
	}
}

// finish closes the image and checks what is in its file.
func (m *model) finish(f *memFile, base disk.Image) {
	m.t.Helper()
	m.compare(0, m.img.Size())
	if err := m.img.Close(); err != nil {
		m.t.Fatal(err)
	}
	mustBeClean(m.t, f.data, false)
	again, err := open(f.reopened(), base, true)
	if err != nil {
		m.t.Fatal(err)
	}
	if !bytes.Equal(readAll(m.t, again), m.want) {
		m.t.Fatal("reopened image differs")
	}
}

func TestRandomOperations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		bits       uint
		size, base int64 // in clusters; -1: no base
		steps      int
	}{
		{9, 3000, -1, 4000},
		{9, 3000, 1000, 4000},
		{12, 400, -1, 2000},
		{12, 400, 700, 2000},
		{16, 60, -1, 600},
		{16, 60, 33, 600},
		{21, 3, 2, 60},
	} {
		t.Run(fmt.Sprintf("%d bits, base %d", tt.bits, tt.base), func(t *testing.T) {
			t.Parallel()
			o := Options{Size: tt.size<<tt.bits - 3*sectorSize, ClusterBits: tt.bits}
			var data plain
			var base disk.Image
			if tt.base >= 0 {
				o.BackingName, o.BackingFormat = "base", "raw"
				data = plain(random(rand.New(rand.NewPCG(7, 7)), tt.base<<tt.bits+sectorSize))
				base = data
			}
			f := newImageFile(t, o)
			f.solid = tt.bits == 12
			m := newModel(t, uint64(tt.bits), mustOpen(t, f, base), data)
			for range tt.steps {
				m.step()
			}
			m.finish(f, base)
		})
	}
}
