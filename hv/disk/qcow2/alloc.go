package qcow2

import "slices"

const (
	maxFreed = 512
	// maxGone is how many pieces may be given up and not free before writers
	// wait for them to become free.
	maxGone = 4096
	// manyForgotten is how many clusters are worth searching the file for.
	manyForgotten = 4096
)

// ready makes room for changes of metadata, by writing what was changed if that
// is much.
func (i *Image) ready() error {
	if i.broken != nil {
		return i.broken
	}
	if i.l2.written >= maxDirty || len(i.newL2) >= maxNewL2 {
		return i.commit()
	}
	return nil
}

// makeRoom frees what was given up if that is much. The caller holds no lock.
func (i *Image) makeRoom() error {
	if !i.crowded.Load() {
		return nil
	}
	i.busy.Lock()
	defer i.busy.Unlock()
	i.alloc.Lock()
	err := i.commit()
	i.alloc.Unlock()
	if err != nil {
		return err
	}
	return i.reclaim()
}

// giveUp notes clusters that the tables do not refer to any more.
func (i *Image) giveUp(e extent) {
	i.pending = appendExtent(i.pending, e)
	if len(i.pending)+len(i.unlinked) >= maxGone {
		i.crowded.Store(true)
	}
}

// appendExtent adds e to list, to the last of it if it follows that.
func appendExtent(list []extent, e extent) []extent {
	if n := len(list); n > 0 && list[n-1].off+list[n-1].n == e.off {
		list[n-1].n += e.n
		return list
	}
	return append(list, e)
}

// reclaim frees what nothing refers to. The caller holds busy alone, so nobody
// still reads or writes there.
func (i *Image) reclaim() error {
	i.alloc.Lock()
	defer i.alloc.Unlock()
	var first error
	for _, e := range i.unlinked {
		// What a damaged image does not count stays away for good.
		if err := i.free(e); err != nil && first == nil {
			first = err
		}
	}
	i.unlinked = i.unlinked[:0]
	i.crowded.Store(len(i.pending) >= maxGone)
	return first
}

// free counts down the clusters of e, to which the file does not refer.
func (i *Image) free(e extent) error {
	for off := e.off; off < e.off+e.n; off += i.cluster() {
		last, err := i.countDown(off >> i.clusterBits)
		if err != nil {
			return err
		}
		if last {
			i.nowFree(extent{off, i.cluster()})
		}
	}
	i.punchFreed()
	return nil
}

// nowFree remembers clusters that became free.
func (i *Image) nowFree(e extent) {
	r := &i.refs
	if r.punch = appendExtent(r.punch, e); len(r.punch) >= maxFreed {
		i.punchFreed()
	}
	if n := len(r.freed); n < maxFreed || r.freed[n-1].off+r.freed[n-1].n == e.off {
		r.freed = appendExtent(r.freed, e)
		return
	}
	if r.forgotten == 0 || e.off < r.lowest {
		r.lowest = e.off
	}
	r.forgotten += e.n >> i.clusterBits
}

// punchFreed gives the room of clusters that became free back to the host.
func (i *Image) punchFreed() {
	for _, e := range i.refs.punch {
		i.file.Punch(e.off, e.n)
	}
	i.refs.punch = i.refs.punch[:0]
}

// giveBack frees clusters that were allocated and not used after all.
func (i *Image) giveBack(host, n int64) {
	if n == 0 {
		return
	}
	// If that fails, they stay counted: a leak.
	_ = i.free(extent{host, n << i.clusterBits})
}

// allocate takes up to n clusters that follow each other, and counts them. They
// are clean if nothing was ever written there.
func (i *Image) allocate(n int64) (host, got int64, clean bool, err error) {
	if got, host, err = i.allocateFreed(n); got > 0 || err != nil {
		return host, got, false, err
	}
	if got, host, err = i.allocateFound(n); got > 0 || err != nil {
		return host, got, false, err
	}
	got, host, err = i.allocateEnd(n)
	return host, got, true, err
}

// allocateFreed takes clusters that became free lately.
func (i *Image) allocateFreed(n int64) (got, host int64, err error) {
	r := &i.refs
	for len(r.freed) > 0 {
		e := &r.freed[len(r.freed)-1]
		host = e.off
		if got, err = i.claim(e.off>>i.clusterBits, min(n, e.n>>i.clusterBits)); err != nil {
			return 0, 0, err
		}
		skip := max(got, 1) << i.clusterBits // one that is not free was found by scan
		if e.off, e.n = e.off+skip, e.n-skip; e.n == 0 {
			r.freed = r.freed[:len(r.freed)-1]
		}
		if got > 0 {
			return got, host, nil
		}
	}
	return 0, 0, nil
}

// allocateFound searches the file for clusters that an earlier user left free.
// Each part is searched once, and again when much was freed since.
func (i *Image) allocateFound(n int64) (got, host int64, err error) {
	r := &i.refs
	end := i.end.Load() >> i.clusterBits
	if r.scan >= end && r.forgotten >= manyForgotten {
		r.scan, r.forgotten = r.lowest>>i.clusterBits, 0
	}
	for r.scan < end {
		if !i.hasBlock(r.scan) {
			r.scan = (r.scan>>i.blockBits() + 1) << i.blockBits()
			continue
		}
		skip, err := i.firstFree(r.scan)
		if err != nil {
			return 0, 0, err
		}
		if r.scan += skip; r.scan >= end || skip > 0 && r.scan&(i.sliceCounts()-1) == 0 {
			continue // into the next slice
		}
		got, err := i.claim(r.scan, min(n, end-r.scan))
		if err != nil {
			return 0, 0, err
		}
		host = r.scan << i.clusterBits
		r.scan += max(got, 1) // a table that nobody counts is not free
		if got > 0 {
			return got, host, nil
		}
	}
	return 0, 0, nil
}

// firstFree is how far it is from cluster to the next free one or to the end of
// its slice.
func (i *Image) firstFree(cluster int64) (int64, error) {
	k, index, err := i.counts(cluster)
	if err != nil {
		return 0, err
	}
	data, n := i.refs.cache.slots[k].data, i.sliceCounts()-index
	skip := int64(0)
	for skip < n && getCount(data, index+skip, i.refOrder) != 0 {
		skip++
	}
	return skip, nil
}

// allocateEnd makes the file longer.
func (i *Image) allocateEnd(n int64) (got, host int64, err error) {
	for {
		host = i.end.Load()
		cluster := host >> i.clusterBits
		if host > maxFile-2*maxRefTable {
			return 0, 0, ErrFull
		}
		if !i.hasBlock(cluster) {
			if err := i.addBlock(cluster); err != nil {
				return 0, 0, err
			}
			if err := i.countNewBlock(cluster); err != nil {
				return 0, 0, err
			}
			continue
		}
		if got, err = i.claim(cluster, n); err != nil {
			return 0, 0, err
		}
		i.end.Add(max(got, 1) << i.clusterBits)
		i.refs.scan = max(i.refs.scan, i.end.Load()>>i.clusterBits)
		if got > 0 {
			return got, host, nil
		}
	}
}

// countNewBlock counts the block that addBlock put at cluster, unless it made a
// new table, which counts what it brings.
func (i *Image) countNewBlock(cluster int64) error {
	v, err := i.count(cluster)
	if err == nil && v == 0 {
		err = i.setCount(cluster, 1)
	}
	return err
}

// claim counts up to n free clusters from cluster on, as far as they follow
// each other in one slice, and returns how many.
func (i *Image) claim(cluster, n int64) (int64, error) {
	if !i.hasBlock(cluster) {
		return 0, nil
	}
	k, index, err := i.counts(cluster)
	if err != nil {
		return 0, err
	}
	s := &i.refs.cache.slots[k]
	got := int64(0)
	i.mu.Lock()
	for got < min(n, i.sliceCounts()-index) && getCount(s.data, index+got, i.refOrder) == 0 &&
		!i.meta.holds((cluster+got)<<i.clusterBits, i.cluster(), i.cluster()) {
		setCount(s.data, index+got, i.refOrder, 1)
		got++
	}
	i.mu.Unlock()
	if got > 0 {
		i.refs.cache.mark(k)
	}
	return got, nil
}

// ownTable sees to it that the L2 table for entry k of the L1 table exists and
// belongs to the disk alone.
func (i *Image) ownTable(s *scratch, k int) error {
	old := i.l1[k]
	if old&flagCopied != 0 && old&offsetMask != 0 {
		return nil
	}
	host, n, _, err := i.allocate(1)
	if err != nil {
		return err
	}
	if err := i.fillTable(s, host, int64(old&offsetMask)); err != nil {
		i.giveBack(host, n)
		return err
	}
	i.unsynced = true
	i.mu.Lock()
	i.l1[k] = uint64(host) | flagCopied
	i.meta.add(host)
	if off := int64(old & offsetMask); off != 0 {
		i.meta.remove(off)
		i.l2.drop(off, i.cluster())
		i.giveUp(extent{off, i.cluster()})
	}
	i.mu.Unlock()
	if !slices.Contains(i.newL2, k) {
		i.newL2 = append(i.newL2, k)
	}
	return nil
}

// fillTable makes the L2 table at host a copy of that at old, which is as in
// the file, or an empty one if old is 0.
func (i *Image) fillTable(s *scratch, host, old int64) error {
	if old == 0 {
		return i.writeZeros(host, i.cluster())
	}
	for done := int64(0); done < i.cluster(); {
		b := s.buffer()[:min(chunk, i.cluster()-done)]
		if err := i.file.ReadFull(b, old+done); err != nil {
			return err
		}
		if err := i.file.WriteFull(b, host+done); err != nil {
			return err
		}
		done += int64(len(b))
	}
	return nil
}
