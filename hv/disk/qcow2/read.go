package qcow2

import (
	"fmt"

	"vmd/hv/disk"
)

// ReadAtV implements disk.Image.
func (i *Image) ReadAtV(bufs [][]byte, off int64) error {
	n := disk.Len(bufs)
	if err := disk.CheckRange(i.size, off, n); err != nil || n == 0 {
		return err
	}
	i.busy.RLock()
	err := i.read(bufs, off, n)
	i.busy.RUnlock()
	if err != nil {
		return fmt.Errorf("read disk at %#x: %w", off, err)
	}
	return nil
}

func (i *Image) read(bufs [][]byte, off, n int64) error {
	r, err := i.lookup(off, n)
	if err != nil {
		return err
	}
	if r.n == n {
		return i.fetch(&r.mapping, bufs, off, n)
	}
	s := i.pool.get()
	s.reset(bufs)
	for err == nil {
		if err = i.fetch(&r.mapping, s.take(r.n), off, r.n); err != nil {
			break
		}
		off, n = off+r.n, n-r.n
		if n == 0 {
			break
		}
		r, err = i.lookup(off, n)
	}
	i.pool.put(s)
	return err
}

// fetch fills bufs with the n bytes that m keeps for off.
func (i *Image) fetch(m *mapping, bufs [][]byte, off, n int64) error {
	switch m.kind {
	case stored:
		return i.file.ReadAtV(bufs, m.host)
	case packed:
		return i.unpack(m.entry, bufs, off&(i.cluster()-1))
	case hole:
		return i.readBase(bufs, off, n)
	}
	zero(bufs)
	return nil
}

// readBase reads what the image does not hold. A base may be shorter than what
// stands on it.
func (i *Image) readBase(bufs [][]byte, off, n int64) error {
	if i.base == nil {
		zero(bufs)
		return nil
	}
	have := min(n, i.base.Size()-off)
	switch {
	case have == n:
		return i.base.ReadAtV(bufs, off)
	case have <= 0:
		zero(bufs)
		return nil
	}
	s := i.pool.get()
	s.reset(bufs)
	err := i.base.ReadAtV(s.take(have), off)
	zero(s.take(n - have))
	i.pool.put(s)
	return err
}

// empty reports whether m reads as zeros for n bytes from off without asking
// anybody.
func (i *Image) empty(m *mapping, off int64) bool {
	return m.kind == zeros || m.kind == hole && (i.base == nil || off >= i.base.Size())
}
