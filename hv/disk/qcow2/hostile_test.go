package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"vmd/hv/disk"
)

// edit is bytes put into an image.
type edit struct {
	off int64
	v   any // fixed-size integers, big-endian; or a string
}

func (e edit) apply(t testing.TB, b []byte) []byte {
	t.Helper()
	var v []byte
	if s, ok := e.v.(string); ok {
		v = []byte(s)
	} else {
		var err error
		if v, err = binary.Append(nil, be, e.v); err != nil {
			t.Fatal(err)
		}
	}
	return apply(b, record{off: e.off, data: v})
}

// Where things are in victim's image.
const (
	victimBits    = 12
	victimL1      = 1 << 12
	victimTable   = 2 << 12
	victimBlock   = 3 << 12
	victimL2      = 4 << 12
	victimData    = 5 << 12 // of cluster 0; 1 follows
	victimEnd     = 7 << 12
	victimSize    = 4 << 20
	victimBacking = 0x200
)

// victim is an image with an L2 table and two clusters.
func victim(t testing.TB) []byte {
	t.Helper()
	f := newImageFile(t, Options{Size: victimSize, ClusterBits: victimBits})
	i := mustOpen(t, f, nil)
	mustWrite(t, i, bytes.Repeat([]byte{0xaa}, 2<<victimBits), 0)
	must(t, i.Close())
	b := f.data
	for _, where := range []struct {
		off  int64
		want uint64
	}{
		{hdrL1Offset, victimL1}, {hdrRefTableOffset, victimTable}, {victimTable, victimBlock},
		{victimL1, victimL2 | flagCopied}, {victimL2, victimData | flagCopied}, {victimL2 + 8, victimData + 1<<12 | flagCopied},
	} {
		if got := be.Uint64(b[where.off:]); got != where.want {
			t.Fatalf("image has %#x at %#x, want %#x", got, where.off, where.want)
		}
	}
	if len(b) != victimEnd {
		t.Fatalf("image has %#x bytes", len(b))
	}
	return b
}

// Where withSnapshot puts what it adds.
const (
	victimSnaps  = victimEnd
	victimSnapL1 = victimEnd + 1<<12
)

// withSnapshot adds a snapshot of the image to itself: table, clusters and the
// L2 table are used twice.
func withSnapshot(t testing.TB, b []byte) []byte {
	t.Helper()
	for _, e := range []edit{
		{hdrSnapshots, uint32(1)}, {hdrSnapshotsOffset, uint64(victimSnaps)},
		{victimSnaps + snapL1Offset, uint64(victimSnapL1)}, {victimSnaps + snapL1Entries, uint32(2)},
		{victimSnaps + snapIDLen, uint16(1)}, {victimSnaps + snapNameLen, uint16(4)},
		{victimSnaps + snapExtraLen, uint32(16)}, {victimSnaps + snapHeaderLen + 16, "1name"},
		{victimSnapL1, uint64(victimL2)}, {victimSnapL1 + 4088, uint64(0)},
		{victimL1, uint64(victimL2)}, {victimL2, uint64(victimData)}, {victimL2 + 8, uint64(victimData + 1<<12)},
		{victimBlock + victimL2>>12*2, uint16(2)}, {victimBlock + victimData>>12*2, uint16(2)},
		{victimBlock + (victimData>>12+1)*2, uint16(2)},
		{victimBlock + victimSnaps>>12*2, uint16(1)}, {victimBlock + victimSnapL1>>12*2, uint16(1)},
	} {
		b = e.apply(t, b)
	}
	return b
}

// The damage below is to an image that is sound before it.
func TestSnapshotOfVictim(t *testing.T) {
	t.Parallel()
	b := withSnapshot(t, victim(t))
	mustBeClean(t, b, false)
	f := newMem(b)
	i := mustOpen(t, f, nil)
	use(i, 3)
	must(t, i.Close())
	mustBeClean(t, f.data, false)
}

// A count that cannot be higher, or that says less than is so, is no cluster to
// give away.
func TestCountsAtTheirEnds(t *testing.T) {
	t.Parallel()
	for _, count := range []uint16{0, 1, 2, 1<<16 - 1} {
		b := withSnapshot(t, victim(t))
		for _, cluster := range []int64{victimL2 >> 12, victimData >> 12} {
			b = edit{victimBlock + cluster*2, count}.apply(t, b)
		}
		f := newMem(b)
		i := mustOpen(t, f, nil)
		before := bytes.Clone(f.data[victimData : victimData+1<<12])
		table := bytes.Clone(f.data[victimL2 : victimL2+1<<12])
		for k := range int64(200) {
			if err := i.WriteAtV([][]byte{make([]byte, 4096)}, k<<12); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			_ = i.Flush() // may say what it found
		}
		_ = i.Close()
		if count > 1 && (!bytes.Equal(f.data[victimData:victimData+1<<12], before) || !bytes.Equal(f.data[victimL2:victimL2+1<<12], table)) {
			t.Errorf("count %d: a write to the disk changed its snapshot", count)
		}
		if v, err := i.count(victimL2 >> 12); err != nil || v > uint64(count) {
			t.Errorf("count %d became %d, %v", count, v, err)
		}
	}
}

func TestHostileHeaders(t *testing.T) {
	t.Parallel()
	good := victim(t)
	for _, tt := range []struct {
		name  string
		edits []edit
		cut   int // bytes left, 0: all
		want  error
		text  string
	}{
		{"empty", nil, 1, ErrNotQcow2, ""},
		{"magic only", nil, 4, ErrCorrupt, "header ends"},
		{"half a header", nil, 90, ErrCorrupt, "header ends"},
		{"other magic", []edit{{0, "KDMV"}}, 0, ErrNotQcow2, ""},
		{"version 1", []edit{{hdrVersion, uint32(1)}}, 0, ErrUnsupported, "version 1"},
		{"version 4", []edit{{hdrVersion, uint32(4)}}, 0, ErrUnsupported, "version 4"},
		{"version -1", []edit{{hdrVersion, uint32(1<<32 - 1)}}, 0, ErrUnsupported, "version 4294967295"},
		{"tiny clusters", []edit{{hdrClusterBits, uint32(8)}}, 0, ErrUnsupported, "clusters"},
		{"giant clusters", []edit{{hdrClusterBits, uint32(22)}}, 0, ErrUnsupported, "clusters"},
		{"absurd clusters", []edit{{hdrClusterBits, uint32(1<<32 - 1)}}, 0, ErrUnsupported, "clusters"},
		{"encrypted", []edit{{hdrCrypt, uint32(1)}}, 0, ErrUnsupported, "encryption"},
		{"LUKS", []edit{{hdrCrypt, uint32(2)}}, 0, ErrUnsupported, "encryption"},
		{"negative size", []edit{{hdrSize, uint64(1 << 63)}}, 0, ErrCorrupt, "disk of"},
		{"size too large for L1", []edit{{hdrSize, uint64(1 << 50)}}, 0, ErrUnsupported, "L1 table"},
		{"L1 too short", []edit{{hdrSize, uint64(1 << 30)}}, 0, ErrCorrupt, "needed"},
		{"L1 gigantic", []edit{{hdrL1Entries, uint32(1<<32 - 1)}}, 0, ErrUnsupported, "L1 table"},
		{"L1 outside", []edit{{hdrL1Offset, uint64(1 << 40)}}, 0, ErrCorrupt, "table of"},
		{"L1 beyond offsets", []edit{{hdrL1Offset, uint64(1<<64 - 1<<12)}}, 0, ErrCorrupt, "table at"},
		{"L1 unaligned", []edit{{hdrL1Offset, uint64(victimL1 + 512)}}, 0, ErrCorrupt, "table at"},
		{"L1 on header", []edit{{hdrL1Offset, uint64(0)}}, 0, ErrCorrupt, "table of"},
		{"L1 on refcount table", []edit{{hdrL1Offset, uint64(victimTable)}}, 0, ErrCorrupt, "overlap"},
		{"no refcount table", []edit{{hdrRefTableLen, uint32(0)}}, 0, ErrCorrupt, "refcount table"},
		{"refcount table gigantic", []edit{{hdrRefTableLen, uint32(1<<32 - 1)}}, 0, ErrUnsupported, "refcount table"},
		{"refcount table outside", []edit{{hdrRefTableOffset, uint64(1 << 50)}}, 0, ErrCorrupt, "table of"},
		{"refcount table unaligned", []edit{{hdrRefTableOffset, uint64(victimTable + 8)}}, 0, ErrCorrupt, "table at"},
		{"refcount table on header", []edit{{hdrRefTableOffset, uint64(0)}}, 0, ErrCorrupt, "table of"},
		{"refcounts of 128 bits", []edit{{hdrRefcountOrder, uint32(7)}}, 0, ErrUnsupported, "refcounts"},
		{"header length 0", []edit{{hdrHeaderLen, uint32(0)}}, 0, ErrCorrupt, "header length"},
		{"header length odd", []edit{{hdrHeaderLen, uint32(105)}}, 0, ErrCorrupt, "header length"},
		{"header longer than cluster", []edit{{hdrHeaderLen, uint32(1 << 13)}}, 0, ErrCorrupt, "header length"},
		{"data file", []edit{{hdrIncompatible, uint64(incompatDataFile)}}, 0, ErrUnsupported, "external data file"},
		{"extended L2", []edit{{hdrIncompatible, uint64(incompatExtendedL2)}}, 0, ErrUnsupported, "extended L2"},
		{"feature 63", []edit{{hdrIncompatible, uint64(1 << 63)}}, 0, ErrUnsupported, "incompatible features"},
		{"compression 2", []edit{{hdrIncompatible, uint64(incompatCompression)}, {hdrHeaderLen, uint32(112)}, {hdrCompression, uint8(2)}}, 0, ErrUnsupported, "compression"},
		{"compression unsaid", []edit{{hdrIncompatible, uint64(incompatCompression)}}, 0, ErrCorrupt, "compression"},
		{"compression not flagged", []edit{{hdrHeaderLen, uint32(112)}, {hdrCompression, uint8(1)}}, 0, ErrCorrupt, "compression"},
		{"too many snapshots", []edit{{hdrSnapshots, uint32(65537)}}, 0, ErrUnsupported, "snapshots"},
		{"snapshots outside", []edit{{hdrSnapshots, uint32(1)}, {hdrSnapshotsOffset, uint64(1 << 40)}}, 0, ErrCorrupt, "snapshot table"},
		{"snapshots nowhere", []edit{{hdrSnapshots, uint32(1)}}, 0, ErrCorrupt, "snapshot table"},
		{"name too long", []edit{{hdrBackingOffset, uint64(victimBacking)}, {hdrBackingLen, uint32(1024)}}, 0, ErrUnsupported, "backing file name"},
		{"name in header", []edit{{hdrBackingOffset, uint64(8)}, {hdrBackingLen, uint32(4)}}, 0, ErrCorrupt, "backing file name"},
		{"name outside cluster", []edit{{hdrBackingOffset, uint64(4090)}, {hdrBackingLen, uint32(10)}}, 0, ErrCorrupt, "backing file name"},
		{"name far away", []edit{{hdrBackingOffset, uint64(1<<64 - 1)}, {hdrBackingLen, uint32(10)}}, 0, ErrCorrupt, "backing file name"},
		{"NUL in name", []edit{{hdrBackingOffset, uint64(victimBacking)}, {hdrBackingLen, uint32(4)}, {victimBacking, "a\x00bc"}}, 0, ErrCorrupt, "name"},
		{"extension too long", []edit{{headerLenV3, uint32(1)}, {headerLenV3 + 4, uint32(1 << 31)}}, 0, ErrCorrupt, "extension"},
		{"format too long", []edit{{headerLenV3, uint32(extBackingFormat)}, {headerLenV3 + 4, uint32(16)}}, 0, ErrCorrupt, "backing file format"},
		{"extensions without end", []edit{{headerLenV3, strings.Repeat("\x01\x01\x01\x01\x00\x00\x00\x00", 400)}}, 0, ErrCorrupt, "extensions"},
	} {
		b := bytes.Clone(good)
		for _, e := range tt.edits {
			b = e.apply(t, b)
		}
		if tt.cut > 0 {
			b = b[:tt.cut]
		}
		_, err := Info(bytes.NewReader(b), int64(len(b)))
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: Info: %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
		for _, readOnly := range []bool{true, false} {
			if _, openErr := open(newMem(b), nil, readOnly); openErr == nil {
				t.Errorf("%s: opened", tt.name)
			}
		}
	}
}

// What the header does not say comes to light when an image is opened for
// writing.
func TestHostileTables(t *testing.T) {
	t.Parallel()
	good := victim(t)
	for _, tt := range []struct {
		name  string
		edits []edit
		text  string
	}{
		{"L2 outside", []edit{{victimL1, uint64(1<<40 | flagCopied)}}, "entry 0 refers"},
		{"L2 unaligned", []edit{{victimL1, uint64(victimL2 + 512)}}, "entry 0 refers"},
		{"L2 on L1", []edit{{victimL1, uint64(victimL1)}}, "two tables"},
		{"L2 on refcount table", []edit{{victimL1, uint64(victimTable)}}, "two tables"},
		{"L2 on refcount block", []edit{{victimL1, uint64(victimBlock)}}, "two tables"},
		{"L2 used twice", []edit{{victimL1 + 8, uint64(victimL2)}}, "two tables"},
		{"block outside", []edit{{victimTable, uint64(1 << 40)}}, "entry 0 refers"},
		{"block unaligned", []edit{{victimTable, uint64(victimBlock + 1024)}}, "entry 0 refers"},
		{"block on L1", []edit{{victimTable, uint64(victimL1)}}, "two tables"},
		{"block used twice", []edit{{victimTable + 8, uint64(victimBlock)}}, "two tables"},
		{"marked as damaged", []edit{{hdrIncompatible, uint64(incompatCorrupt)}}, "marked as damaged"},
		{"snapshot's L1 on L1", []edit{{hdrSnapshots, uint32(1)}, {hdrSnapshotsOffset, uint64(victimEnd)}, {victimEnd + snapL1Offset, uint64(victimL1)}, {victimEnd + snapL1Entries, uint32(2)}, {victimEnd + 4088, uint64(0)}}, "overlap"},
		{"snapshot's L1 gigantic", []edit{{hdrSnapshots, uint32(1)}, {hdrSnapshotsOffset, uint64(victimEnd)}, {victimEnd + snapL1Entries, uint32(1<<32 - 1)}, {victimEnd + 4088, uint64(0)}}, "snapshot 0"},
		{"snapshot's data gigantic", []edit{{hdrSnapshots, uint32(1)}, {hdrSnapshotsOffset, uint64(victimEnd)}, {victimEnd + snapExtraLen, uint32(1<<32 - 1)}, {victimEnd + 4088, uint64(0)}}, "snapshot 0"},
		{"snapshots that run out", []edit{{hdrSnapshots, uint32(1024)}, {hdrSnapshotsOffset, uint64(victimEnd)}, {victimEnd + snapL1Offset, uint64(victimL1)}, {victimEnd + 4088, uint64(0)}}, "snapshot"},
		{"snapshot's L1 outside", []edit{{hdrSnapshots, uint32(1)}, {hdrSnapshotsOffset, uint64(victimData)}}, "snapshot 0"},
		{"dirty, cluster used twice", []edit{{hdrIncompatible, uint64(incompatDirty)}, {victimL2 + 8, uint64(victimData | flagCopied)}}, "rebuild"},
		{"dirty, cluster outside", []edit{{hdrIncompatible, uint64(incompatDirty)}, {victimL2 + 8, uint64(1<<50 | flagCopied)}}, "rebuild"},
		{"base that is not there", []edit{{hdrBackingOffset, uint64(victimBacking)}, {hdrBackingLen, uint32(4)}, {victimBacking, "base"}}, `"base" is missing`},
	} {
		b := bytes.Clone(good)
		for _, e := range tt.edits {
			b = e.apply(t, b)
		}
		f := newMem(bytes.Clone(b))
		_, err := open(f, nil, false)
		if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.text)
		}
		if !bytes.Equal(f.data, b) && !strings.Contains(tt.name, "dirty") {
			t.Errorf("%s: the file was changed", tt.name)
		}
	}
}

// An entry that says that tables are the guest's does not let it write there,
// nor does giving the cluster up free it.
func TestTablesAreNotTheGuests(t *testing.T) {
	t.Parallel()
	good := victim(t)
	requests := map[string]func(*Image) error{
		"write":        func(i *Image) error { return i.WriteAtV([][]byte{make([]byte, 512)}, 0) },
		"write all":    func(i *Image) error { return i.WriteAtV([][]byte{make([]byte, 8192)}, 0) },
		"discard":      func(i *Image) error { return i.Discard(0, 4096) },
		"zero":         func(i *Image) error { return i.WriteZeroes(0, 4096, false) },
		"zero, unmap":  func(i *Image) error { return i.WriteZeroes(0, 4096, true) },
		"zero a piece": func(i *Image) error { return i.WriteZeroes(512, 512, true) },
	}
	for where, off := range map[string]uint64{"L1": victimL1, "refcount table": victimTable, "refcount block": victimBlock, "L2": victimL2} {
		for how, flags := range map[string]uint64{"copied": flagCopied, "shared": 0, "zero": flagCopied | flagZero} {
			for what, do := range requests {
				b := edit{victimL2, off | flags}.apply(t, bytes.Clone(good))
				f := newMem(bytes.Clone(b))
				i := mustOpen(t, f, nil)
				if err := do(i); !errors.Is(err, ErrCorrupt) && !(how == "zero" && what[0] == 'z') {
					t.Errorf("%s on %s, %s: %v", what, where, how, err)
				}
				must(t, i.Flush())
				for _, table := range []int{0, victimL1, victimTable, victimBlock} {
					if table != victimBlock && !bytes.Equal(f.data[table:table+4096], b[table:table+4096]) {
						t.Errorf("%s on %s, %s: table at %#x was changed", what, where, how, table)
					}
				}
				if v, err := i.count(int64(off) >> victimBits); v != 1 || err != nil {
					t.Errorf("%s on %s, %s: table is counted %d times, %v", what, where, how, v, err)
				}
			}
		}
	}
}

// Entries that lead nowhere are errors of the request.
func TestHostileEntries(t *testing.T) {
	t.Parallel()
	good := victim(t)
	for name, entry := range map[string]uint64{
		"outside":              1<<40 | flagCopied,
		"last offset":          offsetMask | flagCopied,
		"unaligned":            victimData + 512,
		"packed outside":       flagCompressed | 1<<50,
		"packed header":        flagCompressed | 8,
		"packed and copied":    flagCompressed | flagCopied | victimData,
		"packed, not deflated": flagCompressed | victimData,
		"packed, cut off":      flagCompressed | 0xf<<58 | (victimEnd - 100),
		"zero, outside":        flagZero | 1<<41,
	} {
		b := edit{victimL2, entry}.apply(t, bytes.Clone(good))
		for _, readOnly := range []bool{true, false} {
			i, err := open(newMem(bytes.Clone(b)), nil, readOnly)
			must(t, err)
			buf := make([]byte, 512)
			if err := i.ReadAtV([][]byte{buf}, 0); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: read: %v", name, err)
			}
			if readOnly {
				continue
			}
			if err := i.WriteAtV([][]byte{buf}, 512); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: write: %v", name, err)
			}
			if err := i.WriteAtV([][]byte{buf}, 4096); err != nil {
				t.Errorf("%s: write next to it: %v", name, err)
			}
		}
	}
}

// A cluster that is in use and counted as free is lost at worst, and said.
func TestUncountedClusters(t *testing.T) {
	t.Parallel()
	b := victim(t)
	b = edit{victimBlock, strings.Repeat("\x00", 4096)}.apply(t, b)
	i := mustOpen(t, newMem(b), nil)
	for k := range int64(40) { // new clusters are not where tables are
		mustWrite(t, i, make([]byte, 4096), 1<<20+k<<12)
	}
	must(t, i.Flush())
	if err := i.WriteAtV([][]byte{make([]byte, 512)}, 0); err != nil {
		t.Fatal(err)
	}
	again, err := open(i.file.(*memFile).reopened(), nil, true)
	must(t, err)
	if again.Header().Size != victimSize {
		t.Error("header changed")
	}
	for _, off := range []uint64{victimL1, victimTable, victimBlock, victimL2} {
		if !again.l1HasOnlyTables(off) {
			t.Errorf("table at %#x was given away", off)
		}
	}
}

// l1HasOnlyTables reports whether no entry of the first L2 table is off.
func (i *Image) l1HasOnlyTables(off uint64) bool {
	for c := range int64(512) {
		if e, err := i.peek(c << i.clusterBits); err != nil || e&offsetMask == off {
			return false
		}
	}
	return true
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	b := victim(t)
	b = edit{hdrIncompatible, uint64(incompatDirty | incompatCorrupt)}.apply(t, b)
	f := newMem(b)
	f.fail = func(string) error { t.Error("the file is written to"); return nil }
	i, err := open(f, nil, true)
	must(t, err)
	for name, err := range map[string]error{
		"write":   i.WriteAtV([][]byte{make([]byte, 512)}, 0),
		"discard": i.Discard(0, 4096),
		"zero":    i.WriteZeroes(0, 4096, true),
	} {
		if !errors.Is(err, disk.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := readAll(t, i); got[0] != 0xaa || got[8192] != 0 {
		t.Error("disk differs")
	}
	must(t, i.Flush())
	must(t, i.Close())
}

func TestRanges(t *testing.T) {
	t.Parallel()
	i := mustOpen(t, newMem(victim(t)), nil)
	one := [][]byte{make([]byte, 512)}
	for _, off := range []int64{-512, victimSize, victimSize - 256, 1<<63 - 512} {
		for name, err := range map[string]error{
			"read": i.ReadAtV(one, off), "write": i.WriteAtV(one, off),
			"discard": i.Discard(off, 512), "zero": i.WriteZeroes(off, 512, true),
		} {
			if !errors.Is(err, disk.ErrRange) {
				t.Errorf("%s at %d: %v", name, off, err)
			}
		}
	}
	must(t, i.ReadAtV(nil, victimSize))
	must(t, i.WriteAtV(nil, victimSize))
	must(t, i.Discard(victimSize, 0))
	must(t, i.WriteZeroes(victimSize, 0, true))
}

// Autoclear features are for who knows them.
func TestUnknownAutoclearFeaturesAreCleared(t *testing.T) {
	t.Parallel()
	b := edit{hdrAutoclear, uint64(3)}.apply(t, victim(t))
	b = edit{hdrCompatible, uint64(5)}.apply(t, b)
	f := newMem(bytes.Clone(b))
	_, err := open(f, nil, true)
	must(t, err)
	if !bytes.Equal(f.data, b) {
		t.Error("opening for reading changed the file")
	}
	must(t, mustOpen(t, f, nil).Close())
	if got := be.Uint64(f.data[hdrAutoclear:]); got != 0 {
		t.Errorf("autoclear features %#x", got)
	}
	if got := be.Uint64(f.data[hdrCompatible:]); got != 5 {
		t.Errorf("compatible features %#x", got)
	}
}

func FuzzInfo(f *testing.F) {
	f.Add(victim(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Info(bytes.NewReader(b), int64(len(b)))
		if err == nil && (h.Size < 0 || h.ClusterBits < 9 || len(h.BackingName) > maxBackingName) {
			t.Errorf("%+v", h)
		}
	})
}

// Whatever is in a file, opening and using it ends, without a panic.
func FuzzOpen(f *testing.F) {
	m := newImageFile(f, Options{Size: 200 << 9, ClusterBits: 9})
	i := mustOpen(f, m, nil)
	mustWrite(f, i, bytes.Repeat([]byte{0xaa}, 2<<9), 0)
	must(f, i.Close())
	l1 := be.Uint64(m.data[hdrL1Offset:])
	l2 := int64(be.Uint64(m.data[l1:]) & offsetMask)
	f.Add(m.data, uint8(0))
	f.Add(edit{hdrIncompatible, uint64(incompatDirty)}.apply(f, bytes.Clone(m.data)), uint8(1))
	f.Add(edit{l2, uint64(flagCompressed | 0x400)}.apply(f, bytes.Clone(m.data)), uint8(2))
	f.Add(edit{l2, l1 | flagCopied}.apply(f, bytes.Clone(m.data)), uint8(3))
	f.Add(withSnapshot(f, victim(f)), uint8(4))
	f.Add(edit{victimBlock + victimL2>>12*2, uint16(1<<16 - 1)}.apply(f, withSnapshot(f, victim(f))), uint8(5))
	f.Fuzz(func(t *testing.T, b []byte, where uint8) {
		if len(b) < 1<<20 {
			openAndUse(b, int64(where))
		}
	})
}

func openAndUse(b []byte, where int64) {
	_, _ = check(bytes.NewReader(b), int64(len(b)))
	for _, readOnly := range []bool{true, false} {
		i, err := open(newMem(bytes.Clone(b)), nil, readOnly)
		if err == nil {
			use(i, where)
			_ = i.Close()
		}
	}
}

// The same with damage where it matters, which a fuzzer takes long to find.
func TestDamagedImages(t *testing.T) {
	t.Parallel()
	good := victim(t)
	r := rand.New(rand.NewPCG(1, 1))
	snap := withSnapshot(t, bytes.Clone(good))
	areas := []int{0, headerLenV3, victimL1, victimTable, victimBlock, victimL2, victimSnaps, victimSnapL1}
	for k := range 4000 {
		b, areas := bytes.Clone(good), areas[:6]
		if k%2 == 0 {
			b, areas = bytes.Clone(snap), areas[:8]
		}
		if r.IntN(3) == 0 {
			b = edit{hdrIncompatible, uint64(incompatDirty)}.apply(t, b)
		}
		for range 1 + r.IntN(6) {
			off := areas[r.IntN(len(areas))] + r.IntN(112)
			switch r.IntN(4) {
			case 0:
				b[off] = byte(r.Uint32())
			case 1:
				b[off] ^= 1 << r.IntN(8)
			case 2:
				be.PutUint64(b[off&^7:], uint64(r.IntN(8))<<victimBits|uint64(r.IntN(4))<<62|uint64(r.IntN(2)))
			default:
				b[off] = 0xff
			}
		}
		if r.IntN(3) == 0 {
			b = b[:r.IntN(len(b))]
		}
		openAndUse(b, r.Int64N(256))
	}
}

// use does a bit of everything; errors are welcome.
func use(i *Image, where int64) {
	bufs := [][]byte{make([]byte, 4096), make([]byte, 8192)}
	for _, off := range []int64{0, where << i.clusterBits, where << 9, i.Size() - 12288} {
		off = max(0, min(off, i.Size()-12288))
		_ = i.ReadAtV(bufs, off)
		_ = i.WriteAtV(bufs, off)
		_ = i.Discard(off, 8192)
		_ = i.WriteZeroes(off+512, 8192, where%2 == 0)
		_ = i.WriteAtV(bufs[:1], off+1024)
		_ = i.Flush()
		_, _, _ = i.NextData(off)
	}
}

// FuzzOps does what bytes say to an image and to a plain disk.
func FuzzOps(f *testing.F) {
	f.Add(uint8(9), []byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Add(uint8(12), bytes.Repeat([]byte{1, 4, 200, 3, 5, 5, 9, 16}, 9))
	f.Fuzz(func(t *testing.T, bits uint8, ops []byte) {
		o := Options{ClusterBits: 9 + uint(bits)%8, Size: 600 << 9}
		var base plain
		if bits >= 128 {
			o.BackingName, base = "b", bytes.Repeat([]byte("base"), 5000)
		}
		file := newImageFile(t, o)
		var under disk.Image
		if base != nil {
			under = base[:len(base)&^511]
			base = base[:len(base)&^511]
		}
		m := newModel(t, 1, mustOpen(t, file, under), base)
		for ; len(ops) >= 4 && len(ops) < 4000; ops = ops[4:] {
			off := int64(be.Uint16(ops[1:])) % 600 * 512
			n := min(int64(ops[3])*512, o.Size-off)
			m.op(ops[0], off, n)
		}
		m.finish(file, under)
	})
}

func (m *model) op(what uint8, off, n int64) {
	var err error
	switch what % 6 {
	case 0, 1:
		b := bytes.Repeat([]byte{what | 1}, int(n))
		err = m.img.WriteAtV([][]byte{b}, off)
		copy(m.want[off:], b)
	case 2:
		err = m.img.WriteZeroes(off, n, what&64 == 0)
		clear(m.want[off : off+n])
	case 3:
		err = m.img.Discard(off, n)
		m.discarded(off, n)
	case 4:
		err = m.img.Flush()
	case 5:
		m.compare(off, n)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}
