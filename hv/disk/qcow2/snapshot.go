package qcow2

import (
	"fmt"
	"io"
)

// maxWritableSnapshots is how many internal snapshots an image to write may
// have. Each L1 table of one is looked at with every write to a new place.
const maxWritableSnapshots = 1024

// snapshots returns where the snapshot table and the L1 tables of snapshots
// are.
func (i *Image) snapshots() ([]extent, error) {
	if i.header.Snapshots > maxWritableSnapshots {
		return nil, unsupported("writing with %d snapshots", i.header.Snapshots)
	}
	table, l1s, err := readSnapshots(readerAt{i.file}, &i.header, i.file.Size())
	if err != nil || table.n == 0 {
		return nil, err
	}
	all := []extent{i.wholeClusters(table)}
	for _, e := range l1s {
		if e.n > 0 {
			all = append(all, i.wholeClusters(e))
		}
	}
	return all, nil
}

// readSnapshots reads the snapshot table: where it is, and the L1 tables.
func readSnapshots(f io.ReaderAt, h *Header, size int64) (table extent, l1s []extent, err error) {
	off := h.snapOffset
	for k := range h.Snapshots {
		var raw [snapHeaderLen]byte
		if n, err := f.ReadAt(raw[:], off); n < len(raw) {
			return extent{}, nil, fmt.Errorf("snapshot %d: %w", k, eofIsUnexpected(err))
		}
		l1 := extent{int64(be.Uint64(raw[snapL1Offset:])), int64(be.Uint32(raw[snapL1Entries:])) * 8}
		extra := int64(be.Uint32(raw[snapExtraLen:]))
		if extra > maxSnapExtra || l1.n > maxL1Bytes {
			return extent{}, nil, unsupported("snapshot %d: L1 table of %d bytes, %d bytes more", k, l1.n, extra)
		}
		if l1.off < h.cluster() || l1.off&(h.cluster()-1) != 0 || l1.off > size || l1.n > size-l1.off {
			return extent{}, nil, corrupt("snapshot %d: L1 table of %d bytes at offset %#x", k, l1.n, l1.off)
		}
		l1s = append(l1s, l1)
		off += snapHeaderLen + extra + int64(be.Uint16(raw[snapIDLen:])) + int64(be.Uint16(raw[snapNameLen:]))
		off = (off + 7) &^ 7
	}
	return extent{h.snapOffset, off - h.snapOffset}, l1s, nil
}

func eofIsUnexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
