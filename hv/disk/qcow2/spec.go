package qcow2

import "encoding/binary"

// All integers in an image are big-endian. Offsets and names are those of the
// qcow2 specification (docs/interop/qcow2.txt of QEMU).
var be = binary.BigEndian

const (
	magic = 0x514649fb // "QFI\xfb"

	headerLenV2 = 72
	headerLenV3 = 104
	// headerLenMax is the longest header that has a meaning for us: version 3
	// with the compression type.
	headerLenMax = 112
)

// Where header fields are.
const (
	hdrMagic           = 0
	hdrVersion         = 4
	hdrBackingOffset   = 8
	hdrBackingLen      = 16
	hdrClusterBits     = 20
	hdrSize            = 24
	hdrCrypt           = 32
	hdrL1Entries       = 36
	hdrL1Offset        = 40
	hdrRefTableOffset  = 48
	hdrRefTableLen     = 56 // in clusters
	hdrSnapshots       = 60
	hdrSnapshotsOffset = 64
	hdrIncompatible    = 72
	hdrCompatible      = 80
	hdrAutoclear       = 88
	hdrRefcountOrder   = 96
	hdrHeaderLen       = 100
	hdrCompression     = 104
)

// Incompatible features: who does not know one must not open the image.
const (
	incompatDirty       = 1 << 0 // refcounts may be wrong
	incompatCorrupt     = 1 << 1 // metadata is damaged: do not write
	incompatDataFile    = 1 << 2
	incompatCompression = 1 << 3 // the compression type is not deflate
	incompatExtendedL2  = 1 << 4
	incompatKnown       = incompatDirty | incompatCorrupt | incompatCompression
)

const compatLazyRefcounts = 1 << 0

const (
	compressionDeflate = 0
	compressionZstd    = 1
)

// Header extensions: type and length, 4 bytes each, then data padded to 8.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
)

// Entries of L1 and L2 tables.
//
//	63      copied: the refcount is exactly one, so it may be written in place
//	62      compressed (L2)
//	55..9   offset in the file, 0 if there is none
//	0       reads as zeros (L2, version 3)
//
// A compressed entry has in bits 0 to x-1 the offset, in bytes, and above it up
// to bit 61 how many more sectors than one the data touches, where x is
// 62 - (cluster bits - 8).
const (
	flagCopied     = 1 << 63
	flagCompressed = 1 << 62
	flagZero       = 1 << 0
	offsetMask     = 0x00fffffffffffe00
)

// A snapshot table entry begins with these; extra data, id and name follow,
// and padding to 8 bytes.
const (
	snapL1Offset  = 0
	snapL1Entries = 8
	snapIDLen     = 12
	snapNameLen   = 14
	snapExtraLen  = 36
	snapHeaderLen = 40
)

// Limits. QEMU has the same for tables and snapshots, so an image that breaks
// one was not made by it.
const (
	minClusterBits = 9
	maxClusterBits = 21
	maxRefOrder    = 6 // 64-bit refcounts
	maxL1Bytes     = 32 << 20
	maxRefTable    = 8 << 20
	maxBackingName = 1023
	maxFormatName  = 15
	maxExtensions  = 64
	maxSnapshots   = 65536
	maxSnapExtra   = 1024
	// maxFile is where offsets end: bits 55..9 of an entry.
	maxFile = 1 << 56
)

const sectorSize = 512

// geometry is what follows from the sizes in the header.
type geometry struct {
	clusterBits uint
	refOrder    uint // a refcount has 1<<refOrder bits
}

func (g geometry) cluster() int64 { return 1 << g.clusterBits }

// l2Bits is how many entries, as a power of two, an L2 table has.
func (g geometry) l2Bits() uint { return g.clusterBits - 3 }

// l1Shift is how much of the disk, as a power of two, an L1 entry maps.
func (g geometry) l1Shift() uint { return g.clusterBits + g.l2Bits() }

// blockBits is how many clusters, as a power of two, a refcount block counts.
func (g geometry) blockBits() uint { return g.clusterBits + 3 - g.refOrder }

// alignUp rounds n up to whole clusters. n is at most maxFile.
func (g geometry) alignUp(n int64) int64 { return (n + g.cluster() - 1) &^ (g.cluster() - 1) }

// l1Needed is how many L1 entries a disk of size bytes needs.
func (g geometry) l1Needed(size int64) int64 {
	n := size >> g.l1Shift()
	if size&(1<<g.l1Shift()-1) != 0 {
		n++
	}
	return n
}

// packed takes a compressed entry apart: where its data is and for how many
// bytes at most.
func (g geometry) packed(entry uint64) (off, n int64) {
	x := 62 - (g.clusterBits - 8)
	off = int64(entry & (1<<x - 1))
	sectors := int64(entry>>x)&(1<<(g.clusterBits-8)-1) + 1
	return off, sectors*sectorSize - off%sectorSize
}

// extent is n bytes of the file at off.
type extent struct{ off, n int64 }

func (e extent) overlaps(f extent) bool {
	return e.n > 0 && f.n > 0 && e.off < f.off+f.n && f.off < e.off+e.n
}
