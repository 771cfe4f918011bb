package mem

import (
	"fmt"
	"math/bits"
	"sync/atomic"
)

// Page is the unit in which guest memory is marked and sent: what KVM's dirty
// log counts in (api.rst KVM_GET_DIRTY_LOG).
const Page = 4096

// marks says which pages this process has written to since they were last
// taken: KVM logs the guest's writes only. One bitmap for each region, bit 0 of
// word 0 is its first page.
type marks [][]uint64

// BitmapWords is how many words hold a bit for each page of region i.
func (m *Memory) BitmapWords(i int) int {
	return (pagesOf(&m.regions[i]) + 63) / 64
}

func pagesOf(r *Region) int { return (len(r.Bytes) + Page - 1) / Page }

// Track starts or ends the marking of pages. A start clears all marks; a second
// start changes nothing. Writes that began before the start and end after it are
// marked, as Touched comes after the write.
func (m *Memory) Track(on bool) {
	if !on {
		m.marks.Store(nil)
		return
	}
	fresh := make(marks, len(m.regions))
	for i := range m.regions {
		fresh[i] = make([]uint64, m.BitmapWords(i))
	}
	m.marks.CompareAndSwap(nil, &fresh)
}

// Tracking says whether pages are being marked.
func (m *Memory) Tracking() bool { return m.marks.Load() != nil }

// Touched marks the pages of [gpa, gpa+n), which this process, not the guest,
// has just written. It must come after the write: a page that is taken between
// the two would otherwise be read too early and not again. What lies outside
// guest memory is passed over. Without tracking it is one load.
func (m *Memory) Touched(gpa GPA, n uint64) {
	if t := m.marks.Load(); t != nil {
		m.mark(*t, gpa, n)
	}
}

// TouchedBytes is Touched for bytes that Slice has handed out.
func (m *Memory) TouchedBytes(b []byte) {
	t := m.marks.Load()
	if t == nil || len(b) == 0 {
		return
	}
	for i := range m.regions {
		r := &m.regions[i]
		if off := uint64(address(b) - address(r.Bytes)); off < uint64(len(r.Bytes)) {
			t.mark(i, off, min(uint64(len(b)), uint64(len(r.Bytes))-off))
			return
		}
	}
}

// mark marks [gpa, gpa+n), region by region.
func (m *Memory) mark(t marks, gpa GPA, n uint64) {
	for i := range m.regions {
		r := &m.regions[i]
		from, to := max(gpa, r.Base), r.end()
		if n < uint64(to-gpa) && to > gpa {
			to = gpa + GPA(n)
		}
		if from < to {
			t.mark(i, uint64(from-r.Base), uint64(to-from))
		}
	}
}

// mark marks the pages of n bytes at off of region i; n is not 0.
func (t marks) mark(i int, off, n uint64) {
	first, last := off/Page, (off+n-1)/Page
	for w := first / 64; w <= last/64; w++ {
		mask := ^uint64(0)
		if w == first/64 {
			mask <<= first % 64
		}
		if w == last/64 {
			mask &= ^uint64(0) >> (63 - last%64)
		}
		// Most writes find their page marked: a load does not take the
		// cache line away from others, as an atomic OR does.
		if p := &t[i][w]; atomic.LoadUint64(p)&mask != mask {
			atomic.OrUint64(p, mask)
		}
	}
}

// TakeDirty ORs the marks of region i into bitmap, which has BitmapWords(i)
// words, and clears them. It returns how many pages bitmap then has.
func (m *Memory) TakeDirty(i int, bitmap []uint64) (int, error) {
	if i < 0 || i >= len(m.regions) || len(bitmap) != m.BitmapWords(i) {
		return 0, fmt.Errorf("take the marks of memory region %d in %d words: no such region or not its size", i, len(bitmap))
	}
	t, n := m.marks.Load(), 0
	for w := range bitmap {
		if t != nil && atomic.LoadUint64(&(*t)[i][w]) != 0 {
			bitmap[w] |= atomic.SwapUint64(&(*t)[i][w], 0)
		}
		n += bits.OnesCount64(bitmap[w])
	}
	return n, nil
}
