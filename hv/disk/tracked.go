package disk

import (
	"math/bits"
	"sync/atomic"
)

// TrackedBlock is how finely a Tracked image remembers.
const TrackedBlock = 64 << 10

// Tracked is an Image that, while somebody copies it, remembers what was written
// since. It costs a writer one look when nobody does.
type Tracked struct {
	Image
	changed atomic.Pointer[[]atomic.Uint64] // a bit for each block; nil: nobody watches
}

// Track returns img as one that can be watched.
func Track(img Image) *Tracked { return &Tracked{Image: img} }

// Watch begins to remember, with nothing changed yet, or stops.
func (t *Tracked) Watch(on bool) {
	if !on {
		t.changed.Store(nil)
		return
	}
	blocks := (t.Size() + TrackedBlock - 1) / TrackedBlock
	words := make([]atomic.Uint64, (blocks+63)/64)
	t.changed.Store(&words)
}

// Changed is how many bytes there are in blocks that have changed.
func (t *Tracked) Changed() (n int64) {
	if words := t.changed.Load(); words != nil {
		for i := range *words {
			n += int64(bits.OnesCount64((*words)[i].Load())) * TrackedBlock
		}
	}
	return n
}

// Next takes the first changed block from off on: what is written to it from
// then on is news again. ok is false if there is none.
func (t *Tracked) Next(off int64) (start, n int64, ok bool) {
	words := t.changed.Load()
	if words == nil {
		return 0, 0, false
	}
	block := off / TrackedBlock
	for i := block / 64; i < int64(len(*words)); i++ {
		rest := (*words)[i].Load() &^ (1<<(block%64) - 1)
		if rest != 0 {
			bit := bits.TrailingZeros64(rest)
			(*words)[i].And(^(uint64(1) << bit))
			start = (i*64 + int64(bit)) * TrackedBlock
			return start, min(TrackedBlock, t.Size()-start), true
		}
		block = 0
	}
	return 0, 0, false
}

// mark remembers a change that has happened: not before, or somebody would copy
// what was there and believe that he has it all. A failed one may have happened
// in part.
func (t *Tracked) mark(off, n int64) {
	words := t.changed.Load()
	if words == nil || n <= 0 || CheckRange(t.Size(), off, n) != nil {
		return
	}
	for b := off / TrackedBlock; b <= (off+n-1)/TrackedBlock; b++ {
		(*words)[b/64].Or(1 << (b % 64))
	}
}

// WriteAtV implements Image.
func (t *Tracked) WriteAtV(bufs [][]byte, off int64) error {
	err := t.Image.WriteAtV(bufs, off)
	t.mark(off, Len(bufs))
	return err
}

// Discard implements Image.
func (t *Tracked) Discard(off, n int64) error {
	err := t.Image.Discard(off, n)
	t.mark(off, n)
	return err
}

// WriteZeroes implements Image.
func (t *Tracked) WriteZeroes(off, n int64, unmap bool) error {
	err := t.Image.WriteZeroes(off, n, unmap)
	t.mark(off, n)
	return err
}

// NextData implements Sparse.
func (t *Tracked) NextData(off int64) (start, end int64, err error) { return NextData(t.Image, off) }

// Quiesce implements Quiescer.
func (t *Tracked) Quiesce() error { return Quiesce(t.Image) }
