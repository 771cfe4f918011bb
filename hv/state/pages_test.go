package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmd/hv/mem"
	"vmd/internal/golden"
)

// ram makes a memory of n pages at 0 and as many at 4 GiB.
func ram(t testing.TB, n int) *mem.Memory {
	t.Helper()
	m, err := mem.New(mem.Region{Base: 0, Bytes: make([]byte, n*mem.Page)},
		mem.Region{Base: 1 << 32, Bytes: make([]byte, n*mem.Page)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Kinds of content that pages have.
var contents = map[string]func(page []byte, i int){
	"zero": func([]byte, int) {},
	"text": func(p []byte, i int) {
		for len(p) > 0 {
			n := copy(p, "the quick brown fox jumps over the lazy dog; ")
			p[0] = byte(i)
			i = i*31 + 7
			p = p[n:]
		}
	},
	"random": func(p []byte, i int) {
		r := rand.New(rand.NewPCG(uint64(i), 1))
		for ; len(p) > 0; p = p[8:] {
			binary.LittleEndian.PutUint64(p, r.Uint64())
		}
	},
}

func fill(m *mem.Memory, f func(page []byte, i int)) {
	for _, r := range m.Regions() {
		for off := 0; off < len(r.Bytes); off += mem.Page {
			f(r.Bytes[off:off+mem.Page], off/mem.Page)
		}
	}
}

// send writes all of m.
func send(t testing.TB, w *Writer, m *mem.Memory) {
	t.Helper()
	p := NewPageWriter(w)
	defer p.Close()
	for _, r := range m.Regions() {
		for off := 0; off < len(r.Bytes); off += mem.Page {
			if _, err := p.Page(r.Base+mem.GPA(off), r.Bytes[off:off+mem.Page]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(p.Flush(), w.Flush()); err != nil {
		t.Fatal(err)
	}
}

// receive puts the pages of a stream into m.
func receive(m *mem.Memory, r *Reader) error {
	p := NewPageReader(m)
	defer p.Close()
	for {
		tag, b, err := r.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case tag != Pages:
			return Unexpected(tag, b)
		}
		if err := p.Apply(b); err != nil {
			return err
		}
	}
}

func same(a, b *mem.Memory) bool {
	for i, r := range a.Regions() {
		if !bytes.Equal(r.Bytes, b.Regions()[i].Bytes) {
			return false
		}
	}
	return true
}

func TestPagesArrive(t *testing.T) {
	contents := map[string]func([]byte, int){"zero": contents["zero"], "text": contents["text"], "random": contents["random"],
		"mixed": func(p []byte, i int) {
			contents[[]string{"zero", "text", "random", "text"}[rand.New(rand.NewPCG(uint64(i/3), 2)).IntN(4)]](p, i)
		}}
	for name, content := range contents {
		from, to := ram(t, 300), ram(t, 300)
		fill(from, content)
		fill(to, func(p []byte, _ int) { p[17] = 1 }) // what is there goes
		var b bytes.Buffer
		send(t, NewWriter(&b), from)
		n := b.Len()
		if err := receive(to, NewReader(&b)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !same(from, to) {
			t.Errorf("%s: memory differs", name)
		}
		t.Logf("%s: %d bytes for %d", name, n, from.Size())
	}
}

// run builds the payload of a section Pages.
func run(gpa uint64, n, kind uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, gpa)
	b = binary.LittleEndian.AppendUint32(b, n)
	return append(binary.LittleEndian.AppendUint32(b, kind), data...)
}

// frame is the pages as a PageWriter compresses them.
func frame(t testing.TB, pages []byte) []byte {
	t.Helper()
	p := NewPageWriter(NewWriter(io.Discard))
	defer p.Close()
	return p.enc.EncodeAll(pages, nil)
}

func TestApplyRefuses(t *testing.T) {
	page := make([]byte, mem.Page)
	bomb := frame(t, make([]byte, 64<<20))
	for name, b := range map[string][]byte{
		"nothing":              {},
		"short":                run(0, 1, 0, nil)[:15],
		"not on a page":        run(1, 1, 1, page),
		"no pages":             run(0, 0, 0, nil),
		"outside":              run(200<<12, 1, 1, page),
		"over the end":         run(99<<12, 2, 0, nil),
		"wraps":                run(^uint64(0)&^0xfff, 2, 0, nil),
		"many":                 run(0, maxZeroRun+1, 0, nil),
		"most":                 run(0, ^uint32(0), 0, nil),
		"many with data":       run(0, maxRun+1, 1, make([]byte, (maxRun+1)*mem.Page)),
		"zero with data":       run(0, 1, 0, page),
		"raw without data":     run(0, 1, 1, nil),
		"raw with less":        run(0, 2, 1, page),
		"raw with more":        run(0, 1, 1, append(page, 0)),
		"kind":                 run(0, 1, 3, page),
		"kind in high bytes":   run(0, 1, 1<<8|1, page),
		"not a frame":          run(0, 1, 2, page),
		"no frame":             run(0, 1, 2, nil),
		"frame of less":        run(0, 2, 2, frame(t, page)),
		"frame of more":        run(0, 1, 2, frame(t, make([]byte, 2*mem.Page))),
		"frame of a lot":       run(0, 1, 2, bomb),
		"many frames of a lot": run(0, maxRun, 2, bytes.Repeat(frame(t, make([]byte, maxRun*mem.Page)), 1000)),
		"half a frame":         run(0, 1, 2, frame(t, page)[:9]),
	} {
		m := ram(t, 100)
		p := NewPageReader(m)
		if err := p.Apply(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if cap(p.buf) != maxRun*mem.Page {
			t.Errorf("%s: holds %d bytes", name, cap(p.buf))
		}
		p.Close()
	}
}

// TestGolden holds a small stream of version 1 against the one that is stored:
// what has been written once must be read for ever, and be written the same.
// The compressor may change what it writes, so that what it wrote once is only
// read.
func TestGolden(t *testing.T) {
	m := ram(t, 14)
	fill(m, func(p []byte, i int) {
		if i > 2 && i < 9 {
			contents["text"](p, i)
		} else if i == 11 {
			contents["random"](p, i)
		}
	})
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := errors.Join(
		w.Put(Machine, sample{A: 1, B: []byte("machine"), C: [2]uint8{3, 4}}),
		w.Section(Optional|1, []byte("a later version's")),
		w.Section(Pages, run(0, 1, 1, m.Regions()[0].Bytes[:mem.Page])),
	); err != nil {
		t.Fatal(err)
	}
	exact := b.Len()
	send(t, w, m)
	if err := errors.Join(w.Section(MachineEnd, nil), w.Flush()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("testdata", "stream.v1")
	if golden.Updating() {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(stored, b.Bytes()[:min(exact, b.Len())]) {
		t.Error("this version writes another stream")
	}
	r := NewReader(bytes.NewReader(stored))
	var s sample
	if err := r.Get(Machine, &s); err != nil || s.A != 1 || string(s.B) != "machine" || s.C != [2]uint8{3, 4} {
		t.Errorf("%+v, %v", s, err)
	}
	to := ram(t, 14)
	if err := receive(to, r); err == nil || err.Error() != Unexpected(MachineEnd, nil).Error() {
		t.Errorf("at the end of the pages: %v", err)
	}
	if !same(m, to) {
		t.Error("the stored stream gives another memory")
	}
}

func TestPagesDoNotAllocate(t *testing.T) {
	for name, content := range contents {
		m, to := ram(t, 100), ram(t, 100)
		fill(m, content)
		w := NewWriter(io.Discard)
		p, r := NewPageWriter(w), NewPageReader(to)
		b := m.Regions()[0].Bytes
		all := func() {
			for off := 0; off < len(b); off += mem.Page {
				if _, err := p.Page(mem.GPA(off), b[off:]); err != nil {
					t.Fatal(err)
				}
			}
			p.Flush()
		}
		all()
		if n := testing.AllocsPerRun(20, all); n != 0 {
			t.Errorf("%s: %v allocations to write", name, n)
		}
		f := run(0, maxRun, 2, frame(t, b[:maxRun*mem.Page]))
		if n := testing.AllocsPerRun(20, func() {
			if err := r.Apply(f); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations to read", name, n)
		}
		p.Close()
		r.Close()
	}
}

func FuzzPages(f *testing.F) {
	text := make([]byte, 2*mem.Page)
	contents["text"](text, 1)
	f.Add(run(0, 2, 2, frame(f, text)))
	f.Add(run(1<<32, 2, 1, text))
	f.Add(run(0, 3, 0, nil))
	m, err := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 4*mem.Page)}, mem.Region{Base: 1 << 32, Bytes: make([]byte, 4*mem.Page)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := NewPageReader(m)
		defer p.Close()
		if err := p.Apply(b); err != nil && !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
	})
}

func BenchmarkPages(b *testing.B) {
	const pages = 1 << 12
	for _, name := range []string{"zero", "text", "random"} {
		m := ram(b, pages)
		fill(m, contents[name])
		ramBytes := m.Regions()[0].Bytes
		b.Run("write/"+name, func(b *testing.B) {
			w := NewWriter(io.Discard)
			p := NewPageWriter(w)
			defer p.Close()
			b.SetBytes(pages * mem.Page)
			b.ReportAllocs()
			for range b.N {
				for off := 0; off < len(ramBytes); off += mem.Page {
					if _, err := p.Page(mem.GPA(off), ramBytes[off:]); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(w.Written())/float64(b.N)/pages, "sent/page")
		})
		b.Run("read/"+name, func(b *testing.B) {
			var stream bytes.Buffer
			send(b, NewWriter(&stream), m)
			to := ram(b, pages)
			b.SetBytes(2 * pages * mem.Page)
			b.ReportAllocs()
			for range b.N {
				if err := receive(to, NewReader(bytes.NewReader(stream.Bytes()))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
