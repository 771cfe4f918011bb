package qcow2

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"vmd/hv/disk"
)

// memFile is a file in memory. If it keeps a journal, that has every write
// and every sync in order.
type memFile struct {
	mu      sync.Mutex
	data    []byte
	size    int64 // when it was opened
	limit   int64 // of its length, 0: none
	journal []record
	keep    bool
	solid   bool // cannot make holes
	fail    func(op string) error
}

// record is a write, or a sync if data is nil, or a hole of n bytes.
type record struct {
	off  int64
	data []byte
	hole int64
}

var errNoSpace = errors.New("no space")

func newMem(data []byte) *memFile { return &memFile{data: data, size: int64(len(data))} }

// reopened is the file as another process finds it.
func (m *memFile) reopened() *memFile { return newMem(m.data) }

func (m *memFile) Size() int64 { return m.size }

func (m *memFile) ReadFull(p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(p)
	if off < int64(len(m.data)) {
		copy(p, m.data[off:])
	}
	return nil
}

func (m *memFile) WriteFull(p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail("write"); err != nil {
			return err
		}
	}
	if m.limit > 0 && off+int64(len(p)) > m.limit {
		return errNoSpace
	}
	if m.keep {
		m.journal = append(m.journal, record{off: off, data: bytes.Clone(p)})
	}
	m.data = apply(m.data, record{off: off, data: p})
	return nil
}

// apply carries out a record on data.
func apply(data []byte, r record) []byte {
	if r.hole > 0 {
		if r.off < int64(len(data)) {
			clear(data[r.off:min(r.off+r.hole, int64(len(data)))])
		}
		return data
	}
	if end := r.off + int64(len(r.data)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[r.off:], r.data)
	return data
}

func (m *memFile) ReadAtV(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		if err := m.ReadFull(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func (m *memFile) WriteAtV(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		if err := m.WriteFull(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func (m *memFile) WriteAt(p []byte, off int64) (int, error) { return len(p), m.WriteFull(p, off) }

func (m *memFile) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail("sync"); err != nil {
			return err
		}
	}
	if m.keep {
		m.journal = append(m.journal, record{})
	}
	return nil
}

func (m *memFile) Punch(off, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.solid {
		return
	}
	if m.keep {
		m.journal = append(m.journal, record{off: off, hole: n})
	}
	m.data = apply(m.data, record{off: off, hole: n})
}

func (m *memFile) Close() error { return nil }

// plain is a disk in memory without any cleverness: what an image is compared
// with, and a base.
type plain []byte

func (p plain) Size() int64 { return int64(len(p)) }
func (p plain) ReadAtV(bufs [][]byte, off int64) error {
	if err := disk.CheckRange(p.Size(), off, disk.Len(bufs)); err != nil {
		return err
	}
	for _, b := range bufs {
		off += int64(copy(b, p[off:]))
	}
	return nil
}
func (p plain) WriteAtV(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		off += int64(copy(p[off:], b))
	}
	return nil
}
func (p plain) Flush() error                           { return nil }
func (p plain) Discard(off, n int64) error             { return nil }
func (p plain) WriteZeroes(off, n int64, _ bool) error { clear(p[off : off+n]); return nil }
func (p plain) Close() error                           { return nil }

// newImageFile makes an image in memory.
func newImageFile(t testing.TB, o Options) *memFile {
	t.Helper()
	m := newMem(nil)
	if err := create(m, o); err != nil {
		t.Fatal(err)
	}
	return m.reopened()
}

func mustOpen(t testing.TB, m *memFile, base disk.Image) *Image {
	t.Helper()
	i, err := open(m, base, false)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// mustBeClean checks the image in data.
func mustBeClean(t testing.TB, data []byte, leaks bool) {
	t.Helper()
	r, err := check(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if r.Corruptions > 0 || r.Leaks > 0 && !leaks {
		t.Fatalf("%d corruptions, %d leaks: %q", r.Corruptions, r.Leaks, r.Problems)
	}
}

func readAll(t testing.TB, i disk.Image) []byte {
	t.Helper()
	b := make([]byte, i.Size())
	if err := i.ReadAtV([][]byte{b}, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func random(r *rand.Rand, n int64) []byte {
	b := make([]byte, n)
	for k := 0; k+8 <= len(b); k += 8 {
		be.PutUint64(b[k:], r.Uint64()|1)
	}
	return b
}

// split cuts b into a few buffers.
func split(r *rand.Rand, b []byte) [][]byte {
	var bufs [][]byte
	for len(b) > 0 && len(bufs) < 5 {
		n := 1 + r.IntN(len(b))
		bufs = append(bufs, b[:n])
		b = b[n:]
	}
	if len(b) > 0 {
		bufs = append(bufs, b)
	}
	return bufs
}
