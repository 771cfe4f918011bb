package qcow2

import (
	"fmt"
	"io"
	"math"
	"os"
)

// maxCensus is how many clusters a file may have for its refcounts to be
// checked or rebuilt: 2 TiB at 64 KiB, which takes 64 MiB of memory.
const maxCensus = 1 << 25

// maxProblems is how many problems a Report spells out.
const maxProblems = 20

// Report is what Check found.
type Report struct {
	Clusters    int64 // of the file
	Corruptions int64 // contradictions: data is or can get lost
	Leaks       int64 // clusters that are counted more than used
	Problems    []string
}

func (r *Report) corrupt(format string, args ...any) {
	r.Corruptions++
	r.note(format, args...)
}

func (r *Report) note(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Check looks through all metadata of the image in f, which nobody may be
// writing to. It is an error if the image cannot be checked at all.
func Check(f *os.File) (Report, error) {
	o, err := newOSFile(f)
	if err != nil {
		return Report{}, err
	}
	return check(readerAt{o}, o.size)
}

func check(f io.ReaderAt, size int64) (Report, error) {
	c, err := takeCensus(f, size)
	if err != nil {
		return Report{}, err
	}
	if err := c.compareFlags(); err != nil {
		return Report{}, err
	}
	return c.report, c.compareCounts()
}

// census counts how often each cluster of an image is used.
type census struct {
	Header
	f      io.ReaderAt
	size   int64
	used   []uint16 // for each cluster; the largest value means that or more
	seen   []uint64 // bit for each cluster: an L2 table of the current L1 table
	report Report
}

func takeCensus(f io.ReaderAt, size int64) (*census, error) {
	h, err := Info(f, size)
	if err != nil {
		return nil, err
	}
	c := &census{Header: h, f: f, size: size}
	c.report.Clusters = c.alignUp(size) >> c.clusterBits
	if c.report.Clusters > maxCensus {
		return nil, unsupported("checking %d clusters", c.report.Clusters)
	}
	c.used = make([]uint16, c.report.Clusters)
	c.seen = make([]uint64, (c.report.Clusters+63)/64)
	c.use(extent{0, c.cluster()}, "header")
	c.use(c.refTable, "refcount table")
	if err := c.useBlocks(); err != nil {
		return nil, err
	}
	if err := c.useL1(c.l1); err != nil {
		return nil, err
	}
	table, l1s, err := readSnapshots(f, &h, size)
	if err != nil {
		return nil, err
	}
	c.use(table, "snapshot table")
	for _, l1 := range l1s {
		if err := c.useL1(l1); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// use counts the clusters that e touches once each.
func (c *census) use(e extent, what string) {
	if e.n == 0 {
		return
	}
	if e.off < 0 || e.off+e.n > c.alignUp(c.size) {
		c.report.corrupt("%s at offset %#x lies outside the file", what, e.off)
		return
	}
	for k := e.off >> c.clusterBits; k <= (e.off+e.n-1)>>c.clusterBits; k++ {
		if c.used[k] < math.MaxUint16 {
			c.used[k]++
		}
	}
}

// valid reports whether a cluster other than the header's can be at off.
func (c *census) valid(off int64, what string) bool {
	if off&(c.cluster()-1) == 0 && off >= c.cluster() && off < c.size {
		return true
	}
	c.report.corrupt("%s at offset %#x", what, off)
	return false
}

// read reads n bytes of a table, zeros where the file has ended.
func (c *census) read(p []byte, off int64) error {
	n, err := c.f.ReadAt(p, off)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read table at offset %#x: %w", off, err)
	}
	clear(p[n:])
	return nil
}

func (c *census) useBlocks() error {
	raw := make([]byte, c.refTable.n)
	if err := c.read(raw, c.refTable.off); err != nil {
		return err
	}
	for k := 0; k < len(raw); k += 8 {
		if off := int64(be.Uint64(raw[k:]) & offsetMask); off != 0 && c.valid(off, "refcount block") {
			c.use(extent{off, c.cluster()}, "refcount block")
		}
	}
	return nil
}

// tables calls f with each L2 table of the L1 table at l1.
func (c *census) tables(l1 extent, f func(entry uint64, table []byte)) error {
	raw := make([]byte, l1.n)
	if err := c.read(raw, l1.off); err != nil {
		return err
	}
	clear(c.seen)
	table := make([]byte, c.cluster())
	for k := 0; k < len(raw); k += 8 {
		entry := be.Uint64(raw[k:])
		off := int64(entry & offsetMask)
		if off == 0 || !c.valid(off, "L2 table") {
			continue
		}
		n := off >> c.clusterBits
		if c.seen[n/64]&(1<<(n%64)) != 0 {
			c.report.corrupt("L2 table at offset %#x is used twice", off)
			continue
		}
		c.seen[n/64] |= 1 << (n % 64)
		if err := c.read(table, off); err != nil {
			return err
		}
		f(entry, table)
	}
	return nil
}

// useL1 counts an L1 table and all below it.
func (c *census) useL1(l1 extent) error {
	c.use(l1, "L1 table")
	return c.tables(l1, func(entry uint64, table []byte) {
		c.use(extent{int64(entry & offsetMask), c.cluster()}, "L2 table")
		for k := 0; k < len(table); k += 8 {
			c.useEntry(be.Uint64(table[k:]))
		}
	})
}

func (c *census) useEntry(entry uint64) {
	if entry&flagCompressed != 0 {
		off, n := c.packed(entry)
		if off >= c.cluster() && off < c.size {
			n = min(n, c.alignUp(c.size)-off) // the last sector need not be there
		}
		c.use(extent{off, n}, "compressed cluster")
		if entry&flagCopied != 0 {
			c.report.corrupt("compressed cluster at offset %#x is marked as copied", off)
		}
		return
	}
	if entry&flagZero != 0 && c.Version < 3 {
		c.report.corrupt("zero cluster in version 2")
	}
	if off := int64(entry & offsetMask); off != 0 && c.valid(off, "cluster") {
		c.use(extent{off, c.cluster()}, "cluster")
	}
}

// compareFlags checks that entries of the disk are marked as copied just if
// their cluster is used once.
func (c *census) compareFlags() error {
	one := func(entry uint64, what string) {
		k := int64(entry&offsetMask) >> c.clusterBits
		if k == 0 || k >= int64(len(c.used)) || entry&flagCompressed != 0 {
			return
		}
		if copied := entry&flagCopied != 0; copied != (c.used[k] == 1) {
			c.report.corrupt("%s at offset %#x: copied %v, used %d times", what, k<<c.clusterBits, copied, c.used[k])
		}
	}
	return c.tables(c.l1, func(entry uint64, table []byte) {
		one(entry, "L2 table")
		for k := 0; k < len(table); k += 8 {
			one(be.Uint64(table[k:]), "cluster")
		}
	})
}

// compareCounts checks the refcounts against the census.
func (c *census) compareCounts() error {
	raw, block := make([]byte, c.refTable.n), make([]byte, c.cluster())
	if err := c.read(raw, c.refTable.off); err != nil {
		return err
	}
	per := int64(1) << c.blockBits()
	for first := int64(0); first < int64(len(c.used)); first += per {
		clear(block)
		if k := first / per * 8; k < int64(len(raw)) {
			off := int64(be.Uint64(raw[k:]) & offsetMask)
			if off >= c.cluster() && off < c.size {
				if err := c.read(block, off); err != nil {
					return err
				}
			}
		}
		for n := range min(per, int64(len(c.used))-first) {
			c.compare(first+n, getCount(block, n, c.refOrder))
		}
	}
	return nil
}

func (c *census) compare(cluster int64, counted uint64) {
	used := uint64(c.used[cluster])
	switch {
	case counted < used && !c.Dirty:
		c.report.corrupt("cluster at offset %#x: counted %d, used %d times", cluster<<c.clusterBits, counted, used)
	case counted > used && used < math.MaxUint16:
		c.report.Leaks++
		c.report.note("cluster at offset %#x: counted %d, used %d times", cluster<<c.clusterBits, counted, used)
	}
}
