package qcow2

import "fmt"

// changed reports whether commit has something to do.
func (i *Image) changed() bool {
	return i.refs.cache.written > 0 || len(i.refs.newBlocks) > 0 ||
		i.l2.written > 0 || len(i.newL2) > 0 || len(i.pending) > 0
}

// syncOrBreak syncs the file. If that fails, the kernel may have dropped what
// it could not write, and a later sync would not tell: nothing more is
// promised. The caller holds alloc.
func (i *Image) syncOrBreak() error {
	if i.broken == nil {
		if err := i.file.Sync(); err != nil {
			i.broken = fmt.Errorf("sync: %w", err)
		}
	}
	return i.broken
}

// commit brings the file up to date, in the order that the package comment
// draws. What fails stays to be written. The caller holds alloc.
func (i *Image) commit() error {
	if err := i.commitCounts(); err != nil {
		return err
	}
	if i.l2.written > 0 || len(i.newL2) > 0 {
		if i.unsynced {
			if err := i.syncOrBreak(); err != nil {
				return err
			}
			i.unsynced = false
		}
		if err := i.writeL2(); err != nil {
			return err
		}
		if err := i.writeL1(); err != nil {
			return err
		}
	}
	if err := i.syncOrBreak(); err != nil {
		return err
	}
	i.unsynced = false
	i.unlinked = append(i.unlinked, i.pending...)
	i.pending = i.pending[:0]
	return nil
}

// commitCounts writes refcounts, new blocks before the table refers to them.
func (i *Image) commitCounts() error {
	if err := i.writeCounts(); err != nil {
		return err
	}
	if len(i.refs.newBlocks) == 0 {
		return nil
	}
	if err := i.syncOrBreak(); err != nil {
		return err
	}
	i.unsynced = true
	for _, k := range i.refs.newBlocks {
		if err := i.writeEntry(i.header.refTable.off, k, i.refs.table[k]); err != nil {
			return err
		}
	}
	i.refs.newBlocks = i.refs.newBlocks[:0]
	return nil
}

// writeEntry writes entry k of the table at off.
func (i *Image) writeEntry(off int64, k int, entry uint64) error {
	var raw [8]byte
	be.PutUint64(raw[:], entry)
	return i.file.WriteFull(raw[:], off+int64(k)*8)
}

// writeCounts writes the refcount blocks. That is right at any moment: counts
// go up before something refers to a cluster, and down after nothing does.
func (i *Image) writeCounts() error {
	c := &i.refs.cache
	for k := range c.slots {
		if !c.slots[k].dirty {
			continue
		}
		if err := i.file.WriteFull(c.slots[k].data, c.offs[k]); err != nil {
			return fmt.Errorf("refcount block: %w", err)
		}
		c.clean(k)
		i.unsynced = true
	}
	return nil
}

// writeL2 writes the L2 tables. Lookups go on meanwhile: what they may do
// without alloc leaves changed slices alone.
func (i *Image) writeL2() error {
	for k := range i.l2.slots {
		s := &i.l2.slots[k]
		if !s.dirty {
			continue
		}
		if err := i.file.WriteFull(s.data, i.l2.offs[k]); err != nil {
			return fmt.Errorf("L2 table: %w", err)
		}
		i.mu.Lock()
		i.l2.clean(k)
		i.mu.Unlock()
	}
	return nil
}

func (i *Image) writeL1() error {
	for _, k := range i.newL2 {
		if err := i.writeEntry(i.header.l1.off, k, i.l1[k]); err != nil {
			return fmt.Errorf("L1 table: %w", err)
		}
	}
	i.newL2 = i.newL2[:0]
	return nil
}
