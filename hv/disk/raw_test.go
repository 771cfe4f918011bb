package disk_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmd/hv/disk"
)

func open(t testing.TB, size int64, readOnly bool) (*disk.Raw, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	img, err := disk.NewRaw(f, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img, path
}

func TestRawLosesTheOddEnd(t *testing.T) {
	for size, want := range map[int64]int64{0: 0, 511: 0, 512: 512, 1<<20 + 511: 1 << 20} {
		if img, _ := open(t, size, false); img.Size() != want {
			t.Errorf("file of %d bytes: size %d, want %d", size, img.Size(), want)
		}
	}
}

func TestRawRange(t *testing.T) {
	img, _ := open(t, 4096, false)
	one := [][]byte{make([]byte, 512)}
	for _, off := range []int64{-1, -512, 4096, 3585, 1<<63 - 1, -1 << 63} {
		for name, err := range map[string]error{
			"read": img.ReadAtV(one, off), "write": img.WriteAtV(one, off),
			"discard": img.Discard(off, 512), "zero": img.WriteZeroes(off, 512, false),
		} {
			if !errors.Is(err, disk.ErrRange) {
				t.Errorf("%s at %d: %v, want ErrRange", name, off, err)
			}
		}
	}
	if err := img.Discard(0, -1); !errors.Is(err, disk.ErrRange) {
		t.Errorf("discard of -1 bytes: %v", err)
	}
	if err := img.ReadAtV(nil, 4096); err != nil {
		t.Errorf("read of nothing at the end: %v", err)
	}
}

func TestRawReadOnly(t *testing.T) {
	img, _ := open(t, 4096, true)
	for name, err := range map[string]error{
		"write": img.WriteAtV([][]byte{make([]byte, 512)}, 0), "discard": img.Discard(0, 512), "zero": img.WriteZeroes(0, 512, true),
	} {
		if !errors.Is(err, disk.ErrReadOnly) {
			t.Errorf("%s: %v, want ErrReadOnly", name, err)
		}
	}
	if err := img.Flush(); err != nil {
		t.Error(err)
	}
	if err := img.ReadAtV([][]byte{make([]byte, 4096)}, 0); err != nil {
		t.Error(err)
	}
}

func TestRawRefusesOtherThanDisks(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := disk.NewRaw(r, false); err == nil {
		t.Error("a pipe became a disk")
	}
	if _, err := r.Stat(); err == nil {
		t.Error("the descriptor is still open")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.NewRaw(null, false); err == nil {
		t.Error("/dev/null became a disk")
	}
}

func TestRawShrunkFile(t *testing.T) {
	img, path := open(t, 4096, false)
	if err := os.Truncate(path, 1024); err != nil {
		t.Fatal(err)
	}
	if err := img.ReadAtV([][]byte{make([]byte, 4096)}, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read behind the end of a file that shrank: %v", err)
	}
}

// TestRawAgainstMemory makes random accesses, in random pieces, some more than
// one system call takes, and compares with a slice.
func TestRawAgainstMemory(t *testing.T) {
	const size = 1 << 20
	img, path := open(t, size, false)
	model := make([]byte, size)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		off := rnd.Int64N(size/512) * 512
		n := min(rnd.Int64N(256)*512, size-off)
		data := make([]byte, n)
		switch rnd.IntN(4) {
		case 0:
			for j := range data {
				data[j] = byte(rnd.Uint32())
			}
			copy(model[off:], data)
			if err := img.WriteAtV(pieces(rnd, data), off); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := img.WriteZeroes(off, n, i%2 == 0); err != nil {
				t.Fatal(err)
			}
			clear(model[off : off+n])
		default:
			if err := img.ReadAtV(pieces(rnd, data), off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(data, model[off:off+n]) {
				t.Fatalf("step %d: %d bytes at %d differ", i, n, off)
			}
		}
	}
	if err := img.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, model) {
		t.Errorf("the file differs from what was written (%v)", err)
	}
}

// pieces cuts b at random, with empty pieces among them.
func pieces(rnd *rand.Rand, b []byte) [][]byte {
	var out [][]byte
	for len(b) > 0 {
		n := min(rnd.IntN(1000), len(b))
		out, b = append(out, b[:n:n]), b[n:]
	}
	return append(out, nil)
}

func TestRawDiscardKeepsSize(t *testing.T) {
	img, path := open(t, 1<<20, false)
	if err := img.WriteAtV([][]byte{bytes.Repeat([]byte{1}, 1<<20)}, 0); err != nil {
		t.Fatal(err)
	}
	if err := img.Discard(1<<19, 1<<19); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != 1<<20 {
		t.Errorf("after a discard: %v, %v", st, err)
	}
}

func TestRawDoesNotAllocate(t *testing.T) {
	img, _ := open(t, 1<<20, false)
	bufs := pieces(rand.New(rand.NewPCG(1, 1)), make([]byte, 1<<18))
	n := testing.AllocsPerRun(100, func() {
		if err := errors.Join(img.WriteAtV(bufs, 0), img.ReadAtV(bufs, 0)); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per write and read of %d pieces", n, len(bufs))
	}
}
