package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// bufferSize is how much a Writer and a Reader hold: enough that a section of
// pages is few system calls, little enough to stay in the cache.
const bufferSize = 256 << 10

// Writer writes a stream. It is not safe for concurrent use.
type Writer struct {
	w       *bufio.Writer
	to      io.Writer
	started bool
	written uint64
	header  [sectionHeader]byte
}

// NewWriter returns a Writer that writes to w, buffered: Flush pushes out what
// has been written so far.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, bufferSize), to: w} }

// Section writes a section. A tag from Optional on may be passed over by a
// reader that does not know it.
func (w *Writer) Section(t Tag, payload []byte) error {
	if len(payload) > MaxSection {
		return fmt.Errorf("write %v: %d bytes, more than %d", t, len(payload), MaxSection)
	}
	if err := w.start(); err != nil {
		return fmt.Errorf("write the head of a machine's state: %w", err)
	}
	h := w.header[:]
	binary.LittleEndian.PutUint16(h[0:], uint16(t))
	binary.LittleEndian.PutUint16(h[2:], 0)
	if t < Optional {
		binary.LittleEndian.PutUint16(h[2:], mandatory)
	}
	binary.LittleEndian.PutUint32(h[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(h[8:], checksum(h, payload))
	if _, err := w.w.Write(h); err != nil {
		return fmt.Errorf("write %v: %w", t, err)
	}
	if _, err := w.w.Write(payload); err != nil {
		return fmt.Errorf("write %v: %w", t, err)
	}
	w.written += uint64(sectionHeader + len(payload))
	return nil
}

// Put is Section with v in CBOR as its payload.
func (w *Writer) Put(t Tag, v any) error {
	b, err := Encode(v)
	if err != nil {
		return fmt.Errorf("write %v: %w", t, err)
	}
	return w.Section(t, b)
}

// start writes the stream's head, once.
func (w *Writer) start() error {
	if w.started {
		return nil
	}
	w.started = true
	w.written = uint64(streamHeader)
	_, err := w.w.Write(binary.LittleEndian.AppendUint32([]byte(magic), Version))
	return err
}

// Flush writes out what is buffered.
func (w *Writer) Flush() error {
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("write a machine's state: %w", err)
	}
	return nil
}

// Interrupt ends a write that waits for its reader, and all that follow, if what
// is written to knows deadlines, as sockets and pipes do. It may be called from
// any goroutine.
func (w *Writer) Interrupt() {
	if d, ok := w.to.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = d.SetWriteDeadline(time.Unix(1, 0)) // long ago
	}
}

// Written is how many bytes the stream has so far, buffered ones included.
func (w *Writer) Written() uint64 { return w.written }

// checksum covers the head of a section before the checksum, and its payload.
func checksum(header, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(header[:8], castagnoli), castagnoli, payload)
}

// Reader reads a stream. It is not safe for concurrent use.
type Reader struct {
	r       *bufio.Reader
	started bool
	err     error // what the stream ended with, for ever
	header  [sectionHeader]byte
	payload []byte // the last section's; grows up to MaxSection
	tag     Tag
	held    bool // Unread: Next returns the same again
}

// NewReader returns a Reader of what comes from r. It may read ahead.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, bufferSize)} }

// Next returns the next section that this version knows. The payload is valid
// until the next call. It ends with io.EOF between two sections, and otherwise
// with an error that says what is wrong; from an error there is no way on.
func (r *Reader) Next() (Tag, []byte, error) {
	if r.held {
		r.held = false
		return r.tag, r.payload, nil
	}
	for r.err == nil {
		if !r.started {
			r.started = true
			r.err = r.start()
			continue
		}
		var known bool
		if known, r.err = r.section(); known && r.err == nil {
			return r.tag, r.payload, nil
		}
	}
	return 0, nil, r.err
}

// Unread puts the section that Next has returned last back: Next returns it once
// more.
func (r *Reader) Unread() { r.held = r.tag != 0 && r.err == nil }

// Expect is Next for a section that must be of tag t; an Abort's reason becomes
// an error.
func (r *Reader) Expect(t Tag) ([]byte, error) {
	got, b, err := r.Next()
	switch {
	case err == io.EOF:
		return nil, fmt.Errorf("read %v: %w", t, io.ErrUnexpectedEOF)
	case err != nil:
		return nil, fmt.Errorf("read %v: %w", t, err)
	case got != t:
		return nil, Unexpected(got, b)
	}
	return b, nil
}

// Get is Expect and Decode in one.
func (r *Reader) Get(t Tag, v any) error {
	b, err := r.Expect(t)
	if err == nil {
		err = Decode(b, v)
	}
	return err
}

// Unexpected is the error of a section where another should be.
func Unexpected(t Tag, payload []byte) error {
	if t == Abort {
		return fmt.Errorf("the sender gave up: %.200q", payload)
	}
	return fmt.Errorf("%w: a section %v where none may be", ErrFormat, t)
}

// start reads and checks the head of the stream.
func (r *Reader) start() error {
	var h [streamHeader]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return cut("its head", err)
	}
	if string(h[:len(magic)]) != magic {
		return fmt.Errorf("%w: begins with %q", ErrFormat, h[:len(magic)])
	}
	if v := binary.LittleEndian.Uint32(h[len(magic):]); v != Version {
		return fmt.Errorf("%w: version %d, not %d", ErrVersion, v, Version)
	}
	return nil
}

// section reads one section and says whether it is one to be looked at.
func (r *Reader) section() (bool, error) {
	r.tag = 0
	h := r.header[:]
	if n, err := io.ReadFull(r.r, h); err == io.EOF && n == 0 {
		return false, io.EOF
	} else if err != nil {
		return false, cut("the head of a section", err)
	}
	t, flags := Tag(binary.LittleEndian.Uint16(h[0:])), binary.LittleEndian.Uint16(h[2:])
	n := binary.LittleEndian.Uint32(h[4:])
	if n > MaxSection {
		return false, fmt.Errorf("%w: section %v of %d bytes, more than %d", ErrFormat, t, n, MaxSection)
	}
	if err := r.read(int(n)); err != nil {
		return false, cut(fmt.Sprintf("section %v", t), err)
	}
	if sum := checksum(h, r.payload); sum != binary.LittleEndian.Uint32(h[8:]) {
		return false, fmt.Errorf("%w: section %v of %d bytes: wrong checksum", ErrFormat, t, n)
	}
	switch {
	case flags&^mandatory != 0:
		return false, fmt.Errorf("%w: section %v has flags %#x", ErrFormat, t, flags)
	case t.known() && flags&mandatory == 0:
		return false, fmt.Errorf("%w: section %v says that it may be passed over", ErrFormat, t)
	case t.known():
		r.tag = t
	case flags&mandatory != 0:
		return false, fmt.Errorf("%w: section %v, which this version does not know", ErrVersion, t)
	}
	return t.known(), nil
}

// read reads n bytes of payload. Memory grows with what has really come.
func (r *Reader) read(n int) error {
	r.payload = r.payload[:0]
	for len(r.payload) < n {
		at := len(r.payload)
		if cap(r.payload) < n {
			grown := make([]byte, at, min(n, max(2*at, bufferSize)))
			copy(grown, r.payload)
			r.payload = grown
		}
		r.payload = r.payload[:min(n, cap(r.payload))]
		if _, err := io.ReadFull(r.r, r.payload[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// cut is the error of a stream that ends or breaks inside what.
func cut(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s of a machine's state: %w", what, err)
}
