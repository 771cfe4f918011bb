package qcow2

import "slices"

// metadata knows which clusters hold tables, so that an entry which says that
// one of them is the guest's does not make it so. It grows as the L1 and
// refcount tables do.
type metadata struct {
	fixed  []extent // header, L1 tables, refcount table, snapshot table
	tables []int64  // offsets of L2 tables and refcount blocks, sorted
}

// holds reports whether a table lies in the n bytes at off.
func (m *metadata) holds(off, n, cluster int64) bool {
	e := extent{off, n}
	for _, f := range m.fixed {
		if e.overlaps(f) {
			return true
		}
	}
	// A table that begins up to a cluster before off reaches into it.
	k, _ := slices.BinarySearch(m.tables, off-cluster+1)
	return k < len(m.tables) && m.tables[k] < off+n
}

func (m *metadata) add(off int64) {
	k, _ := slices.BinarySearch(m.tables, off)
	m.tables = slices.Insert(m.tables, k, off)
}

func (m *metadata) remove(off int64) {
	if k, ok := slices.BinarySearch(m.tables, off); ok {
		m.tables = slices.Delete(m.tables, k, k+1)
	}
}

// build makes m of the tables in a new image, each of which must be alone in
// its place.
func (m *metadata) build(fixed []extent, cluster int64, lists ...[]uint64) error {
	for k, e := range fixed {
		for _, f := range fixed[:k] {
			if e.overlaps(f) {
				return corrupt("tables at offsets %#x and %#x overlap", e.off, f.off)
			}
		}
	}
	m.fixed, m.tables = fixed, nil
	for _, list := range lists {
		for _, entry := range list {
			if off := int64(entry & offsetMask); off != 0 {
				m.tables = append(m.tables, off)
			}
		}
	}
	slices.Sort(m.tables)
	for k, off := range m.tables {
		if k > 0 && off == m.tables[k-1] {
			return corrupt("two tables at offset %#x", off)
		}
		for _, f := range fixed {
			if f.overlaps(extent{off, cluster}) {
				return corrupt("two tables at offset %#x", off)
			}
		}
	}
	return nil
}
