package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"vmd/hv/disk"
)

// crew is writers that work on one image at the same time, each in a part of the
// disk of its own. Each sector says which write of its writer it is of.
type crew struct {
	img  *Image
	file *memFile
	part int64 // bytes for each writer

	mu      sync.Mutex
	latest  [][]uint64 // by writer and sector: its last write that was answered
	flushed []flushed
}

// flushed is what is certain once the journal has a number of records.
type flushed struct {
	records int
	least   []uint64 // by sector: the write that it was of when the flush began
}

// stamp makes b, sectors from first on, those of a write.
func stamp(b []byte, first int64, version uint64) {
	for k := 0; k < len(b); k += 8 {
		be.PutUint64(b[k:], (uint64(first)+uint64(k/sectorSize))<<32|version)
	}
}

// version is the write that a sector is of.
func version(b []byte, sector int64) (v uint64, ok bool) {
	first := be.Uint64(b)
	for k := 0; k < len(b); k += 8 {
		if be.Uint64(b[k:]) != first {
			return 0, false
		}
	}
	return first & (1<<32 - 1), first == 0 || first>>32 == uint64(sector)
}

// work writes n times to part w.
func (c *crew) work(w int, r *rand.Rand, n int) error {
	from := int64(w) * c.part
	for v := uint64(1); v <= uint64(n); v++ {
		off := r.Int64N(c.part/sectorSize) * sectorSize
		b := make([]byte, min(c.part-off, (1+r.Int64N(3*c.img.cluster()/sectorSize))*sectorSize))
		stamp(b, (from+off)/sectorSize, v)
		if err := c.img.WriteAtV([][]byte{b}, from+off); err != nil {
			return err
		}
		c.mu.Lock()
		for s := off / sectorSize; s < (off+int64(len(b)))/sectorSize; s++ {
			c.latest[w][s] = v
		}
		c.mu.Unlock()
		if r.IntN(6) == 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// mess discards and zeroes in part w, whose contents nobody looks at: clusters
// come and go.
func (c *crew) mess(w int, r *rand.Rand, n int) error {
	from := int64(w) * c.part
	for range n {
		off := r.Int64N(c.part/sectorSize) * sectorSize
		k := min(c.part-off, 4*c.img.cluster())
		err := c.img.WriteAtV([][]byte{make([]byte, k)}, from+off)
		if err == nil && r.IntN(2) == 0 {
			err = c.img.Discard(from, c.part)
		} else if err == nil {
			err = c.img.WriteZeroes(from+off, k, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *crew) flush() error {
	c.mu.Lock()
	least := slices.Concat(c.latest...)
	c.mu.Unlock()
	if err := c.img.Flush(); err != nil {
		return err
	}
	c.file.mu.Lock()
	n := len(c.file.journal)
	c.file.mu.Unlock()
	c.mu.Lock()
	c.flushed = append(c.flushed, flushed{n, least})
	c.mu.Unlock()
	return nil
}

// run has writers and one that makes a mess at work until all are done.
func (c *crew) run(t *testing.T, seed uint64, writers, writes int) {
	for range writers {
		c.latest = append(c.latest, make([]uint64, c.part/sectorSize))
	}
	errs := make(chan error, writers+1)
	for w := range writers {
		go func() { errs <- c.work(w, rand.New(rand.NewPCG(seed, uint64(w))), writes) }()
	}
	go func() { errs <- c.mess(writers, rand.New(rand.NewPCG(seed, 99)), writes) }()
	for range writers + 1 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

// verify checks what a crash after n records left.
func (c *crew) verify(t *testing.T, data []byte, n int, base disk.Image) {
	t.Helper()
	what := fmt.Sprintf("crash after %d of %d records", n, len(c.file.journal))
	rep, err := check(bytes.NewReader(data), int64(len(data)))
	if err != nil || rep.Corruptions > 0 {
		t.Fatalf("%s: %v, %d corruptions: %q", what, err, rep.Corruptions, rep.Problems)
	}
	img, err := open(newMem(data), base, true)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	var least []uint64
	for _, f := range c.flushed {
		if f.records > n {
			continue
		}
		// Flushes overlap: each has its own word of what is certain.
		if least == nil {
			least = slices.Clone(f.least)
		}
		for k, v := range f.least {
			least[k] = max(least[k], v)
		}
	}
	got := readAll(t, img)
	for k := range least {
		v, ok := version(got[k*sectorSize:(k+1)*sectorSize], int64(k))
		if !ok || v < least[k] {
			t.Fatalf("%s: sector %d is of write %d, whole: %v; write %d was flushed", what, k, v, ok, least[k])
		}
	}
}

// Requests of several queues, or of one on slow storage, are on their way when
// the host or the process dies.
func TestCrashWithManyWriters(t *testing.T) {
	t.Parallel()
	const writers = 4
	for _, tt := range []struct {
		bits  uint
		part  int64 // clusters
		based bool
	}{{9, 60, false}, {9, 60, true}, {12, 8, false}, {12, 8, true}} {
		t.Run(fmt.Sprintf("%d bits, base: %v", tt.bits, tt.based), func(t *testing.T) {
			t.Parallel()
			part := tt.part << tt.bits
			o := Options{Size: (writers + 1) * part, ClusterBits: tt.bits}
			var base disk.Image
			if tt.based {
				o.BackingName, o.BackingFormat = "base", "raw"
				base = make(plain, o.Size)
			}
			f := newImageFile(t, o)
			run := &crashRun{start: bytes.Clone(f.data), file: f}
			f.keep, f.solid = true, tt.bits == 12
			c := &crew{img: mustOpen(t, f, base), file: f, part: part}
			c.run(t, uint64(tt.part), writers, 60)
			must(t, c.img.Close())
			r := rand.New(rand.NewPCG(5, 5))
			for n := 0; n <= len(f.journal); n += 1 + r.IntN(3) {
				c.verify(t, run.crash(r, n, n%2 == 0), n, base)
			}
		})
	}
}
