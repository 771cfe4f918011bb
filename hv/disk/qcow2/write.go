package qcow2

import (
	"fmt"

	"vmd/hv/disk"
)

// WriteAtV implements disk.Image.
func (i *Image) WriteAtV(bufs [][]byte, off int64) error {
	n := disk.Len(bufs)
	if err := i.change(off, n); err != nil || n == 0 {
		return err
	}
	if err := i.write(bufs, off, n); err != nil {
		return fmt.Errorf("write disk at %#x: %w", off, err)
	}
	return nil
}

func (i *Image) write(bufs [][]byte, off, n int64) error {
	i.busy.RLock()
	r, err := i.lookupWrite(off, n)
	if err == nil && r.owned() && r.n == n {
		err = i.file.WriteAtV(bufs, r.host)
		i.busy.RUnlock()
		return err
	}
	i.busy.RUnlock()
	if err != nil {
		return err
	}
	s := i.pool.get()
	s.reset(bufs)
	err = i.writePieces(s, off, n)
	i.pool.put(s)
	return err
}

// writePieces writes n bytes out of s. Between two pieces the request holds no
// lock and knows no offset.
func (i *Image) writePieces(s *scratch, off, n int64) error {
	for n > 0 {
		if err := i.makeRoom(); err != nil {
			return err
		}
		i.busy.RLock()
		done, err := i.writePiece(s, off, n)
		i.busy.RUnlock()
		if err != nil {
			return err
		}
		off, n = off+done, n-done
	}
	return nil
}

// writePiece writes some of n bytes, none of them if the image changed under
// it.
func (i *Image) writePiece(s *scratch, off, n int64) (int64, error) {
	r, err := i.lookupWrite(off, n)
	if err != nil {
		return 0, err
	}
	if r.owned() {
		return r.n, i.file.WriteAtV(s.take(r.n), r.host)
	}
	return i.writeNew(s, off, n)
}

// fresh is new clusters on their way into the disk.
type fresh struct {
	first, count int64 // clusters of the disk
	host         int64
	clean        bool    // host lies beyond all that was ever written: it reads as zeros
	reused       bool    // host was the disk's already
	head, tail   mapping // what the first and the last of them were
}

// writeNew writes to clusters that are not the image's own yet.
func (i *Image) writeNew(s *scratch, off, n int64) (int64, error) {
	i.alloc.Lock()
	w, err := i.prepare(s, off, n)
	i.alloc.Unlock()
	if err != nil || w.count == 0 {
		return 0, err
	}
	n = min(n, (w.first+w.count)<<i.clusterBits-off)
	err = i.fill(s, &w, off, n)
	i.alloc.Lock()
	if err == nil {
		err = i.link(&w)
	}
	if err != nil && !w.reused {
		i.giveBack(w.host, w.count)
	}
	i.inflight.remove(w.first)
	i.alloc.Unlock()
	return n, err
}

// prepare finds clusters for a write of n bytes at off. It returns none if it
// had to wait: the disk is not what it was.
func (i *Image) prepare(s *scratch, off, n int64) (w fresh, err error) {
	p := i.place(off)
	w.first = off >> i.clusterBits
	last := min((off+n-1)>>i.clusterBits, w.first+int64(p.room)-1)
	if i.inflight.wait(w.first, last) {
		return fresh{}, nil
	}
	if err := i.ready(); err != nil {
		return fresh{}, err
	}
	if err := i.ownTable(s, p.l1); err != nil {
		return fresh{}, err
	}
	want, err := i.needed(&w, &p, last)
	if err != nil || want == 0 {
		return fresh{}, err
	}
	w.count = want
	if w.head.reusable() {
		w.host, w.count, w.reused = w.head.host, 1, true
	} else if w.host, w.count, w.clean, err = i.allocate(want); err != nil {
		return fresh{}, err
	}
	if w.count > 0 && w.count < want {
		err = i.decodeAt(w.first+w.count-1, &w.tail)
	}
	if err != nil {
		i.giveBack(w.host, w.count)
		return fresh{}, err
	}
	i.inflight.add(w.first, w.first+w.count-1)
	return w, nil
}

// needed counts the clusters from w.first to last that need a new one, and
// notes what the first and the last of them are.
func (i *Image) needed(w *fresh, p *place, last int64) (int64, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	k, err := i.entries(p)
	if err != nil {
		return 0, err
	}
	slice := i.l2.slots[k].data
	n := int64(0)
	for ; w.first+n <= last; n++ {
		m, err := i.decode(be.Uint64(slice[(p.index+int(n))*8:]))
		if err != nil && n == 0 {
			return 0, err
		}
		if err != nil || m.owned() || n > 0 && m.reusable() {
			break
		}
		if m.host != 0 && m.copied && i.meta.holds(m.host, i.cluster(), i.cluster()) {
			return 0, corrupt("cluster %d lies on a table at offset %#x", w.first+n, m.host)
		}
		if n == 0 {
			w.head = m
		}
		if w.tail = m; m.reusable() {
			return 1, nil
		}
	}
	return n, nil
}

func (i *Image) decodeAt(cluster int64, m *mapping) error {
	e, err := i.peek(cluster << i.clusterBits)
	if err == nil {
		*m, err = i.decode(e)
	}
	return err
}

// fill writes the data and, around it, what the disk had there before.
func (i *Image) fill(s *scratch, w *fresh, off, n int64) error {
	start, stop := w.first<<i.clusterBits, (w.first+w.count)<<i.clusterBits
	if err := i.copyOld(s, &w.head, w, start, off); err != nil {
		return err
	}
	if err := i.file.WriteAtV(s.take(n), w.host+off-start); err != nil {
		return err
	}
	return i.copyOld(s, &w.tail, w, off+n, stop)
}

// copyOld copies the disk from start to stop, which m keeps, into w.
func (i *Image) copyOld(s *scratch, m *mapping, w *fresh, start, stop int64) error {
	host := w.host + start - w.first<<i.clusterBits
	n := stop - start
	if n == 0 {
		return nil
	}
	if i.empty(m, start) {
		if w.clean && stop < (w.first+w.count)<<i.clusterBits {
			return nil
		}
		if w.clean { // only the length of the file has to be right
			return i.file.WriteFull(zeroes[:1], host+n-1)
		}
		return i.writeZeros(host, n)
	}
	old := *m
	if old.kind == stored {
		old.host += start & (i.cluster() - 1)
	}
	for n > 0 {
		b := s.buffer()[:min(n, chunk)]
		k := int64(len(b))
		if err := i.fetch(&old, s.single(b), start, k); err != nil {
			return err
		}
		if err := i.file.WriteFull(b, host); err != nil {
			return err
		}
		start, host, old.host, n = start+k, host+k, old.host+k, n-k
	}
	return nil
}

// writeZeros writes n zeros to off of the file.
func (i *Image) writeZeros(off, n int64) error {
	for n > 0 {
		k := min(n, chunk)
		if err := i.file.WriteFull(zeroes[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// link makes w the disk's. What was there before is given up.
func (i *Image) link(w *fresh) error {
	p := i.place(w.first << i.clusterBits)
	i.mu.Lock()
	defer i.mu.Unlock()
	k, err := i.entries(&p)
	if err != nil {
		return err
	}
	slice := i.l2.slots[k].data[p.index*8:]
	if !w.reused {
		if err := i.giveUpAll(slice[:w.count*8]); err != nil {
			return err
		}
	}
	for n := range w.count {
		be.PutUint64(slice[n*8:], uint64(w.host+n<<i.clusterBits)|flagCopied)
	}
	i.l2.mark(k)
	i.unsynced = true
	return nil
}

// giveUpAll gives up what the L2 entries in slice refer to, all or nothing.
func (i *Image) giveUpAll(slice []byte) error {
	for k := 0; k < len(slice); k += 8 {
		if _, err := i.refersTo(be.Uint64(slice[k:])); err != nil {
			return err
		}
	}
	for k := 0; k < len(slice); k += 8 {
		if e, _ := i.refersTo(be.Uint64(slice[k:])); e.n > 0 {
			i.giveUp(e)
		}
	}
	return nil
}

// refersTo returns the clusters that an L2 entry counts for. The caller holds
// mu.
func (i *Image) refersTo(entry uint64) (e extent, err error) {
	m, err := i.decode(entry)
	switch {
	case err != nil:
		return extent{}, err
	case m.kind == packed:
		off, n := i.packed(entry)
		e.off = off &^ (i.cluster() - 1)
		e.n = i.alignUp(min(off+n, i.end.Load())) - e.off
	case m.host != 0:
		e = extent{m.host, i.cluster()}
	}
	if e.n > 0 && i.meta.holds(e.off, e.n, i.cluster()) {
		return extent{}, corrupt("data lies on a table at offset %#x", e.off)
	}
	return e, nil
}
