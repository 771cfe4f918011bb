package qcow2

import "errors"

// Tables and refcount blocks are cached in slices of sliceSize bytes, or of a
// cluster where that is less, so that a small change is a small write.
const sliceSize = 4096

// errCacheFull cannot happen: see maxDirty.
var errCacheFull = errors.New("qcow2 table cache is full of unwritten slices")

// cache holds slices of tables. Its size is fixed, whatever the image's is. It
// has no lock of its own.
type cache struct {
	slice   int64
	offs    []int64 // of each slot's slice in the file; 0: the slot is empty
	slots   []slot
	tick    uint64
	last    int // slot of the latest hit
	written int // slots that differ from the file
}

type slot struct {
	data  []byte
	used  uint64 // tick of the latest use
	dirty bool
}

func newCache(slots int, cluster int64) cache {
	return cache{slice: min(sliceSize, cluster), offs: make([]int64, slots), slots: make([]slot, slots)}
}

// find returns the slot with the slice at off, -1 if there is none.
func (c *cache) find(off int64) int {
	if c.offs[c.last] == off {
		return c.last
	}
	for k, o := range c.offs {
		if o == off {
			c.last = k
			return k
		}
	}
	return -1
}

// get returns the slot with the slice at off, which it reads if need be in
// place of the unchanged slice that was unused for longest.
func (c *cache) get(f file, off int64) (int, error) {
	c.tick++
	if k := c.find(off); k >= 0 {
		c.slots[k].used = c.tick
		return k, nil
	}
	k := c.victim()
	if k < 0 {
		return 0, errCacheFull
	}
	s := &c.slots[k]
	if s.data == nil {
		s.data = make([]byte, c.slice)
	}
	c.offs[k] = 0
	if err := f.ReadFull(s.data, off); err != nil {
		return 0, err
	}
	c.offs[k], s.used, c.last = off, c.tick, k
	return k, nil
}

func (c *cache) victim() int {
	best := -1
	for k := range c.slots {
		s := &c.slots[k]
		if c.offs[k] == 0 {
			return k
		}
		if !s.dirty && (best < 0 || s.used < c.slots[best].used) {
			best = k
		}
	}
	return best
}

// mark says that slot k was changed.
func (c *cache) mark(k int) {
	if !c.slots[k].dirty {
		c.slots[k].dirty = true
		c.written++
	}
}

// clean says that slot k is as in the file.
func (c *cache) clean(k int) {
	if c.slots[k].dirty {
		c.slots[k].dirty = false
		c.written--
	}
}

// drop forgets the slices in n bytes at off, which were given up.
func (c *cache) drop(off, n int64) {
	for k, o := range c.offs {
		if o >= off && o < off+n {
			c.clean(k)
			c.offs[k] = 0
		}
	}
}
