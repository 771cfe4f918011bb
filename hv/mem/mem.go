// Package mem is a guest's physical memory as its host sees it: a few regions
// of RAM, found by guest physical address. It is the only way from a number
// that a guest wrote to bytes of this process, so every access is checked here
// and nowhere else.
//
// A Memory never changes once made: what Slice hands out stays valid until
// Close.
package mem

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// GPA is a guest physical address.
type GPA uint64

// ErrRange says that an access does not lie wholly inside the guest's RAM.
var ErrRange = errors.New("address outside guest memory")

// Region is one run of RAM: Bytes[0] is at guest physical address Base.
type Region struct {
	Base  GPA
	Bytes []byte
}

// end is the first address after r. New has made sure that it does not wrap.
func (r *Region) end() GPA { return r.Base + GPA(len(r.Bytes)) }

// Memory is the RAM of one guest. Its methods may be called from any number of
// goroutines; the guest itself writes to the same bytes at any moment, so a
// caller copies what it checks before it checks it.
type Memory struct {
	regions []Region // sorted by Base, never overlapping
	close   func() error
	marks   atomic.Pointer[marks] // nil unless pages are tracked
}

// New makes a Memory of regions, which must be sorted by Base, not overlap, and
// not reach the end of the address space.
func New(regions ...Region) (*Memory, error) {
	var last GPA
	for i := range regions {
		r := &regions[i]
		if len(r.Bytes) == 0 || r.end() < r.Base {
			return nil, fmt.Errorf("region %d at %#x of %d bytes: not a range of addresses", i, r.Base, len(r.Bytes))
		}
		if i > 0 && r.Base < last {
			return nil, fmt.Errorf("region %d at %#x: overlaps the one before it", i, r.Base)
		}
		last = r.end()
	}
	return &Memory{regions: regions}, nil
}

// Regions returns the regions, lowest first. The caller must not change them.
func (m *Memory) Regions() []Region { return m.regions }

// Size is the sum of all regions in bytes.
func (m *Memory) Size() uint64 {
	var n uint64
	for i := range m.regions {
		n += uint64(len(m.regions[i].Bytes))
	}
	return n
}

// find returns the region that holds gpa, or nil.
func (m *Memory) find(gpa GPA) *Region {
	for i := range m.regions {
		if r := &m.regions[i]; gpa >= r.Base && gpa < r.end() {
			return r
		}
	}
	return nil
}

// Slice returns the n bytes of guest memory at gpa, which must lie in one
// region; ErrRange otherwise. The guest can change them at any moment. A slice
// of no bytes is valid wherever gpa is.
func (m *Memory) Slice(gpa GPA, n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	r := m.find(gpa)
	if r == nil || n > uint64(r.end()-gpa) {
		return nil, ErrRange
	}
	off := uint64(gpa - r.Base)
	return r.Bytes[off : off+n : off+n], nil
}

// Read copies len(p) bytes at gpa into p. The range may cross from one region
// into an adjacent one. On ErrRange p holds nothing of use.
func (m *Memory) Read(gpa GPA, p []byte) error {
	return m.walk(gpa, uint64(len(p)), func(b []byte, off uint64) { copy(p[off:], b) })
}

// Write copies p into guest memory at gpa. Nothing is written on ErrRange.
func (m *Memory) Write(gpa GPA, p []byte) error {
	if err := m.walk(gpa, uint64(len(p)), func([]byte, uint64) {}); err != nil {
		return err
	}
	err := m.walk(gpa, uint64(len(p)), func(b []byte, off uint64) { copy(b, p[off:]) })
	m.Touched(gpa, uint64(len(p)))
	return err
}

// walk calls f for each piece of [gpa, gpa+n) with the piece's offset in it.
func (m *Memory) walk(gpa GPA, n uint64, f func(b []byte, off uint64)) error {
	for off := uint64(0); off < n; {
		r := m.find(gpa + GPA(off))
		if r == nil || uint64(gpa)+off < uint64(gpa) {
			return ErrRange
		}
		k := min(n-off, uint64(r.end()-gpa)-off)
		b, err := m.Slice(gpa+GPA(off), k)
		if err != nil {
			return err
		}
		f(b, off)
		off += k
	}
	return nil
}
