package qcow2

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a zstd frame may ask for. It is what RFC 8878, 3.1.1.1.2
// wants every decoder to support.
const maxWindow = 8 << 20

// unpacker decompresses one cluster at a time and keeps the last, since a guest
// reads a cluster piece by piece. Its buffers are made at the first use.
type unpacker struct {
	zstd    bool
	cluster int64

	mu    sync.Mutex
	in    []byte
	out   []byte
	entry uint64 // of what is in out, 0 if nothing
	src   bytes.Reader
	flate io.ReadCloser
	frame *zstd.Decoder
}

func (u *unpacker) init(zstd bool, cluster int64) { u.zstd, u.cluster = zstd, cluster }

// unpack fills bufs from offset inside of the cluster that entry describes.
func (i *Image) unpack(entry uint64, bufs [][]byte, inside int64) error {
	u := &i.unpacker
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.entry != entry {
		if err := i.unpackCluster(u, entry); err != nil {
			return fmt.Errorf("compressed cluster: %w", err)
		}
	}
	from := u.out[inside:]
	for _, b := range bufs {
		from = from[copy(b, from):]
	}
	return nil
}

func (i *Image) unpackCluster(u *unpacker, entry uint64) error {
	u.entry = 0
	if u.out == nil {
		// Compressed data can touch one sector more than it could fill.
		u.in, u.out = make([]byte, 2*u.cluster), make([]byte, u.cluster)
	}
	off, n := i.packed(entry)
	n = min(n, int64(len(u.in)))
	if err := i.file.ReadFull(u.in[:n], off); err != nil {
		return err
	}
	u.src.Reset(u.in[:n])
	r, err := u.reader()
	if err != nil {
		return err
	}
	// What follows a cluster's worth is padding or the next cluster's.
	if _, err := io.ReadFull(r, u.out); err != nil {
		return corrupt("at offset %#x: %v", off, err)
	}
	u.entry = entry
	return nil
}

// reader decompresses src.
func (u *unpacker) reader() (io.Reader, error) {
	if u.zstd {
		if u.frame == nil {
			d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
			if err != nil {
				return nil, err
			}
			u.frame = d
		}
		return u.frame, u.frame.Reset(&u.src)
	}
	if u.flate == nil {
		u.flate = flate.NewReader(&u.src)
		return u.flate, nil
	}
	return u.flate, u.flate.(flate.Resetter).Reset(&u.src, nil)
}
