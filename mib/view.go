package mib

import (
	"slices"
	"time"
)

// View is a Snapshot at a moment. Everything read through one View belongs
// together: the tables, vmNumber and the times.
type View struct {
	s   *Snapshot
	now time.Duration
}

// View returns s as it looks at now, on the clock of the Store.
func (s *Snapshot) View(now time.Duration) View { return View{s, now} }

// Get returns the value of the instance oid, or one of the exceptions
// noSuchObject and noSuchInstance.
func (v View) Get(oid []uint32) Value {
	for _, m := range v.s.modules() {
		if hasPrefix(oid, m.root) {
			return v.get(m, oid[len(m.root):])
		}
	}
	return exception(TypeNoSuchObject)
}

// get is Get below the root of m.
func (v View) get(m *module, rest []uint32) Value {
	i := m.lastAtOrBefore(rest)
	if i < 0 || !hasPrefix(rest, m.objects[i].arcs) {
		return exception(TypeNoSuchObject)
	}
	o := &m.objects[i]
	index := rest[len(o.arcs):]
	if len(index) != o.table.depth() {
		return exception(TypeNoSuchInstance)
	}
	at := bound(index, o.table.depth(), true)
	p, ok := v.s.ceil(o.table, at)
	if !ok || v.s.index(o.table, p) != at {
		return exception(TypeNoSuchInstance)
	}
	return o.value(v, p)
}

// Next returns the first instance after start, or at start when include is
// set, that lies before end; an empty end is no bound. The name is built in
// dst, which may be nil and must not overlap start or end. Where there is no
// such instance the value's type is TypeEndOfMIBView and the name is empty.
func (v View) Next(dst, start []uint32, include bool, end []uint32) ([]uint32, Value) {
	dst = dst[:0]
	var o *object
	var p pos
	for _, m := range v.s.modules() {
		if o, p = v.find(m, start, include); o != nil {
			dst = append(append(dst, m.root...), o.arcs...)
			break
		}
	}
	if o == nil {
		return dst, exception(TypeEndOfMIBView)
	}
	index := v.s.index(o.table, p)
	for _, arc := range index[:o.table.depth()] {
		dst = append(dst, uint32(arc))
	}
	if len(end) > 0 && slices.Compare(dst, end) >= 0 {
		return dst[:0], exception(TypeEndOfMIBView)
	}
	return dst, o.value(v, p)
}

// find is the search of Next in one module: in the object that start falls into,
// and then at the beginning of each object after it until one has an instance.
// It returns nil if none has.
func (v View) find(m *module, start []uint32, include bool) (*object, pos) {
	i := 0
	if hasPrefix(start, m.root) {
		rest := start[len(m.root):]
		if i = m.lastAtOrBefore(rest); i >= 0 && hasPrefix(rest, m.objects[i].arcs) {
			o := &m.objects[i]
			at := bound(rest[len(o.arcs):], o.table.depth(), include)
			if p, ok := v.s.ceil(o.table, at); ok {
				return o, p
			}
		}
		i++
	} else if slices.Compare(start, m.root) > 0 {
		return nil, pos{}
	}
	for ; i < len(m.objects); i++ {
		o := &m.objects[i]
		if p, ok := v.s.ceil(o.table, arcs{}); ok {
			return o, p
		}
	}
	return nil, pos{}
}

func hasPrefix(oid, prefix []uint32) bool {
	return len(oid) >= len(prefix) && slices.Equal(oid[:len(prefix)], prefix)
}

// lastAtOrBefore returns the last object whose identifier is not greater than
// rest, -1 if there is none.
func (m *module) lastAtOrBefore(rest []uint32) int {
	lo, hi := 0, len(m.objects)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if slices.Compare(m.objects[mid].arcs, rest) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// arcs is an index as numbers, wide enough that one more than the greatest arc
// does not wrap. Indexes shorter than three have zeros behind.
type arcs [3]uint64

// bound returns the least index of depth arcs that comes at or after rest
// (include) or after it. An index that rest is a prefix of comes after rest,
// and one that is a prefix of rest comes before it.
func bound(rest []uint32, depth int, include bool) (at arcs) {
	n := min(len(rest), depth)
	for i, arc := range rest[:n] {
		at[i] = uint64(arc)
	}
	if len(rest) > depth || len(rest) == depth && !include {
		at[depth-1]++
	}
	return at
}

// pos is the place of an instance: a machine, a part of it from 0, and the
// place of a physical CPU in Host.PhysCPUs.
type pos struct {
	row  *row
	sub  int
	phys int
}

// ceil finds the first instance of a table whose index is at or after at.
func (s *Snapshot) ceil(t table, at arcs) (pos, bool) {
	if t == scalars {
		return pos{}, at[0] == 0
	}
	if t == affinityTable && len(s.host.PhysCPUs) == 0 {
		return pos{}, false
	}
	rows := s.rows(t)
	i, exact := search(rows, at[0])
	if !exact {
		at[1], at[2] = 0, 0
	}
	for ; i < len(rows); i++ { // at most twice: every row has a part
		if p, ok := s.ceilPart(t, rows[i], at[1], at[2]); ok {
			return p, true
		}
		at[1], at[2] = 0, 0
	}
	return pos{}, false
}

// ceilPart is ceil within one machine. Parts are numbered from 1 without gaps.
func (s *Snapshot) ceilPart(t table, r *row, part, phys uint64) (pos, bool) {
	p := pos{row: r}
	if t == vmTable {
		return p, true
	}
	n := uint64(r.parts(t))
	if part == 0 {
		part, phys = 1, 0
	}
	if t == affinityTable {
		k, ok := s.ceilPhys(phys)
		if !ok {
			part, k = part+1, 0
		}
		p.phys = k
	}
	if part > n {
		return p, false
	}
	p.sub = int(part - 1)
	return p, true
}

func (s *Snapshot) ceilPhys(phys uint64) (int, bool) {
	k, _ := slices.BinarySearchFunc(s.host.PhysCPUs, phys, func(cpu int32, want uint64) int {
		switch have := uint64(cpu) + uint64(s.host.PhysBase); {
		case have < want:
			return -1
		case have > want:
			return 1
		}
		return 0
	})
	return k, k < len(s.host.PhysCPUs)
}

// index returns the index of the instance at p.
func (s *Snapshot) index(t table, p pos) (at arcs) {
	switch t {
	case scalars:
		return at
	case affinityTable:
		at[2] = uint64(s.host.PhysBase) + uint64(s.host.PhysCPUs[p.phys])
		fallthrough
	case cpuTable, storageTable, networkTable:
		at[1] = uint64(p.sub) + 1
	}
	at[0] = uint64(p.row.vm.Index)
	return at
}

func (s *Snapshot) rows(t table) []*row {
	switch t {
	case cpuTable, affinityTable:
		return s.tables.cpus
	case storageTable:
		return s.tables.disks
	case networkTable:
		return s.tables.nics
	}
	return s.tables.vms
}

func (r *row) parts(t table) int {
	switch t {
	case cpuTable, affinityTable:
		return len(r.base.VCPUs)
	case storageTable:
		return len(r.disks)
	}
	return len(r.macs)
}
