// Package qcow2 reads, writes, makes and checks disk images in QEMU's qcow2
// format, versions 2 and 3. It opens no file by itself: an image and the images
// below it are handed in, so that whoever may open files decides which.
//
// # Locks
//
// Data moves outside every lock but busy, which is held shared:
//
//	busy   shared by requests while they know offsets in the file; held alone
//	       when clusters that were given up become free, so that no request
//	       still writes to what somebody else gets
//	alloc  held by whoever changes metadata, also across its I/O
//	mu     guards what requests look up; held for moments, and when a table has
//	       to be read
//
// They are taken in this order. What mu guards changes under alloc and mu both.
//
// # Order of writes
//
// A crash of the process or the host leaves at worst clusters that are counted
// and not used. Requests write data to clusters that nothing in the file refers
// to yet, and change tables in memory. Then commit, at a Flush or when too much
// has changed, writes
//
//	refcount blocks          counts of new clusters
//	  sync                   if there are new blocks
//	refcount table           new blocks
//	  sync                   also all data
//	L2 tables, L1 table      new clusters are used, old ones are not
//	  sync
//
// and only then are clusters that had been used counted down and free. A new
// table is written whole before the first sync, so L1 and L2 need no order.
package qcow2

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"vmd/hv/disk"
)

// Sizes of what is cached and remembered, which bound memory.
const (
	l2Slots  = 128 // at 64 KiB clusters they map 4 GiB
	refSlots = 32  // at 64 KiB clusters they count 4 GiB
	// maxDirty is how many L2 slices may wait for a commit. A request checks
	// before it starts and adds one, maxInflight of them at the same time; the
	// slots that are left are for lookups.
	maxDirty    = 64
	maxInflight = 32
	maxNewL2    = 32
	maxNewBlock = 32
)

// Image is a qcow2 image. It implements disk.Image.
type Image struct {
	geometry
	header   Header
	file     file
	base     disk.Image // nil if there is none
	size     int64
	readOnly bool
	pool     pool
	unpacker unpacker

	busy sync.RWMutex

	alloc    sync.Mutex
	refs     refcounts
	inflight inflight
	newL2    []int    // L1 entries that differ from the file
	unsynced bool     // something was written that commit has to sync before L2 and L1
	pending  []extent // given up, but the file still refers to it until a commit
	unlinked []extent // not referred to any more, but still counted
	broken   error    // a sync failed: what the file holds is unknown

	crowded atomic.Bool  // pending and unlinked are long
	end     atomic.Int64 // the file's length in whole clusters; changes under alloc

	mu   sync.Mutex
	l1   []uint64
	l2   cache
	meta metadata
}

// Open makes a disk of the image in f, which whoever opened it has locked, and
// of base, which the image's header must ask for. It owns both from then on,
// also if it fails. A readOnly image needs no more than a readable f.
func Open(f *os.File, base disk.Image, readOnly bool) (*Image, error) {
	i, err := openFile(f, base, readOnly)
	if err != nil {
		err = fmt.Errorf("qcow2 image %q: %w", f.Name(), err)
		if base != nil {
			err = errors.Join(err, base.Close())
		}
		return nil, errors.Join(err, f.Close())
	}
	return i, nil
}

func openFile(f *os.File, base disk.Image, readOnly bool) (*Image, error) {
	o, err := newOSFile(f)
	if err != nil {
		return nil, err
	}
	return open(o, base, readOnly)
}

// open leaves closing to its caller if it fails.
func open(f file, base disk.Image, readOnly bool) (*Image, error) {
	h, err := Info(readerAt{f}, f.Size())
	if err != nil {
		return nil, err
	}
	switch {
	case h.BackingName != "" && base == nil:
		return nil, fmt.Errorf("its base image %q is missing", h.BackingName)
	case h.BackingName == "" && base != nil:
		return nil, errors.New("it has no base image, but was given one")
	case h.Corrupt && !readOnly:
		return nil, fmt.Errorf("it is marked as damaged and can only be read: %w", ErrCorrupt)
	}
	i := &Image{geometry: h.geometry, header: h, file: f, base: base, size: h.Size, readOnly: readOnly}
	i.l2 = newCache(l2Slots, i.cluster())
	i.unpacker.init(h.Zstd, i.cluster())
	i.end.Store(i.alignUp(f.Size()))
	if i.l1, err = i.readTable(i.header.l1, i.l1Needed(h.Size)); err != nil {
		return nil, fmt.Errorf("L1 table: %w", err)
	}
	if !readOnly {
		err = i.openWrite()
	}
	return i, err
}

// openWrite does what only writing needs.
func (i *Image) openWrite() error {
	i.inflight.changed.L = &i.alloc
	i.refs.cache = newCache(refSlots, i.cluster())
	var err error
	if i.refs.table, err = i.readTable(i.header.refTable, i.header.refTable.n/8); err != nil {
		return fmt.Errorf("refcount table: %w", err)
	}
	snaps, err := i.snapshots()
	if err != nil {
		return err
	}
	fixed := append([]extent{{0, i.cluster()}, i.wholeClusters(i.header.l1), i.header.refTable}, snaps...)
	if err := i.meta.build(fixed, i.cluster(), i.l1, i.refs.table); err != nil {
		return err
	}
	if i.header.Dirty {
		if err := i.rebuild(); err != nil {
			return fmt.Errorf("rebuild refcounts: %w", err)
		}
	}
	return i.clearFeatures()
}

// wholeClusters is e up to the end of its last cluster.
func (i *Image) wholeClusters(e extent) extent { return extent{e.off, i.alignUp(e.n)} }

// readTable reads n entries of the table at e, which hold offsets of clusters.
func (i *Image) readTable(e extent, n int64) ([]uint64, error) {
	raw := make([]byte, n*8)
	if err := i.file.ReadFull(raw, e.off); err != nil {
		return nil, err
	}
	table := make([]uint64, n)
	for k := range table {
		table[k] = be.Uint64(raw[k*8:])
		if off := int64(table[k] & offsetMask); off != 0 && !i.isCluster(off) {
			return nil, corrupt("entry %d refers to offset %#x", k, off)
		}
	}
	return table, nil
}

// isCluster reports whether a cluster that is not the header's begins at off.
func (i *Image) isCluster(off int64) bool {
	return off&(i.cluster()-1) == 0 && off >= i.cluster() && off < i.end.Load()
}

// clearFeatures takes from the header what stops being true with the first
// write: autoclear features, which are all unknown here (persistent bitmaps,
// for one), and the dirty mark, if it was there, as refcounts are right now.
func (i *Image) clearFeatures() error {
	h := &i.header
	if h.Version < 3 || h.autoclear == 0 && !h.Dirty {
		return nil
	}
	h.Dirty, h.autoclear, h.features = false, 0, h.features&^incompatDirty
	var raw [24]byte
	if err := i.file.ReadFull(raw[8:16], hdrCompatible); err != nil {
		return err
	}
	be.PutUint64(raw[0:], h.features)
	if err := i.file.WriteFull(raw[:], hdrIncompatible); err != nil {
		return err
	}
	return i.file.Sync()
}

// Header is what the image said about itself when it was opened.
func (i *Image) Header() Header { return i.header }

// Size implements disk.Image.
func (i *Image) Size() int64 { return i.size }

// change says whether [off, off+n) may be written.
func (i *Image) change(off, n int64) error {
	if i.readOnly {
		return disk.ErrReadOnly
	}
	return disk.CheckRange(i.size, off, n)
}

// Flush implements disk.Image.
func (i *Image) Flush() error {
	if i.readOnly {
		return nil
	}
	i.alloc.Lock()
	err, work := i.broken, i.changed()
	if err == nil && work {
		err = i.commit()
	}
	freeable := len(i.unlinked) > 0
	i.alloc.Unlock()
	if err == nil && !work {
		err = i.syncData()
	}
	// If freeing would wait for another request, it can be done later.
	if err == nil && freeable && i.busy.TryLock() {
		err = i.reclaim()
		i.busy.Unlock()
	}
	return err
}

// syncData is a sync that holds nobody up.
func (i *Image) syncData() error {
	err := i.file.Sync()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("sync: %w", err)
	i.alloc.Lock()
	i.broken = err // see syncOrBreak
	i.alloc.Unlock()
	return err
}

// Close implements disk.Image. After a Close without an error no cluster is
// counted that is not used.
func (i *Image) Close() error {
	var err error
	if !i.readOnly {
		err = i.shut()
	}
	if i.base != nil {
		err = errors.Join(err, i.base.Close())
	}
	return errors.Join(err, i.file.Close())
}

// Quiesce implements disk.Quiescer. The file never carries a mark of being in
// use (no lazy refcounts), so going on afterwards takes nothing.
func (i *Image) Quiesce() error {
	if i.readOnly {
		return nil
	}
	return i.shut()
}

// shut brings the file up to date.
func (i *Image) shut() error {
	i.busy.Lock()
	defer i.busy.Unlock()
	i.alloc.Lock()
	err := i.commit()
	i.alloc.Unlock()
	if err == nil {
		err = i.reclaim()
	}
	i.alloc.Lock()
	defer i.alloc.Unlock()
	return errors.Join(err, i.commit())
}
