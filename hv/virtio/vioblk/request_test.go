package vioblk

import (
	"bytes"
	"testing"

	"vmd/hv/virtio"
)

// memory is an image in memory that fails the test when it is asked for
// something outside itself.
type memory struct {
	t *testing.T
	b []byte
}

func (m *memory) check(off, n int64) {
	if off < 0 || n < 0 || off > int64(len(m.b)) || n > int64(len(m.b))-off {
		m.t.Fatalf("access of %d bytes at %d of a disk of %d", n, off, len(m.b))
	}
}

func (m *memory) Size() int64  { return int64(len(m.b)) }
func (m *memory) Flush() error { return nil }
func (m *memory) Close() error { return nil }

func (m *memory) ReadAtV(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		m.check(off, int64(len(b)))
		off += int64(copy(b, m.b[off:]))
	}
	return nil
}

func (m *memory) WriteAtV(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		m.check(off, int64(len(b)))
		off += int64(copy(m.b[off:], b))
	}
	return nil
}

func (m *memory) Discard(off, n int64) error { return m.WriteZeroes(off, n, true) }

func (m *memory) WriteZeroes(off, n int64, _ bool) error {
	m.check(off, n)
	clear(m.b[off : off+n])
	return nil
}

// cut splits b into pieces whose lengths come from cuts.
func cut(b, cuts []byte) [][]byte {
	var out [][]byte
	for _, c := range cuts {
		n := min(int(c)*8+1, len(b))
		if n > 0 {
			out, b = append(out, b[:n]), b[n:]
		}
	}
	if len(b) > 0 {
		out = append(out, b)
	}
	return out
}

// FuzzBlkRequest carries out whatever the bytes of a request say on a small
// disk, cut into whatever descriptors.
func FuzzBlkRequest(f *testing.F) {
	head := func(op byte, sector byte) []byte { return []byte{op, 0, 0, 0, 0, 0, 0, 0, sector, 0, 0, 0, 0, 0, 0, 0} }
	f.Add(head(0, 1), uint16(1025), []byte{1, 2}, false)
	f.Add(append(head(1, 1), make([]byte, 512)...), uint16(1), []byte{0}, false)
	f.Add(head(4, 0), uint16(1), []byte{}, true)
	f.Add(head(8, 0), uint16(21), []byte{}, false)
	f.Add(append(head(11, 0), 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0), uint16(1), []byte{}, false)
	f.Add(append(head(13, 0), 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0), uint16(1), []byte{9}, false)
	f.Fuzz(func(t *testing.T, in []byte, outLen uint16, cuts []byte, readOnly bool) {
		img := &memory{t, bytes.Repeat([]byte{0xaa}, 8*sectorSize)}
		before := bytes.Clone(img.b)
		d, err := New(img, Config{ReadOnly: readOnly})
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, outLen)
		s := &server{d: d, q: nil, limits: limits{d.sectors(), d.Features(), readOnly}}
		n := &slot{chain: virtio.Chain{Readable: cut(in, cuts), Writable: cut(out, cuts)}}
		if err := n.req.parse(&n.chain, &s.limits); err != nil {
			if len(in) >= len(reqHeader{}) && outLen > 0 {
				t.Fatalf("request with header and status refused: %v", err)
			}
			return
		}
		if s.do(n); n.written > uint32(outLen) {
			t.Errorf("used length %d of %d", n.written, outLen)
		}
		s.count(&n.req, 1)
		if readOnly && !bytes.Equal(img.b, before) {
			t.Error("a read-only disk changed")
		}
	})
}
