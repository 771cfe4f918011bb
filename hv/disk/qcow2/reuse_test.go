package qcow2

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"vmd/hv/disk"
)

func mustWrite(t testing.TB, i disk.Image, b []byte, off int64) {
	t.Helper()
	if err := i.WriteAtV([][]byte{b}, off); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A disk that is filled and discarded over and over does not make the file
// longer, and tables in used clusters begin empty.
func TestFreedClustersAreUsedAgain(t *testing.T) {
	t.Parallel()
	const bits, part = 12, 512 << 12 // what an L2 table maps
	f := newImageFile(t, Options{Size: 8 * part, ClusterBits: bits})
	f.solid = true
	i := mustOpen(t, f, nil)
	b := random(rand.New(rand.NewPCG(1, 1)), part)
	length := 0
	for k := range int64(8) {
		mustWrite(t, i, b, k*part)
		must(t, i.Flush())
		if k == 0 {
			length = len(f.data)
		} else if got := readAll(t, i); !bytes.Equal(got[k*part:(k+1)*part], b) || !allZero(got[:k*part]) || !allZero(got[(k+1)*part:]) {
			t.Fatalf("round %d: disk differs", k)
		}
		must(t, i.Discard(k*part, part))
		must(t, i.Flush())
		mustWrite(t, i, b[:512], (k+3)%8*part+1<<20) // a table in a used cluster
		must(t, i.Discard(0, 8*part))
		must(t, i.Flush())
	}
	if len(f.data) > length+8<<bits {
		t.Errorf("file of %d bytes grew to %d", length, len(f.data))
	}
	must(t, i.Close())
	mustBeClean(t, f.data, false)
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// What an earlier process freed is found, too.
func TestFreeClustersAreFoundAfterOpening(t *testing.T) {
	t.Parallel()
	f := newImageFile(t, Options{Size: 4 << 20, ClusterBits: 12})
	i := mustOpen(t, f, nil)
	b := random(rand.New(rand.NewPCG(1, 1)), 2<<20)
	mustWrite(t, i, b, 0)
	must(t, i.Discard(0, 1<<20))
	must(t, i.Close())
	length := len(f.data)
	i = mustOpen(t, f.reopened(), nil)
	g := i.file.(*memFile)
	mustWrite(t, i, b[:1<<20], 3<<20)
	must(t, i.Close())
	if len(g.data) > length+1<<12 { // an L2 table may be new
		t.Errorf("file of %d bytes grew to %d", length, len(g.data))
	}
	mustBeClean(t, g.data, false)
}

// More is discarded at once than is remembered.
func TestManyPiecesAreDiscarded(t *testing.T) {
	t.Parallel()
	const clusters = 20000
	f := newImageFile(t, Options{Size: clusters << 9, ClusterBits: 9})
	i := mustOpen(t, f, nil)
	// Neighbours on the disk are not neighbours in the file.
	b := random(rand.New(rand.NewPCG(1, 1)), 512)
	for k := int64(0); k < clusters; k += 2 {
		mustWrite(t, i, b, k<<9)
	}
	for k := int64(1); k < clusters; k += 2 {
		mustWrite(t, i, b, k<<9)
	}
	length := len(f.data)
	must(t, i.Discard(0, clusters<<9))
	must(t, i.Flush())
	for k := int64(0); k < clusters; k++ {
		mustWrite(t, i, b, k<<9)
	}
	if len(f.data) > length {
		t.Errorf("file of %d bytes grew to %d", length, len(f.data))
	}
	must(t, i.Close())
	mustBeClean(t, f.data, false)
}

// An error of the file is an error of the request, and the image stays sound.
func TestErrorsOfTheFile(t *testing.T) {
	t.Parallel()
	for _, bits := range []uint{9, 12, 16} {
		f := newImageFile(t, Options{Size: 300 << bits, ClusterBits: bits})
		m := newModel(t, uint64(bits), mustOpen(t, f, nil), nil)
		f.limit = int64(len(f.data)) + 60<<bits
		b := random(m.r, 3<<bits)
		failed := 0
		for k := range int64(90) {
			off := k * 3 << bits
			switch err := m.img.WriteAtV([][]byte{b}, off); {
			case err == nil:
				copy(m.want[off:], b)
			case !errors.Is(err, errNoSpace):
				t.Fatal(err)
			default:
				failed++
				must(t, m.img.ReadAtV([][]byte{m.want[off : off+3<<bits]}, off))
			}
		}
		if failed == 0 || failed == 90 {
			t.Errorf("%d of 90 writes failed", failed)
		}
		must(t, m.img.Flush())
		f.limit = 0
		for range 300 {
			m.step()
		}
		m.finish(f, nil)
	}
}

// After a sync that failed nothing is promised any more.
func TestFailedSyncIsForGood(t *testing.T) {
	t.Parallel()
	for _, allocate := range []bool{false, true} {
		f := newImageFile(t, Options{Size: 1 << 20})
		i := mustOpen(t, f, nil)
		b := make([]byte, 512)
		mustWrite(t, i, b, 0)
		must(t, i.Flush())
		if allocate {
			mustWrite(t, i, b, 1<<19)
		}
		bad := errors.New("bad disk")
		f.fail = func(op string) error {
			if op == "sync" {
				return bad
			}
			return nil
		}
		if err := i.Flush(); !errors.Is(err, bad) {
			t.Errorf("Flush: %v", err)
		}
		f.fail = nil
		if err := i.Flush(); !errors.Is(err, bad) {
			t.Errorf("second Flush: %v", err)
		}
		if err := i.Close(); !errors.Is(err, bad) {
			t.Errorf("Close: %v", err)
		}
	}
}

// Several queues use a disk at once; each keeps to its own sectors, which share
// clusters with others'. The race detector watches.
func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	const queues, bits = 6, 12
	data := random(rand.New(rand.NewPCG(5, 5)), 100<<bits)
	f := newImageFile(t, Options{Size: 200 << bits, ClusterBits: bits, BackingName: "b"})
	i := mustOpen(t, f, plain(data))
	want := make(plain, i.Size())
	copy(want, data)
	var all sync.WaitGroup
	for q := range int64(queues) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(q), 6))
			got := make([]byte, sectorSize)
			for range 1500 {
				off := (r.Int64N(i.Size()/sectorSize/queues)*queues + q) * sectorSize
				mine := want[off : off+sectorSize]
				var err error
				switch r.IntN(8) {
				case 0:
					err = i.Flush()
				case 1:
					clear(mine)
					err = i.WriteZeroes(off, sectorSize, true)
				case 2, 3, 4:
					copy(mine, random(r, sectorSize))
					err = i.WriteAtV([][]byte{mine}, off)
				default:
					if err = i.ReadAtV([][]byte{got}, off); !bytes.Equal(got, mine) {
						t.Errorf("queue %d: sector at %d differs", q, off)
						return
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if !bytes.Equal(readAll(t, i), want) {
		t.Error("disk differs")
	}
	must(t, i.Close())
	mustBeClean(t, f.data, false)
}

// Discards and writes of the same clusters at once: what is read is open, but
// never another's data or a table, and the image stays sound.
func TestConcurrentDiscards(t *testing.T) {
	t.Parallel()
	const bits = 9
	f := newImageFile(t, Options{Size: 300 << bits, ClusterBits: bits})
	i := mustOpen(t, f, nil)
	var all sync.WaitGroup
	for q := range uint64(4) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(q, 6))
			b := make([]byte, sectorSize)
			for range 3000 {
				sector := r.Int64N(i.Size() / sectorSize)
				off := sector * sectorSize
				var err error
				switch r.IntN(6) {
				case 0:
					err = i.Discard(off, sectorSize)
				case 1:
					err = i.WriteZeroes(off, sectorSize, r.IntN(2) == 0)
				case 2:
					err = i.Flush()
				case 3:
					err = i.ReadAtV([][]byte{b}, off)
					if got := be.Uint64(b); got != 0 && got != uint64(sector)|1<<40 {
						t.Errorf("sector %d has %#x", sector, got)
						return
					}
				default:
					for k := 0; k < len(b); k += 8 {
						be.PutUint64(b[k:], uint64(sector)|1<<40)
					}
					err = i.WriteAtV([][]byte{b}, off)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	must(t, i.Close())
	mustBeClean(t, f.data, false)
}

// A request for what is mapped costs no allocation, in one piece or in more.
func TestNoAllocationPerRequest(t *testing.T) {
	f := newImageFile(t, Options{Size: 64 << 16})
	i := mustOpen(t, f, nil)
	must(t, i.file.(*memFile).fill(i))
	one, two := [][]byte{make([]byte, 4096)}, [][]byte{make([]byte, 3<<16), make([]byte, 1<<16)}
	for name, do := range map[string]func() error{
		"read":              func() error { return i.ReadAtV(one, 8192) },
		"write":             func() error { return i.WriteAtV(one, 8192) },
		"read in pieces":    func() error { return i.ReadAtV(two, 3<<15) },
		"write in pieces":   func() error { return i.WriteAtV(two, 3<<15) },
		"flush":             i.Flush,
		"read of nothing":   func() error { return i.ReadAtV(one, 63<<16) },
		"zero what is zero": func() error { return i.WriteZeroes(63<<16, 4096, true) },
	} {
		must(t, do())
		if n := testing.AllocsPerRun(100, func() {
			if err := do(); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// fill writes every other cluster first, so that neighbours are apart.
func (m *memFile) fill(i *Image) error {
	b := make([]byte, 1<<16)
	for _, first := range []int64{0, 1} {
		for k := first; k < 32; k += 2 {
			if err := i.WriteAtV([][]byte{b}, k<<16); err != nil {
				return err
			}
		}
	}
	return i.Flush()
}
