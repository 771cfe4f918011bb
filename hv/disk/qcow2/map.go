package qcow2

// kind is what an L2 entry says of its cluster.
type kind uint8

const (
	hole   kind = iota // not here: the base image's, or zeros
	zeros              // zeros, whatever the base image has
	stored             // at host
	packed             // compressed
)

// mapping is where a place on the disk is kept.
type mapping struct {
	kind kind
	// copied says that host belongs to this place alone and may be written.
	copied bool
	// host is where the place is in the file, if it is stored. A zeros cluster
	// may have one too, for when it is written; its contents mean nothing.
	host int64
	// entry is the L2 entry of a packed cluster.
	entry uint64
}

// run is a mapping that goes on for n bytes.
type run struct {
	mapping
	n int64
}

// owned reports whether data can be written where the mapping says.
func (m *mapping) owned() bool { return m.kind == stored && m.copied }

// reusable reports whether there is a cluster to write to, which has to be
// filled first.
func (m *mapping) reusable() bool { return m.kind == zeros && m.copied && m.host != 0 }

// decode checks an L2 entry. host is that of the cluster.
func (i *Image) decode(entry uint64) (mapping, error) {
	if entry&flagCompressed != 0 {
		off, n := i.packed(entry)
		if entry&flagCopied != 0 || off < i.cluster() || off >= i.end.Load() {
			return mapping{}, corrupt("%d compressed bytes at offset %#x", n, off)
		}
		return mapping{kind: packed, entry: entry}, nil
	}
	m := mapping{kind: stored, host: int64(entry & offsetMask), copied: entry&flagCopied != 0}
	if entry&flagZero != 0 {
		if i.header.Version < 3 {
			return mapping{}, corrupt("zero cluster in a version 2 image")
		}
		m.kind = zeros
	}
	switch {
	case m.host == 0 && m.kind == stored:
		return mapping{kind: hole}, nil
	case m.host != 0 && !i.isCluster(m.host):
		return mapping{}, corrupt("cluster at offset %#x", m.host)
	}
	return m, nil
}

// place is where the L2 entry for a place on the disk is.
type place struct {
	l1    int   // index into the L1 table
	slice int64 // offset of the slice in the L2 table
	index int   // of the entry in the slice
	room  int   // entries from there to the end of the slice
}

func (i *Image) place(off int64) place {
	at := off >> i.clusterBits & (1<<i.l2Bits() - 1) * 8
	in := int(at&(i.l2.slice-1)) / 8
	return place{int(off >> i.l1Shift()), at &^ (i.l2.slice - 1), in, int(i.l2.slice/8) - in}
}

// entries returns the slot with the slice of p, or -1 if there is no L2 table.
// The caller holds mu.
func (i *Image) entries(p *place) (int, error) {
	table := int64(i.l1[p.l1] & offsetMask)
	if table == 0 {
		return -1, nil
	}
	return i.l2.get(i.file, table+p.slice)
}

// lookup says where the disk from off is kept, for as long as that goes on in
// one piece and for at most n bytes, which must exist.
func (i *Image) lookup(off, n int64) (run, error) {
	i.mu.Lock()
	r, err := i.lookupLocked(off, n)
	i.mu.Unlock()
	return r, err
}

func (i *Image) lookupLocked(off, n int64) (run, error) {
	p := i.place(off)
	k, err := i.entries(&p)
	if err != nil {
		return run{}, err
	}
	if k < 0 {
		return run{n: min(n, 1<<i.l1Shift()-off&(1<<i.l1Shift()-1))}, nil
	}
	return i.scanRun(i.l2.slots[k].data, &p, off, n)
}

// scanRun reads entries from p on for as long as they go on from the first.
func (i *Image) scanRun(slice []byte, p *place, off, n int64) (run, error) {
	m, err := i.decode(be.Uint64(slice[p.index*8:]))
	if err != nil {
		return run{}, err
	}
	inside := off & (i.cluster() - 1)
	r := run{m, i.cluster() - inside}
	next := m
	for k := 1; k < p.room && r.n < n && m.kind != packed; k++ {
		if next, err = i.decode(be.Uint64(slice[(p.index+k)*8:])); err != nil {
			break // for whoever comes there
		}
		if next.kind != m.kind || m.kind == stored && (next.copied != m.copied || next.host != m.host+int64(k)<<i.clusterBits) {
			break
		}
		r.n += i.cluster()
	}
	if r.n = min(r.n, n); r.kind == stored {
		r.host += inside
	}
	return r, nil
}

// lookupWrite is lookup for writing: it refuses to say that metadata is the
// guest's.
func (i *Image) lookupWrite(off, n int64) (run, error) {
	i.mu.Lock()
	r, err := i.lookupLocked(off, n)
	if err == nil && r.owned() && i.meta.holds(r.host, r.n, i.cluster()) {
		err = corrupt("data of the disk at %#x lies on a table at offset %#x", off, r.host)
	}
	i.mu.Unlock()
	return r, err
}

// peek returns the L2 entry for off, 0 if there is no table.
func (i *Image) peek(off int64) (uint64, error) {
	p := i.place(off)
	i.mu.Lock()
	k, err := i.entries(&p)
	var e uint64
	if err == nil && k >= 0 {
		e = be.Uint64(i.l2.slots[k].data[p.index*8:])
	}
	i.mu.Unlock()
	return e, err
}
