package qcow2

import (
	"os"
	"path/filepath"
	"testing"

	"vmd/hv/disk"
)

// benchDisks are a raw disk and an image, both with 64 MiB of data in the page
// cache.
func benchDisks(b *testing.B, do func(b *testing.B, img disk.Image)) {
	const size = 64 << 20
	for _, format := range []string{"raw", "qcow2"} {
		b.Run(format, func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), format))
			must(b, err)
			var img disk.Image
			if format == "raw" {
				must(b, f.Truncate(size))
				img, err = disk.NewRaw(f, false)
			} else {
				must(b, Create(f, Options{Size: size}))
				img, err = Open(f, nil, false)
			}
			must(b, err)
			mustWrite(b, img, make([]byte, size), 0)
			do(b, img)
			must(b, img.Close())
		})
	}
}

func BenchmarkRead4K(b *testing.B) {
	benchDisks(b, func(b *testing.B, img disk.Image) {
		bufs, off := [][]byte{make([]byte, 4096)}, int64(0)
		b.SetBytes(4096)
		for b.Loop() {
			must(b, img.ReadAtV(bufs, off))
			off = (off + 7919*4096) & (64<<20 - 1)
		}
	})
}

func BenchmarkWrite4K(b *testing.B) {
	benchDisks(b, func(b *testing.B, img disk.Image) {
		bufs, off := [][]byte{make([]byte, 4096)}, int64(0)
		b.SetBytes(4096)
		for b.Loop() {
			must(b, img.WriteAtV(bufs, off))
			off = (off + 7919*4096) & (64<<20 - 1)
		}
	})
}

func BenchmarkRead1M(b *testing.B) {
	benchDisks(b, func(b *testing.B, img disk.Image) {
		bufs, off := [][]byte{make([]byte, 1<<20)}, int64(0)
		b.SetBytes(1 << 20)
		for b.Loop() {
			must(b, img.ReadAtV(bufs, off))
			off = (off + 1<<20) & (64<<20 - 1)
		}
	})
}

// Discarding and filling again allocates every cluster.
func BenchmarkAllocate(b *testing.B) {
	benchDisks(b, func(b *testing.B, img disk.Image) {
		bufs := [][]byte{make([]byte, 256<<10)}
		b.SetBytes(64 << 20)
		for b.Loop() {
			must(b, img.Discard(0, 64<<20))
			must(b, img.Flush())
			for off := int64(0); off < 64<<20; off += 256 << 10 {
				must(b, img.WriteAtV(bufs, off))
			}
		}
	})
}
