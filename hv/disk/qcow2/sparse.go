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
			if end = min(end, off+r.n); err != nil || start < end {
				return start, end, err
			}
		}
		off += r.n
	}
	return i.size, i.size, nil
}
