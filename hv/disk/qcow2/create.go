package qcow2

import (
	"fmt"
	"io"
	"os"
)

// DefaultClusterBits makes clusters of 64 KiB, as everybody does.
const DefaultClusterBits = 16

// Options describes an image to make.
type Options struct {
	Size int64 // of the disk, in bytes; a multiple of 512
	// BackingName is the image below it, if any, as it is to be found from the
	// new image's directory. BackingFormat is "raw" or "qcow2".
	BackingName   string
	BackingFormat string
	ClusterBits   uint // 0 means DefaultClusterBits
}

// Create writes an image of version 3 without data to f, which is empty. It
// does not sync f.
func Create(f *os.File, o Options) error {
	if err := create(f, o); err != nil {
		return fmt.Errorf("create qcow2 image %q: %w", f.Name(), err)
	}
	return nil
}

// newImage is the layout of an image to be: header, L1 table, refcount table,
// refcount blocks, one after the other.
type newImage struct {
	Options
	geometry
	l1Entries         int64
	l1, table, blocks extent
}

func create(w io.WriterAt, o Options) error {
	n, err := plan(o)
	if err != nil {
		return err
	}
	header, err := n.header()
	if err != nil {
		return err
	}
	// The header is last: before it there is no image. Up to the blocks the
	// file is a hole.
	if err := n.writeBlocks(w); err != nil {
		return err
	}
	_, err = w.WriteAt(header, 0)
	return err
}

func plan(o Options) (*newImage, error) {
	if o.ClusterBits == 0 {
		o.ClusterBits = DefaultClusterBits
	}
	n := &newImage{Options: o, geometry: geometry{clusterBits: o.ClusterBits, refOrder: 4}}
	switch {
	case o.ClusterBits < minClusterBits || o.ClusterBits > maxClusterBits:
		return nil, unsupported("clusters of 2^%d bytes", o.ClusterBits)
	case o.Size < 0 || o.Size%sectorSize != 0:
		return nil, fmt.Errorf("disk of %d bytes: not a whole number of sectors", o.Size)
	case len(o.BackingName) > maxBackingName:
		return nil, unsupported("backing file name of %d bytes", len(o.BackingName))
	case len(o.BackingFormat) > maxFormatName:
		return nil, unsupported("backing file format %q", o.BackingFormat)
	}
	n.l1Entries = n.l1Needed(o.Size)
	if n.l1Entries*8 > maxL1Bytes {
		return nil, unsupported("disk of %d bytes with clusters of %d", o.Size, n.cluster())
	}
	n.l1 = extent{n.cluster(), n.alignUp(n.l1Entries * 8)}
	n.planCounts()
	return n, nil
}

// planCounts makes the refcount table long enough for a file that holds the
// whole disk, or as long as may be, and has a block for each part of the file
// that is in use already.
func (n *newImage) planCounts() {
	clusters := n.Size>>n.clusterBits + n.l1Entries + 2*(n.l1.n>>n.clusterBits) + 16
	blocks := clusters>>n.blockBits() + 2
	bytes := min(n.alignUp(blocks*8), maxRefTable)
	n.table = extent{n.l1.off + n.l1.n, bytes}
	n.blocks = extent{n.table.off + n.table.n, n.cluster()}
	for n.used() > n.blocks.n>>n.clusterBits<<n.blockBits() {
		n.blocks.n += n.cluster()
	}
}

// used is how many clusters the file has at first.
func (n *newImage) used() int64 { return (n.blocks.off + n.blocks.n) >> n.clusterBits }

// writeBlocks writes the refcount blocks and the entries for them.
func (n *newImage) writeBlocks(w io.WriterAt) error {
	block := make([]byte, n.cluster())
	left := n.used()
	table := make([]byte, n.blocks.n>>n.clusterBits*8)
	for k := range n.blocks.n >> n.clusterBits {
		clear(block)
		for c := range min(left, 1<<n.blockBits()) {
			setCount(block, c, n.refOrder, 1)
			left--
		}
		off := n.blocks.off + k<<n.clusterBits
		if _, err := w.WriteAt(block, off); err != nil {
			return err
		}
		be.PutUint64(table[k*8:], uint64(off))
	}
	_, err := w.WriteAt(table, n.table.off)
	return err
}

func (n *newImage) header() ([]byte, error) {
	b := make([]byte, headerLenV3)
	be.PutUint32(b[hdrMagic:], magic)
	be.PutUint32(b[hdrVersion:], 3)
	be.PutUint32(b[hdrClusterBits:], uint32(n.clusterBits))
	be.PutUint64(b[hdrSize:], uint64(n.Size))
	be.PutUint32(b[hdrL1Entries:], uint32(n.l1Entries))
	be.PutUint64(b[hdrL1Offset:], uint64(n.l1.off))
	be.PutUint64(b[hdrRefTableOffset:], uint64(n.table.off))
	be.PutUint32(b[hdrRefTableLen:], uint32(n.table.n>>n.clusterBits))
	be.PutUint32(b[hdrRefcountOrder:], uint32(n.refOrder))
	be.PutUint32(b[hdrHeaderLen:], headerLenV3)
	if n.BackingName != "" {
		if n.BackingFormat != "" {
			b = appendExtension(b, extBackingFormat, n.BackingFormat)
		}
		b = appendExtension(b, extEnd, "")
		be.PutUint64(b[hdrBackingOffset:], uint64(len(b)))
		be.PutUint32(b[hdrBackingLen:], uint32(len(n.BackingName)))
		b = append(b, n.BackingName...)
	}
	if int64(len(b)) > n.cluster() {
		return nil, unsupported("backing file name of %d bytes with clusters of %d", len(n.BackingName), n.cluster())
	}
	return b, nil
}

func appendExtension(b []byte, kind uint32, data string) []byte {
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}
