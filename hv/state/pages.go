package state

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"vmd/hv/mem"
)

// A Pages section holds a run of guest pages:
//
//	gpa:u64 npages:u32 kind:u8 zero[3] data
//
// The data of a zero run is nothing, that of a raw one the pages, that of a zstd
// one the pages as one Zstandard frame (RFC 8878).
const pagesHeader = 16

// Kinds of runs.
const (
	zeroPages byte = iota
	rawPages
	zstdPages
)

const (
	// maxRun is how many pages a run with data has at most: enough to compress
	// well, and little to hold.
	maxRun = 64
	// maxZeroRun bounds the work that a few bytes of a stream make.
	maxZeroRun = 1 << 15
)

// zero is what a page of nothing looks like.
var zero [mem.Page]byte

// PageWriter writes pages into a stream. Close frees what it holds.
type PageWriter struct {
	w   *Writer
	enc *zstd.Encoder

	gpa  mem.GPA // of the run
	n    int     // its pages
	data bool    // it has data

	raw  []byte // a section: header and pages
	comp []byte // the same, compressed
	idle int    // runs that are not worth another try to compress
}

// NewPageWriter returns a PageWriter that writes to w.
func NewPageWriter(w *Writer) *PageWriter {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(maxRun*mem.Page), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))
	return &PageWriter{
		w: w, enc: must(enc, err),
		raw:  make([]byte, pagesHeader, pagesHeader+maxRun*mem.Page),
		comp: make([]byte, pagesHeader, pagesHeader+maxRun*mem.Page),
	}
}

// Page adds a page, which lies at gpa. It says whether there is anything in it.
// The guest may be writing to it: what is sent is the copy taken here.
func (p *PageWriter) Page(gpa mem.GPA, page []byte) (data bool, err error) {
	page = page[:mem.Page:mem.Page]
	data = string(page) != string(zero[:])
	limit := maxZeroRun
	if data {
		limit = maxRun
	}
	if data != p.data || p.n == limit || gpa != p.gpa+mem.GPA(p.n)*mem.Page {
		if err := p.Flush(); err != nil {
			return data, err
		}
		p.gpa, p.data = gpa, data
	}
	p.n++
	if data {
		p.raw = append(p.raw, page...)
	}
	return data, nil
}

// Flush ends the run that is being collected.
func (p *PageWriter) Flush() error {
	if p.n == 0 {
		return nil
	}
	kind, b := zeroPages, p.raw
	if p.data {
		kind, b = p.compress()
	}
	binary.LittleEndian.PutUint64(b[0:], uint64(p.gpa))
	binary.LittleEndian.PutUint32(b[8:], uint32(p.n))
	binary.LittleEndian.PutUint32(b[12:], uint32(kind))
	p.n, p.raw = 0, p.raw[:pagesHeader]
	return p.w.Section(Pages, b)
}

// skipAfter is how many runs go out as they are after one that did not shrink:
// where one page is encrypted or compressed already, the next ones are too.
const skipAfter = 7

// compress returns the run in the form that is worth it.
func (p *PageWriter) compress() (byte, []byte) {
	if p.idle > 0 {
		p.idle--
		return rawPages, p.raw
	}
	p.comp = p.enc.EncodeAll(p.raw[pagesHeader:], p.comp[:pagesHeader])
	if len(p.comp) > len(p.raw)/8*7 {
		p.idle = skipAfter
		return rawPages, p.raw
	}
	return zstdPages, p.comp
}

// Close frees what p holds. What was not flushed is lost.
func (p *PageWriter) Close() error { return p.enc.Close() }

// PageReader puts the pages of a stream into memory.
type PageReader struct {
	mem *mem.Memory
	dec *zstd.Decoder
	buf []byte
}

// NewPageReader returns a PageReader that writes to m.
func NewPageReader(m *mem.Memory) *PageReader {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxRun*mem.Page), zstd.WithDecoderMaxWindow(maxRun*mem.Page))
	return &PageReader{mem: m, dec: must(dec, err), buf: make([]byte, 0, maxRun*mem.Page)}
}

// errPages says that a run is not what a PageWriter writes.
var errPages = errors.New("not a run of pages")

// Apply puts the pages of a section Pages where they belong. On an error the
// memory may hold a part of them.
func (p *PageReader) Apply(payload []byte) error {
	if len(payload) < pagesHeader {
		return fmt.Errorf("%w: %w: %d bytes", ErrFormat, errPages, len(payload))
	}
	gpa := mem.GPA(binary.LittleEndian.Uint64(payload))
	n := binary.LittleEndian.Uint32(payload[8:])
	kind := binary.LittleEndian.Uint32(payload[12:])
	if err := p.apply(gpa, n, kind, payload[pagesHeader:]); err != nil {
		return fmt.Errorf("%w: %d pages at %#x of kind %d with %d bytes: %w", ErrFormat, n, gpa, kind, len(payload)-pagesHeader, err)
	}
	return nil
}

func (p *PageReader) apply(gpa mem.GPA, n, kind uint32, data []byte) error {
	if gpa%mem.Page != 0 || n == 0 || n > maxZeroRun || kind != uint32(zeroPages) && n > maxRun {
		return errPages
	}
	to, err := p.mem.Slice(gpa, uint64(n)*mem.Page)
	if err != nil {
		return err
	}
	switch kind {
	case uint32(zeroPages):
		if len(data) != 0 {
			return errPages
		}
		clearPages(to)
		return nil
	case uint32(rawPages):
	case uint32(zstdPages):
		if data, err = p.dec.DecodeAll(data, p.buf); err != nil {
			return err
		}
	default:
		return errPages
	}
	if len(data) != len(to) {
		return errPages
	}
	copy(to, data)
	return nil
}

// clearPages makes b zero. Pages that are zero already are left alone: those
// that nobody has written to cost the host nothing, and shall not.
func clearPages(b []byte) {
	for ; len(b) > 0; b = b[mem.Page:] {
		if page := b[:mem.Page]; string(page) != string(zero[:]) {
			clear(page)
		}
	}
}

// Close frees what p holds.
func (p *PageReader) Close() { p.dec.Close() }
