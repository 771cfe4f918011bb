package disk_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/disk"
	"vmd/hv/disk/qcow2"
)

func newFile(t *testing.T, name string, size int64) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func newDisk(t *testing.T, format string, size int64) disk.Image {
	t.Helper()
	img, _ := newDiskNamed(t, format, size)
	return img
}

// newDiskNamed returns also where the disk is kept.
func newDiskNamed(t *testing.T, format string, size int64) (img disk.Image, name string) {
	t.Helper()
	f := newFile(t, format, 0)
	name = f.Name()
	var err error
	if format == "raw" {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		img, err = disk.NewRaw(f, false)
	} else {
		if err := qcow2.Create(f, qcow2.Options{Size: size}); err != nil {
			t.Fatal(err)
		}
		img, err = qcow2.Open(f, nil, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img, name
}

func write(t *testing.T, img disk.Image, b []byte, off int64) {
	t.Helper()
	if err := img.WriteAtV([][]byte{b}, off); err != nil {
		t.Fatal(err)
	}
}

// NextData leaves out what holds nothing, and nothing else, in all formats and
// up to an odd end.
func TestNextData(t *testing.T) {
	t.Parallel()
	const size, piece = 40<<20 + 512, 300 << 10
	for _, format := range []string{"raw", "qcow2"} {
		img := newDisk(t, format, size)
		data := bytes.Repeat([]byte{1}, piece)
		offs := []int64{0, 5<<20 + 512, 39 << 20, size - piece}
		for _, off := range offs {
			write(t, img, data, off)
		}
		in := 0
		total := ranges(t, img, func(start, end int64) {
			for _, off := range offs {
				in += int(max(0, min(end, off+piece)-max(start, off)))
			}
		})
		if in != len(offs)*piece {
			t.Errorf("%s: %d of %d bytes are in the data", format, in, len(offs)*piece)
		}
		if total > 2<<20 {
			t.Errorf("%s: %d bytes are called data", format, total)
		}
	}
}

// ranges calls f with each range that may hold data, and returns how many bytes
// they are together.
func ranges(t *testing.T, img disk.Image, f func(start, end int64)) (n int64) {
	t.Helper()
	for off := int64(0); ; {
		start, end, err := disk.NextData(img, off)
		if err != nil {
			t.Fatal(err)
		}
		if start == img.Size() {
			return n
		}
		f(start, end)
		n, off = n+end-start, end
	}
}

// A chain's data is that of all its images.
func TestNextDataOfChain(t *testing.T) {
	t.Parallel()
	base := newDisk(t, "raw", 10<<20)
	write(t, base, bytes.Repeat([]byte{1}, 1<<20), 2<<20)
	write(t, base, bytes.Repeat([]byte{1}, 1<<20), 6<<20)
	f := newFile(t, "top", 0)
	if err := qcow2.Create(f, qcow2.Options{Size: 12 << 20, BackingName: "base", BackingFormat: "raw"}); err != nil {
		t.Fatal(err)
	}
	top, err := qcow2.Open(f, base, false)
	if err != nil {
		t.Fatal(err)
	}
	write(t, top, bytes.Repeat([]byte{2}, 64<<10), 11<<20)
	if err := top.WriteZeroes(2<<20, 1<<20, true); err != nil {
		t.Fatal(err)
	}
	var got [][2]int64
	ranges(t, top, func(start, end int64) { got = append(got, [2]int64{start, end}) })
	want := [][2]int64{{6 << 20, 7 << 20}, {11 << 20, 11<<20 + 64<<10}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("data in %v, want %v", got, want)
	}
}

// A discard gives room back to the host, as far as its storage can.
func TestDiscardGivesRoomBack(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"raw", "qcow2"} {
		img, name := newDiskNamed(t, format, 64<<20)
		write(t, img, bytes.Repeat([]byte{1}, 32<<20), 0)
		if err := errors.Join(img.Flush(), img.Discard(0, 64<<20), img.Flush()); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes in use after all was discarded", format, st.Blocks*512)
		}
	}
}
