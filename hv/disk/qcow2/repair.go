package qcow2

import (
	"fmt"
	"math"
)

// rebuild counts all clusters anew. An image marked as dirty was last written
// by somebody who put that off and did not get to it (lazy refcounts). Until
// the mark is taken away nobody relies on counts, so their order is free.
func (i *Image) rebuild() error {
	c, err := takeCensus(readerAt{i.file}, i.file.Size())
	if err != nil {
		return err
	}
	if err := c.trust(); err != nil {
		return err
	}
	for k := int64(0); k < i.end.Load()>>i.clusterBits; {
		done, err := i.recount(c, k)
		if err != nil {
			return err
		}
		if done {
			k++
		}
	}
	if err := i.commitCounts(); err != nil {
		return err
	}
	return i.syncOrBreak()
}

// trust says whether the tables are good enough to count by. Two users of a
// cluster that each may write to it are beyond repair.
func (c *census) trust() error {
	if c.report.Corruptions == 0 {
		if err := c.compareFlags(); err != nil {
			return err
		}
	}
	if c.report.Corruptions > 0 {
		return fmt.Errorf("%w: %d contradictions, first: %s", ErrCorrupt, c.report.Corruptions, c.report.Problems[0])
	}
	return nil
}

// recount sets the count of cluster k. It returns false if there was no place
// for it and it has made one.
func (i *Image) recount(c *census, k int64) (bool, error) {
	want := uint64(1) // blocks and tables that we add
	if k < int64(len(c.used)) {
		want = uint64(c.used[k])
	}
	switch {
	case want > i.maxCount() || want == math.MaxUint16:
		return false, unsupported("cluster at offset %#x is used %d times", k<<i.clusterBits, want)
	case !i.hasBlock(k) && want == 0:
		return true, nil
	case !i.hasBlock(k):
		old := i.header.refTable
		err := i.addBlock(k)
		if err == nil && i.header.refTable != old {
			err = i.forget(c, old)
		}
		return false, err
	}
	have, err := i.count(k)
	if err == nil && have != want {
		err = i.setCount(k, want)
	}
	return true, err
}

// forget counts the clusters of a table that was replaced as free.
func (i *Image) forget(c *census, e extent) error {
	for off := e.off; off < e.off+e.n; off += i.cluster() {
		k := off >> i.clusterBits
		if k < int64(len(c.used)) {
			c.used[k] = 0
		}
		if !i.hasBlock(k) {
			continue
		}
		if err := i.setCount(k, 0); err != nil {
			return err
		}
	}
	return nil
}
