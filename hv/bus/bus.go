// Package bus finds the device that a guest's port or memory access is meant
// for. A Bus is one address space: a machine has one for I/O ports and one for
// MMIO.
package bus

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// Device answers accesses to a range of a Bus. off is relative to the start of
// the range; len(data) is the access size: 1, 2, 4 or 8 bytes, little-endian.
// An access never reaches beyond the range.
//
// Read and Write are called on vCPU threads, several at once, with bytes that
// the guest chose. They must not block, and must not panic whatever the bytes.
// Read must fill all of data.
type Device interface {
	Read(off uint64, data []byte)
	Write(off uint64, data []byte)
}

type mapping struct {
	base, size uint64
	dev        Device
}

// Bus is an address space. Its zero value is empty and ready to use. Lookups
// take no lock; Map and Unmap may be called at any time.
type Bus struct {
	mu    sync.Mutex // serialises Map and Unmap
	table atomic.Pointer[[]mapping]

	// Unclaimed counts accesses that no device answered.
	Unclaimed atomic.Uint64
}

// Map gives [base, base+size) to dev. It fails when the range is empty, wraps,
// or overlaps another.
func (b *Bus) Map(base, size uint64, dev Device) error {
	if size == 0 || base+size < base {
		return fmt.Errorf("map %#x+%#x: not a range of addresses", base, size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.load()
	i := sort.Search(len(old), func(i int) bool { return old[i].base+old[i].size > base })
	if i < len(old) && old[i].base < base+size {
		return fmt.Errorf("map %#x+%#x: overlaps %#x+%#x", base, size, old[i].base, old[i].size)
	}
	t := slices.Insert(slices.Clone(old), i, mapping{base, size, dev})
	b.table.Store(&t)
	return nil
}

// Unmap takes back the range that was mapped at base, if there is one. An
// access on another vCPU may still be inside the device when Unmap returns.
func (b *Bus) Unmap(base uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := slices.DeleteFunc(slices.Clone(b.load()), func(m mapping) bool { return m.base == base })
	b.table.Store(&t)
}

func (b *Bus) load() []mapping {
	if t := b.table.Load(); t != nil {
		return *t
	}
	return nil
}

// find returns the mapping that holds all of [addr, addr+n).
func (b *Bus) find(addr uint64, n int) *mapping {
	t := b.load()
	lo, hi := 0, len(t)
	for lo < hi { // sort.Search, without the closure
		mid := int(uint(lo+hi) >> 1)
		if t[mid].base+t[mid].size > addr {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == len(t) || addr < t[lo].base || uint64(n) > t[lo].base+t[lo].size-addr {
		return nil
	}
	return &t[lo]
}

// Read carries out a read of len(data) bytes at addr. What nobody answers reads
// as all ones.
func (b *Bus) Read(addr uint64, data []byte) {
	if m := b.find(addr, len(data)); m != nil {
		m.dev.Read(addr-m.base, data)
		return
	}
	b.Unclaimed.Add(1)
	for i := range data {
		data[i] = 0xff
	}
}

// Write carries out a write of data at addr. What nobody answers is dropped.
func (b *Bus) Write(addr uint64, data []byte) {
	if m := b.find(addr, len(data)); m != nil {
		m.dev.Write(addr-m.base, data)
		return
	}
	b.Unclaimed.Add(1)
}
