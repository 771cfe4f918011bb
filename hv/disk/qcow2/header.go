package qcow2

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Errors that callers tell apart.
var (
	// ErrNotQcow2 says that a file does not begin like a qcow2 image.
	ErrNotQcow2 = errors.New("not a qcow2 image")
	// ErrUnsupported says that an image needs something that this package
	// refuses: encryption, an external data file, extended L2 entries, ...
	ErrUnsupported = errors.New("unsupported qcow2 feature")
	// ErrCorrupt says that an image contradicts itself.
	ErrCorrupt = errors.New("corrupt qcow2 image")
	// ErrFull says that an image's refcounts cannot describe a larger file.
	ErrFull = errors.New("qcow2 image cannot grow any more")
)

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// Header is what an image says about itself.
type Header struct {
	Version     int   // 2 or 3
	Size        int64 // of the disk, in bytes
	ClusterBits uint  // a cluster has 1<<ClusterBits bytes
	// BackingName is the file that holds what the image does not, as somebody
	// typed it; empty if there is none. Whoever made the image chose it: check
	// it before opening anything.
	BackingName string
	// BackingFormat is "raw", "qcow2" or another name; empty if not stated.
	BackingFormat string
	RefcountBits  int
	Dirty         bool // refcounts are to be rebuilt before writing
	Corrupt       bool // may be read, not written
	LazyRefcounts bool
	Zstd          bool // compressed clusters are zstd's, not deflate's
	Snapshots     int

	geometry
	l1         extent // as long as the entries the disk needs
	refTable   extent
	snapOffset int64
	features   uint64 // incompatible ones
	autoclear  uint64
}

// Detect reports whether a file that begins with head, of at least four bytes,
// claims to be a qcow2 image. A guest can write that into a raw image.
func Detect(head []byte) bool { return len(head) >= 4 && be.Uint32(head) == magic }

// Info reads the header of an image in a file of size bytes and checks it
// against itself. It reads a few kilobytes at most and opens nothing. An image
// that it accepts can be opened for reading, as far as its header goes.
func Info(f io.ReaderAt, size int64) (Header, error) {
	var raw [headerLenMax]byte
	n, err := f.ReadAt(raw[:], 0)
	if err != nil && err != io.EOF {
		return Header{}, fmt.Errorf("read qcow2 header: %w", err)
	}
	if !Detect(raw[:n]) {
		return Header{}, ErrNotQcow2
	}
	if n < headerLenV2 {
		return Header{}, corrupt("header ends after %d bytes", n)
	}
	if size < int64(n) || size > maxFile {
		return Header{}, corrupt("file of %d bytes", size)
	}
	h, length, err := parseHeader(raw[:n])
	if err != nil {
		return Header{}, err
	}
	if err := h.checkLayout(size); err != nil {
		return Header{}, err
	}
	if err := h.readNames(f, int64(length), be.Uint64(raw[hdrBackingOffset:]), be.Uint32(raw[hdrBackingLen:])); err != nil {
		return Header{}, err
	}
	return h, nil
}

// parseHeader reads the fields of raw, and the header's length.
func parseHeader(raw []byte) (h Header, length uint32, err error) {
	h.Version = int(be.Uint32(raw[hdrVersion:]))
	if h.Version != 2 && h.Version != 3 {
		return h, 0, unsupported("version %d", uint32(h.Version))
	}
	h.ClusterBits = uint(be.Uint32(raw[hdrClusterBits:]))
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return h, 0, unsupported("clusters of 2^%d bytes", h.ClusterBits)
	}
	if be.Uint32(raw[hdrCrypt:]) != 0 {
		return h, 0, unsupported("encryption")
	}
	size := be.Uint64(raw[hdrSize:])
	if size > 1<<63-1 {
		return h, 0, corrupt("disk of %d bytes", size)
	}
	h.Size = int64(size) &^ (sectorSize - 1)
	h.Snapshots = int(be.Uint32(raw[hdrSnapshots:]))
	h.refOrder, length = 4, headerLenV2
	if h.Version == 3 {
		if length, err = h.parseV3(raw); err != nil {
			return h, 0, err
		}
	}
	h.RefcountBits, h.clusterBits = 1<<h.refOrder, h.ClusterBits
	return h, length, h.parseTables(raw)
}

// parseV3 reads what version 3 added.
func (h *Header) parseV3(raw []byte) (length uint32, err error) {
	if len(raw) < headerLenV3 {
		return 0, corrupt("version 3 header ends after %d bytes", len(raw))
	}
	length = be.Uint32(raw[hdrHeaderLen:])
	if length < headerLenV3 || length%8 != 0 || uint64(length) > 1<<h.ClusterBits {
		return 0, corrupt("header length %d", length)
	}
	h.features, h.autoclear = be.Uint64(raw[hdrIncompatible:]), be.Uint64(raw[hdrAutoclear:])
	switch bad := h.features &^ incompatKnown; {
	case bad&incompatDataFile != 0:
		return 0, unsupported("external data file")
	case bad&incompatExtendedL2 != 0:
		return 0, unsupported("extended L2 entries")
	case bad != 0:
		return 0, unsupported("incompatible features %#x", bad)
	}
	h.Dirty, h.Corrupt = h.features&incompatDirty != 0, h.features&incompatCorrupt != 0
	h.LazyRefcounts = be.Uint64(raw[hdrCompatible:])&compatLazyRefcounts != 0
	order := be.Uint32(raw[hdrRefcountOrder:])
	if order > maxRefOrder {
		return 0, unsupported("refcounts of 2^%d bits", order)
	}
	h.refOrder = uint(order)
	return length, h.parseCompression(raw, length)
}

func (h *Header) parseCompression(raw []byte, length uint32) error {
	kind := byte(compressionDeflate)
	if length > hdrCompression {
		if len(raw) <= hdrCompression {
			return corrupt("header ends after %d of %d bytes", len(raw), length)
		}
		kind = raw[hdrCompression]
	}
	flagged := h.features&incompatCompression != 0
	switch {
	case kind == compressionDeflate && !flagged:
		return nil
	case kind == compressionZstd && flagged:
		h.Zstd = true
		return nil
	case kind > compressionZstd:
		return unsupported("compression type %d", kind)
	}
	return corrupt("compression type %d contradicts the features", kind)
}

// parseTables reads where the tables are.
func (h *Header) parseTables(raw []byte) error {
	entries, need := int64(be.Uint32(raw[hdrL1Entries:])), h.l1Needed(h.Size)
	if need*8 > maxL1Bytes || entries*8 > maxL1Bytes {
		return unsupported("L1 table of %d entries, %d needed", entries, need)
	}
	if entries < need {
		return corrupt("L1 table of %d entries, %d needed", entries, need)
	}
	clusters := int64(be.Uint32(raw[hdrRefTableLen:]))
	if clusters > maxRefTable>>h.clusterBits {
		return unsupported("refcount table of %d clusters", clusters)
	}
	if h.Snapshots > maxSnapshots {
		return unsupported("%d snapshots", h.Snapshots)
	}
	l1, refs, snaps := be.Uint64(raw[hdrL1Offset:]), be.Uint64(raw[hdrRefTableOffset:]), be.Uint64(raw[hdrSnapshotsOffset:])
	for _, off := range [...]uint64{l1, refs, snaps} {
		if off > maxFile || off&(1<<h.clusterBits-1) != 0 {
			return corrupt("table at offset %#x", off)
		}
	}
	h.l1 = extent{int64(l1), entries * 8}
	h.refTable = extent{int64(refs), clusters << h.clusterBits}
	if h.Snapshots > 0 {
		h.snapOffset = int64(snaps)
	}
	return nil
}

// checkLayout checks that the tables lie in a file of size bytes and on nothing
// else. A refcount table is needed for writing only, but an image without one
// is not an image.
func (h *Header) checkLayout(size int64) error {
	header := extent{0, h.cluster()}
	if h.refTable.n == 0 {
		return corrupt("no refcount table")
	}
	for _, e := range [...]extent{h.l1, h.refTable} {
		if e.overlaps(header) || e.off+e.n > h.alignUp(size) {
			return corrupt("table of %d bytes at offset %#x of a file of %d", e.n, e.off, size)
		}
	}
	// The end of an L1 table may lie beyond the file's only as far as its
	// entries are not needed.
	if h.l1.off+h.l1Needed(h.Size)*8 > size {
		return corrupt("L1 table at offset %#x of a file of %d bytes", h.l1.off, size)
	}
	if h.l1.overlaps(h.refTable) {
		return corrupt("L1 table and refcount table overlap")
	}
	if h.Snapshots > 0 && (h.snapOffset < h.cluster() || h.snapOffset >= size) {
		return corrupt("snapshot table at offset %#x of a file of %d bytes", h.snapOffset, size)
	}
	return nil
}

// readNames reads the header extensions, which follow the header, and the name
// of the backing file, which like them is in the first cluster.
func (h *Header) readNames(f io.ReaderAt, length int64, nameOff uint64, nameLen uint32) error {
	end := h.cluster()
	if nameOff != 0 {
		if nameLen > maxBackingName {
			return unsupported("backing file name of %d bytes", nameLen)
		}
		if nameOff < uint64(length) || nameOff > uint64(end) || nameOff+uint64(nameLen) > uint64(end) {
			return corrupt("backing file name at offset %#x", nameOff)
		}
		end = int64(nameOff)
		name, err := readName(f, end, int(nameLen))
		if err != nil {
			return fmt.Errorf("read backing file name: %w", err)
		}
		h.BackingName = name
	}
	return h.readExtensions(f, length, end)
}

func (h *Header) readExtensions(f io.ReaderAt, off, end int64) error {
	for range maxExtensions {
		var head [8]byte
		if off+int64(len(head)) > end {
			return nil
		}
		switch n, err := f.ReadAt(head[:], off); {
		case err == io.EOF && n < len(head):
			return nil
		case err != nil && err != io.EOF:
			return fmt.Errorf("read header extension: %w", err)
		}
		kind, n := be.Uint32(head[:]), int64(be.Uint32(head[4:]))
		off += int64(len(head))
		if kind == extEnd {
			return nil
		}
		if n > end-off {
			return corrupt("header extension %#x of %d bytes", kind, n)
		}
		if kind == extBackingFormat {
			if n > maxFormatName {
				return corrupt("backing file format of %d bytes", n)
			}
			name, err := readName(f, off, int(n))
			if err != nil {
				return fmt.Errorf("read backing file format: %w", err)
			}
			h.BackingFormat = name
		}
		off += (n + 7) &^ 7
	}
	return corrupt("more than %d header extensions", maxExtensions)
}

// readName reads a text of n bytes. A NUL in it would end it for some readers
// and not for others.
func readName(f io.ReaderAt, off int64, n int) (string, error) {
	b := make([]byte, n)
	if k, err := f.ReadAt(b, off); k < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	if strings.IndexByte(string(b), 0) >= 0 {
		return "", corrupt("name %q", b)
	}
	return string(b), nil
}
