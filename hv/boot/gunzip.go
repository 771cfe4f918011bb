package boot

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// maxUnpacked bounds what a compressed kernel may unpack to, and maxRewinds how
// often it may be unpacked again: together they bound the work that a file can
// cause.
const (
	maxUnpacked = 1 << 30
	maxRewinds  = 16
)

// maybeGunzip returns image i as it is, or a view of what is inside if it is a
// gzip file.
func maybeGunzip(i Image) (Image, error) {
	if !isGzip(i) {
		return i, nil
	}
	return gunzip(i, maxUnpacked)
}

func isGzip(i Image) bool {
	var magic [3]byte
	return i.read(magic[:], 0) == nil && magic == [3]byte{0x1f, 0x8b, 8}
}

// gunzip makes a compressed file readable at any offset without holding it in
// memory: going backwards starts over. The file is unpacked once to learn its
// size and to check it.
func gunzip(i Image, limit int64) (Image, error) {
	g := &gunzipper{packed: i}
	if err := g.rewind(); err != nil {
		return Image{}, fmt.Errorf("gzip: %w", err)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(g.z, limit+1))
	if err != nil {
		return Image{}, fmt.Errorf("gzip: %w", err)
	}
	if n > limit {
		return Image{}, fmt.Errorf("gzip: unpacks to more than %d MiB", limit>>20)
	}
	g.pos = n
	return Image{g, n}, nil
}

// gunzipper is an io.ReaderAt over a gzip file. It is for one goroutine.
type gunzipper struct {
	packed  Image
	z       *gzip.Reader
	pos     int64
	rewinds int
}

var errRewinds = errors.New("too many steps backwards in a compressed file")

func (g *gunzipper) rewind() error {
	if g.rewinds++; g.rewinds > maxRewinds {
		return errRewinds
	}
	r := io.NewSectionReader(g.packed.R, 0, g.packed.Size)
	g.pos = 0
	if g.z != nil {
		return g.z.Reset(r)
	}
	var err error
	g.z, err = gzip.NewReader(r)
	return err
}

// ReadAt implements io.ReaderAt.
func (g *gunzipper) ReadAt(p []byte, off int64) (int, error) {
	if off < g.pos {
		if err := g.rewind(); err != nil {
			return 0, err
		}
	}
	n, err := io.CopyN(io.Discard, g.z, off-g.pos)
	g.pos += n
	if err != nil {
		return 0, err
	}
	k, err := io.ReadFull(g.z, p)
	g.pos += int64(k)
	return k, err
}
