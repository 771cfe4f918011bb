package disk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
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

// A copy is equal and as sparse, in all pairs of formats, also to a longer disk
// and from one of an odd length.
func TestCopy(t *testing.T) {
	t.Parallel()
	const size = 40<<20 + 512
	for _, from := range []string{"raw", "qcow2"} {
		for _, to := range []string{"raw", "qcow2"} {
			src, dst := newDisk(t, from, size), newDisk(t, to, size+1<<20)
			r := rand.New(rand.NewPCG(1, 2))
			data := make([]byte, 300<<10)
			for k := range data {
				data[k] = byte(r.Uint32())
			}
			for _, off := range []int64{0, 5<<20 + 512, 39 << 20, size - int64(len(data))} {
				write(t, src, data, off)
			}
			write(t, src, make([]byte, 2<<20), 20<<20) // zeros that take room
			last := int64(0)
			err := disk.Copy(dst, src, func(done int64) error {
				if done < last {
					t.Errorf("progress went from %d to %d", last, done)
				}
				last = done
				return nil
			})
			if err != nil || last != size {
				t.Fatalf("%s to %s: %v, progress ends at %d", from, to, err, last)
			}
			got, want := make([]byte, size+1<<20), make([]byte, size+1<<20)
			if err := errors.Join(dst.ReadAtV([][]byte{got}, 0), src.ReadAtV([][]byte{want[:size]}, 0)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s to %s: copy differs", from, to)
			}
			if n := dataBytes(t, dst); n > 4<<20 {
				t.Errorf("%s to %s: copy holds %d bytes", from, to, n)
			}
		}
	}
}

// dataBytes is how much of a disk NextData calls data.
func dataBytes(t *testing.T, img disk.Image) (n int64) {
	t.Helper()
	for off := int64(0); ; {
		start, end, err := disk.NextData(img, off)
		if err != nil {
			t.Fatal(err)
		}
		if start == img.Size() {
			return n
		}
		n, off = n+end-start, end
	}
}

func TestCopyRefusals(t *testing.T) {
	t.Parallel()
	small, large := newDisk(t, "raw", 1<<20), newDisk(t, "qcow2", 2<<20)
	if err := disk.Copy(small, large, nil); !errors.Is(err, disk.ErrRange) {
		t.Errorf("to a shorter disk: %v", err)
	}
	write(t, small, []byte{1}, 5)
	stop := errors.New("stop")
	if err := disk.Copy(large, small, func(int64) error { return stop }); err != stop {
		t.Errorf("stopped: %v", err)
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
	for off := int64(0); ; {
		start, end, err := top.NextData(off)
		if err != nil {
			t.Fatal(err)
		}
		if start == top.Size() {
			break
		}
		got = append(got, [2]int64{start, end})
		off = end
	}
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
