package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// stream writes sections with f and returns the bytes.
func stream(t testing.TB, f func(w *Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := f(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if w.Written() != uint64(b.Len()) {
		t.Errorf("wrote %d bytes, counted %d", b.Len(), w.Written())
	}
	return b.Bytes()
}

// section builds a section with a right checksum, whatever else is wrong.
func section(tag Tag, flags uint16, payload string) []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(tag))
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	sum := crc32.Checksum([]byte(string(b)+payload), crc32.MakeTable(crc32.Castagnoli))
	return append(binary.LittleEndian.AppendUint32(b, sum), payload...)
}

var head = append([]byte(magic), 1, 0, 0, 0)

// drain reads b to its end.
func drain(b []byte) (got []string, err error) {
	r := NewReader(bytes.NewReader(b))
	for {
		tag, p, err := r.Next()
		if err != nil {
			if tag != 0 || p != nil {
				return got, errors.New("an error and a section")
			}
			return got, err
		}
		got = append(got, tag.String()+":"+string(p))
	}
}

func TestRoundTrip(t *testing.T) {
	big := strings.Repeat("x", MaxSection)
	b := stream(t, func(w *Writer) error {
		return errors.Join(w.Section(Definition, []byte("d")), w.Section(Pages, nil),
			w.Section(Device, []byte(big)), w.Section(Optional+7, []byte("?")), w.Section(Go, []byte{}))
	})
	for name, in := range map[string]io.Reader{
		"whole":       bytes.NewReader(b),
		"in halves":   iotest.HalfReader(bytes.NewReader(b)),
		"with an end": iotest.DataErrReader(bytes.NewReader(b)),
	} {
		r := NewReader(in)
		for _, want := range []struct {
			tag Tag
			p   string
		}{{Definition, "d"}, {Pages, ""}, {Device, big}, {Go, ""}} {
			for range 2 { // the second time after Unread
				tag, p, err := r.Next()
				if tag != want.tag || string(p) != want.p || err != nil {
					t.Fatalf("%s: %v of %d bytes, %v; want %v of %d", name, tag, len(p), err, want.tag, len(want.p))
				}
				r.Unread()
			}
			r.Next()
		}
		for range 2 {
			if _, _, err := r.Next(); err != io.EOF {
				t.Errorf("%s: at the end: %v", name, err)
			}
			r.Unread() // has nothing to put back
		}
	}
	if _, _, err := NewReader(bytes.NewReader(nil)).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("nothing: %v", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"other magic":     {append([]byte("vmdstatf"), 1, 0, 0, 0), ErrFormat},
		"later version":   {append([]byte(magic), 2, 0, 0, 0), ErrVersion},
		"version 0":       {append([]byte(magic), 0, 0, 0, 0), ErrVersion},
		"half a head":     {head[:5], io.ErrUnexpectedEOF},
		"half a section":  {append(bytes.Clone(head), section(Go, 1, "x")[:12]...), io.ErrUnexpectedEOF},
		"unknown":         {append(bytes.Clone(head), section(99, 1, "x")...), ErrVersion},
		"tag 0":           {append(bytes.Clone(head), section(0, 1, "x")...), ErrVersion},
		"odd flags":       {append(bytes.Clone(head), section(Go, 3, "x")...), ErrFormat},
		"optional Go":     {append(bytes.Clone(head), section(Go, 0, "x")...), ErrFormat},
		"too long":        {append(bytes.Clone(head), 13, 0, 1, 0, 1, 0, 16, 0, 0, 0, 0, 0), ErrFormat},
		"says it is long": {append(bytes.Clone(head), 13, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0), io.ErrUnexpectedEOF},
	} {
		if _, err := drain(c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if got, err := drain(append(bytes.Clone(head), section(99, 0, "x")...)); err != io.EOF || got != nil {
		t.Errorf("an unknown section that may be passed over: %v, %v", got, err)
	}
	w := NewWriter(io.Discard)
	if err := w.Section(Go, make([]byte, MaxSection+1)); err == nil {
		t.Error("a section of more than MaxSection was written")
	}
}

// TestDamage cuts a stream at every byte and flips every bit of it: no reader
// may take it for the whole one.
func TestDamage(t *testing.T) {
	b := stream(t, func(w *Writer) error {
		return errors.Join(w.Section(Machine, []byte("machine")), w.Section(Optional, []byte("o")), w.Section(End, []byte("end")))
	})
	whole, err := drain(b)
	if err != io.EOF || len(whole) != 2 {
		t.Fatalf("%q, %v", whole, err)
	}
	for n := range b {
		got, err := drain(b[:n])
		if err == io.EOF && len(got) == len(whole) {
			t.Errorf("cut at %d: not seen", n)
		}
	}
	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := drain(bad); err == nil || err == io.EOF {
			t.Errorf("bit %d flipped: read %q, %v", i, got, err)
		}
	}
}

// TestNoMemoryOnPromise says that a section's length alone costs nothing.
func TestNoMemoryOnPromise(t *testing.T) {
	r := NewReader(bytes.NewReader(append(bytes.Clone(head), 13, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 'x')))
	if _, _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if cap(r.payload) > bufferSize {
		t.Errorf("made room for %d bytes of which one came", cap(r.payload))
	}
}

func TestExpect(t *testing.T) {
	b := stream(t, func(w *Writer) error {
		return errors.Join(w.Section(Machine, nil), w.Section(Abort, []byte("disk full")))
	})
	r := NewReader(bytes.NewReader(b))
	if _, err := r.Expect(Machine); err != nil {
		t.Error(err)
	}
	if _, err := r.Expect(Go); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("an abort: %v", err)
	}
	if _, err := r.Expect(Go); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the end: %v", err)
	}
	r = NewReader(bytes.NewReader(b))
	if _, err := r.Expect(Go); !errors.Is(err, ErrFormat) {
		t.Errorf("another section: %v", err)
	}
}

// sample stands for a part's state.
type sample struct {
	A uint16   `cbor:"1,keyasint"`
	B []byte   `cbor:"2,keyasint"`
	C [2]uint8 `cbor:"3,keyasint"`
}

func TestDecodeIsStrict(t *testing.T) {
	good, err := Encode(sample{7, []byte("b"), [2]uint8{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	if err := Decode(good, &s); err != nil || s.A != 7 || string(s.B) != "b" || s.C != [2]uint8{1, 2} {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, b := range map[string]string{
		"nothing":       "",
		"a bigger A":    "\xa1\x01\x1a\x00\x01\x00\x00",
		"unknown field": "\xa1\x09\x00",
		"twice A":       "\xa2\x01\x00\x01\x00",
		"endless":       "\xbf\x01\x00\xff",
		"tagged":        "\xa1\x01\xc1\x00",
		"text for A":    "\xa1\x01\x61x",
		"more behind":   string(good) + "\x00",
		"much promised": "\xa1\x02\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
		"bytes missing": "\xa1\x02\x5b\x00\x00\x00\x7f\xff\xff\xff\xff",
		"deep":          strings.Repeat("\x81", 20) + "\x00",
	} {
		var s sample
		if err := Decode([]byte(b), &s); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if _, err := Encode(func() {}); err == nil {
		t.Error("a function was encoded")
	}
}

func TestPutGet(t *testing.T) {
	b := stream(t, func(w *Writer) error { return w.Put(Chip, sample{A: 1}) })
	var s sample
	if err := NewReader(bytes.NewReader(b)).Get(Chip, &s); err != nil || s.A != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := NewReader(bytes.NewReader(b)).Get(VCPU, &s); err == nil {
		t.Error("a chip for a vCPU")
	}
}

func TestWriterBreaks(t *testing.T) {
	w := NewWriter(brokenWriter{})
	var err error
	for range 3 {
		err = errors.Join(w.Section(Pages, make([]byte, MaxSection)), w.Flush())
	}
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func FuzzReader(f *testing.F) {
	f.Add(stream(f, func(w *Writer) error {
		return errors.Join(w.Section(Machine, []byte("m")), w.Section(Optional, nil), w.Section(End, nil))
	}))
	f.Add(append(bytes.Clone(head), section(99, 1, "x")...))
	f.Add(head)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for {
			tag, p, err := r.Next()
			if err != nil {
				if _, _, again := r.Next(); again != err {
					t.Fatalf("%v, then %v", err, again)
				}
				return
			}
			if !tag.known() || len(p) > MaxSection || len(p) > len(b) {
				t.Fatalf("%v of %d bytes", tag, len(p))
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	good, _ := Encode(sample{7, []byte("b"), [2]uint8{1, 2}})
	f.Add(good)
	f.Add([]byte("\xa1\x02\x9b\x7f\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s sample
		if Decode(b, &s) != nil {
			return
		}
		again, err := Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		var s2 sample
		if err := Decode(again, &s2); err != nil || s2.A != s.A || !bytes.Equal(s2.B, s.B) {
			t.Fatalf("%+v became %+v, %v", s, s2, err)
		}
	})
}
