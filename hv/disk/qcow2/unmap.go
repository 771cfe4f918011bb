package qcow2

import "fmt"

// removal is a way to take clusters from the disk.
type removal uint8

const (
	discard removal = iota // what they read as is open
	unmap                  // they read as zeros and need no room
	keep                   // they read as zeros, their room is for later writes
)

// Discard implements disk.Image. Clusters that lie in the range as a whole read
// as zeros afterwards or, under a version 2 image, as they did before.
func (i *Image) Discard(off, n int64) error {
	if err := i.change(off, n); err != nil {
		return err
	}
	first, end := i.inner(off, n)
	if err := i.remove(first, end, discard); err != nil {
		return fmt.Errorf("discard disk at %#x: %w", off, err)
	}
	return nil
}

// inner returns the first of the whole clusters in a range and the one after
// the last. The end of the disk is the end of a cluster.
func (i *Image) inner(off, n int64) (first, end int64) {
	first, end = off>>i.clusterBits, (off+n)>>i.clusterBits
	if off&(i.cluster()-1) != 0 {
		first++
	}
	if off+n == i.size && (off+n)&(i.cluster()-1) != 0 {
		end++
	}
	return first, max(first, end)
}

// WriteZeroes implements disk.Image.
func (i *Image) WriteZeroes(off, n int64, allowUnmap bool) error {
	if err := i.change(off, n); err != nil {
		return err
	}
	how := keep
	if allowUnmap {
		how = unmap
	}
	if err := i.writeZeroes(off, n, how); err != nil {
		return fmt.Errorf("zero disk at %#x: %w", off, err)
	}
	return nil
}

func (i *Image) writeZeroes(off, n int64, how removal) error {
	first, end := i.inner(off, n)
	// Version 2 has no zero clusters: no entry means zeros only without a base.
	if i.header.Version < 3 && (i.base != nil || how == keep) {
		first = end
	}
	if first == end {
		return i.zeroBytes(off, n)
	}
	start, stop := first<<i.clusterBits, min(end<<i.clusterBits, off+n)
	if err := i.zeroBytes(off, start-off); err != nil {
		return err
	}
	if err := i.remove(first, end, how); err != nil {
		return err
	}
	return i.zeroBytes(stop, off+n-stop)
}

// zeroBytes writes zeros where there are none yet.
func (i *Image) zeroBytes(off, n int64) error {
	s := i.pool.get()
	defer i.pool.put(s)
	for n > 0 {
		r, err := i.lookup(off, n)
		if err != nil {
			return err
		}
		if !i.empty(&r.mapping, off) {
			r.n = min(r.n, chunk)
			s.reset([][]byte{zeroes[:r.n]})
			if err := i.writePieces(s, off, r.n); err != nil {
				return err
			}
		}
		off, n = off+r.n, n-r.n
	}
	return nil
}

// remove takes the clusters from first on and before end.
func (i *Image) remove(first, end int64, how removal) error {
	if first >= end {
		return nil
	}
	s := i.pool.get()
	defer i.pool.put(s)
	for first < end {
		if err := i.makeRoom(); err != nil {
			return err
		}
		i.alloc.Lock()
		n, err := i.removeSome(s, first, end, how)
		i.alloc.Unlock()
		if err != nil {
			return err
		}
		first += n
	}
	return nil
}

// removeSome takes clusters that share a slice, and returns how many that are;
// none if it had to wait.
func (i *Image) removeSome(s *scratch, first, end int64, how removal) (int64, error) {
	p := i.place(first << i.clusterBits)
	if i.l1[p.l1]&offsetMask == 0 && (how == discard || i.base == nil) {
		next := int64(p.l1+1) << i.l2Bits()
		return min(end, next) - first, nil
	}
	n := min(end-first, int64(p.room))
	if i.inflight.wait(first, first+n-1) {
		return 0, nil
	}
	if err := i.ready(); err != nil {
		return 0, err
	}
	if change, err := i.wouldChange(&p, n, how); err != nil || !change {
		return n, err
	}
	if err := i.ownTable(s, p.l1); err != nil {
		return 0, err
	}
	return n, i.removeEntries(&p, n, how)
}

// wouldChange reports whether one of n entries at p is not yet as how wants it.
func (i *Image) wouldChange(p *place, n int64, how removal) (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	k, err := i.entries(p)
	if err != nil || k < 0 {
		return k < 0, err
	}
	slice := i.l2.slots[k].data[p.index*8:]
	for j := range n {
		old := be.Uint64(slice[j*8:])
		entry, err := i.removed(old, how)
		if err != nil || entry != old {
			return true, err
		}
	}
	return false, nil
}

// removeEntries changes n entries at p.
func (i *Image) removeEntries(p *place, n int64, how removal) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	k, err := i.entries(p)
	if err != nil {
		return err
	}
	slice := i.l2.slots[k].data[p.index*8:]
	for j := range n {
		old := be.Uint64(slice[j*8:])
		entry, err := i.removed(old, how)
		if err != nil {
			return err
		}
		if entry == old {
			continue
		}
		gone, err := i.refersTo(old)
		if err != nil {
			return err
		}
		be.PutUint64(slice[j*8:], entry)
		i.l2.mark(k)
		if entry&offsetMask == 0 && gone.n > 0 {
			i.giveUp(gone)
		}
	}
	return nil
}

// removed is what the L2 entry of a cluster becomes.
func (i *Image) removed(entry uint64, how removal) (uint64, error) {
	m, err := i.decode(entry)
	if err != nil {
		return 0, err
	}
	nothing := uint64(0)
	if i.base != nil {
		nothing = flagZero
	}
	switch {
	case m.kind == hole && (how == discard || i.base == nil),
		m.kind == zeros && (m.host == 0 || how == keep),
		i.header.Version < 3 && i.base != nil:
		return entry, nil
	case how == keep && m.owned() && i.header.Version >= 3:
		return uint64(m.host) | flagCopied | flagZero, nil
	}
	return nothing, nil
}
