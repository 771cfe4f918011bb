package qcow2

import "fmt"

// refcounts is the refcount table and its blocks. alloc guards it.
type refcounts struct {
	table     []uint64
	newBlocks []int // entries of table that differ from the file
	cache     cache // of blocks
	// scan is the cluster from which on the file has not been searched for
	// free ones.
	scan  int64
	freed []extent // clusters that became free, some may not be any more
	punch []extent // of these, what the host does not know yet
	// forgotten is how many clusters became free that did not fit in freed,
	// from lowest on.
	forgotten, lowest int64
}

// getCount returns one refcount of a slice. Counts of less than a byte share
// one, lowest bits first.
func getCount(slice []byte, index int64, order uint) uint64 {
	switch order {
	case 3:
		return uint64(slice[index])
	case 4:
		return uint64(be.Uint16(slice[index*2:]))
	case 5:
		return uint64(be.Uint32(slice[index*4:]))
	case 6:
		return be.Uint64(slice[index*8:])
	}
	shift := uint(index&(1<<(3-order)-1)) << order
	return uint64(slice[index>>(3-order)]>>shift) & (1<<(1<<order) - 1)
}

func setCount(slice []byte, index int64, order uint, v uint64) {
	switch order {
	case 3:
		slice[index] = byte(v)
	case 4:
		be.PutUint16(slice[index*2:], uint16(v))
	case 5:
		be.PutUint32(slice[index*4:], uint32(v))
	case 6:
		be.PutUint64(slice[index*8:], v)
	default:
		shift := uint(index&(1<<(3-order)-1)) << order
		b := &slice[index>>(3-order)]
		*b = *b&^(byte(1<<(1<<order)-1)<<shift) | byte(v)<<shift
	}
}

// maxCount is the largest refcount that an image can hold.
func (g geometry) maxCount() uint64 {
	if g.refOrder == maxRefOrder {
		return 1<<64 - 1
	}
	return 1<<(1<<g.refOrder) - 1
}

// sliceCounts is how many counts are in a slice.
func (i *Image) sliceCounts() int64 { return i.refs.cache.slice << 3 >> i.refOrder }

// hasBlock reports whether cluster is counted anywhere.
func (i *Image) hasBlock(cluster int64) bool {
	k := cluster >> i.blockBits()
	return k < int64(len(i.refs.table)) && i.refs.table[k]&offsetMask != 0
}

// counts returns the slot of the slice that counts cluster, which has a block,
// and the index in it.
func (i *Image) counts(cluster int64) (slot int, index int64, err error) {
	inBlock := cluster & (1<<i.blockBits() - 1)
	per := i.sliceCounts()
	off := int64(i.refs.table[cluster>>i.blockBits()]&offsetMask) + inBlock/per*i.refs.cache.slice
	c := &i.refs.cache
	if c.written >= len(c.slots)-1 {
		if err := i.writeCounts(); err != nil {
			return 0, 0, err
		}
	}
	if slot, err = c.get(i.file, off); err != nil {
		return 0, 0, fmt.Errorf("refcount block: %w", err)
	}
	return slot, inBlock % per, nil
}

// count is the refcount of cluster.
func (i *Image) count(cluster int64) (uint64, error) {
	if !i.hasBlock(cluster) {
		return 0, nil
	}
	k, index, err := i.counts(cluster)
	if err != nil {
		return 0, err
	}
	return getCount(i.refs.cache.slots[k].data, index, i.refOrder), nil
}

// setCount sets the refcount of cluster, which has a block.
func (i *Image) setCount(cluster int64, v uint64) error {
	k, index, err := i.counts(cluster)
	if err != nil {
		return err
	}
	setCount(i.refs.cache.slots[k].data, index, i.refOrder, v)
	i.refs.cache.mark(k)
	return nil
}

// countDown takes one use from cluster and reports whether that was the last.
func (i *Image) countDown(cluster int64) (free bool, err error) {
	v, err := i.count(cluster)
	if err != nil {
		return false, err
	}
	if v == 0 {
		return false, corrupt("cluster at offset %#x is in use and not counted", cluster<<i.clusterBits)
	}
	return v == 1, i.setCount(cluster, v-1)
}

// addBlock makes a refcount block, which counts nothing yet, for the clusters
// around cluster. It becomes the last cluster of the file.
func (i *Image) addBlock(cluster int64) error {
	k := int(cluster >> i.blockBits())
	if k >= len(i.refs.table) {
		return i.growTable(k)
	}
	if len(i.refs.newBlocks) >= maxNewBlock {
		if err := i.commitCounts(); err != nil {
			return err
		}
	}
	off := i.end.Load()
	if err := i.writeZeros(off, i.cluster()); err != nil {
		return err
	}
	i.end.Add(i.cluster())
	i.refs.table[k] = uint64(off)
	i.refs.newBlocks = append(i.refs.newBlocks, k)
	i.mu.Lock()
	i.meta.add(off)
	i.mu.Unlock()
	return nil
}

// growTable writes a larger refcount table behind the end of the file, with an
// entry k at least, and the blocks that count both. Then one write to the
// header puts it in place of the old one.
func (i *Image) growTable(k int) error {
	t, err := i.planTable(k)
	if err != nil {
		return err
	}
	if err := t.write(i); err != nil {
		return err
	}
	// What the table refers to must be there before the header refers to it.
	if err := i.writeCounts(); err != nil {
		return err
	}
	if err := i.syncOrBreak(); err != nil {
		return err
	}
	var raw [12]byte // refcount table offset and length, next to each other
	be.PutUint64(raw[0:], uint64(t.at.off))
	be.PutUint32(raw[8:], uint32(t.at.n>>i.clusterBits))
	if err := i.file.WriteFull(raw[:], hdrRefTableOffset); err != nil {
		return err
	}
	if err := i.syncOrBreak(); err != nil {
		return err
	}
	return i.useTable(t)
}

// bigTable is a refcount table to be.
type bigTable struct {
	entries []uint64
	at      extent
	blocks  extent // that count at and themselves
	first   int    // entry of the first of these blocks
}

func (i *Image) planTable(k int) (*bigTable, error) {
	begin, perCluster := i.end.Load()>>i.clusterBits, i.cluster()/8
	want, blocks := max(int64(k)+1, int64(len(i.refs.table))*3/2), int64(1)
	t := &bigTable{first: int(begin >> i.blockBits())}
	for t.at.n == 0 {
		clusters := (want + perCluster - 1) / perCluster
		last := (begin + clusters + blocks - 1) >> i.blockBits()
		switch need := last - int64(t.first) + 1; {
		case clusters<<i.clusterBits > maxRefTable:
			return nil, ErrFull
		case last >= clusters*perCluster:
			want = last + 1
		case need > blocks:
			blocks = need
		default:
			t.at = extent{begin << i.clusterBits, clusters << i.clusterBits}
			t.blocks = extent{t.at.off + t.at.n, blocks << i.clusterBits}
		}
	}
	t.entries = make([]uint64, t.at.n/8)
	copy(t.entries, i.refs.table)
	for n := range t.blocks.n >> i.clusterBits {
		t.entries[t.first+int(n)] = uint64(t.blocks.off + n<<i.clusterBits)
	}
	return t, nil
}

// write writes t and its blocks, into which nobody looks yet.
func (t *bigTable) write(i *Image) error {
	raw := make([]byte, t.at.n)
	for k, e := range t.entries {
		be.PutUint64(raw[k*8:], e)
	}
	if err := i.file.WriteFull(raw, t.at.off); err != nil {
		return err
	}
	block := make([]byte, i.cluster())
	used := (t.blocks.off + t.blocks.n) >> i.clusterBits
	for n := range t.blocks.n >> i.clusterBits {
		clear(block)
		from := (int64(t.first) + n) << i.blockBits()
		for c := max(from, t.at.off>>i.clusterBits); c < min(used, from+1<<i.blockBits()); c++ {
			setCount(block, c-from, i.refOrder, 1)
		}
		if err := i.file.WriteFull(block, t.blocks.off+n<<i.clusterBits); err != nil {
			return err
		}
	}
	return nil
}

// useTable goes over to t, which the header refers to now.
func (i *Image) useTable(t *bigTable) error {
	old := i.header.refTable
	i.end.Store(t.blocks.off + t.blocks.n)
	i.refs.table, i.refs.newBlocks, i.header.refTable = t.entries, nil, t.at
	i.mu.Lock()
	for k := range i.meta.fixed {
		if i.meta.fixed[k] == old {
			i.meta.fixed[k] = t.at
		}
	}
	for off := t.blocks.off; off < t.blocks.off+t.blocks.n; off += i.cluster() {
		i.meta.add(off)
	}
	i.mu.Unlock()
	if i.header.Dirty {
		return nil // rebuild sees to it
	}
	// Nobody but us knew where the old one was: it is free at once.
	return i.free(old)
}
