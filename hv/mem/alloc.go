package mem

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Range is a run of guest physical addresses.
type Range struct {
	Base GPA
	Size uint64
}

// maxAlloc bounds Alloc: more than a host has, less than where sizes overflow.
const maxAlloc = 1 << 46

// Alloc makes the RAM of a guest: zeroed private memory for each range. The
// host gives pages as the guest touches them, in large pages where it can, and
// leaves them out of core dumps. Each range's Base must be a multiple of 2 MiB
// and its Size of 4 KiB; all but the last must be a multiple of 2 MiB long.
func Alloc(ranges ...Range) (*Memory, error) {
	var total uint64
	if len(ranges) == 0 {
		return nil, errors.New("guest memory of no ranges")
	}
	for i, r := range ranges {
		last := i == len(ranges)-1
		if r.Base%hugePage != 0 || r.Size == 0 || r.Size%4096 != 0 || !last && r.Size%hugePage != 0 || r.Size > maxAlloc-total {
			return nil, fmt.Errorf("guest memory at %#x of %d bytes: bad address or size", r.Base, r.Size)
		}
		total += r.Size
	}
	b, whole, err := mapAligned(total)
	if err != nil {
		return nil, fmt.Errorf("map %d MiB for the guest: %w", total>>20, err)
	}
	// Both are advice: without transparent huge pages, or on a kernel that
	// knows no MADV_DONTDUMP, the guest runs all the same.
	_ = unix.Madvise(whole, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(whole, unix.MADV_DONTDUMP)

	regions := make([]Region, len(ranges))
	for i, r := range ranges {
		regions[i], b = Region{r.Base, b[:r.Size:r.Size]}, b[r.Size:]
	}
	m, err := New(regions...)
	if err != nil {
		unix.Munmap(whole)
		return nil, err
	}
	m.close = func() error { return unix.Munmap(whole) }
	return m, nil
}

// Close gives the memory back, if it came from Alloc. Nothing that the Memory
// has handed out may be used any more, by the guest or by us.
func (m *Memory) Close() error {
	if m.close == nil {
		return nil
	}
	f := m.close
	m.close, m.regions = nil, nil
	return f()
}
