package qcow2

import "vmd/hv/disk"

// NextData implements disk.Sparse.
func (i *Image) NextData(off int64) (start, end int64, err error) {
	for off < i.size {
		r, err := i.lookup(off, i.size-off)
		if err != nil {
			return 0, 0, err
		}
		switch {
		case i.empty(&r.mapping, off):
		case r.kind != hole:
			return off, off + r.n, nil
		default:
			start, end, err := disk.NextData(i.base, off)
			if err != nil || start < off+r.n {
				return start, min(end, off+r.n), err
			}
		}
		off += r.n
	}
	return i.size, i.size, nil
}
