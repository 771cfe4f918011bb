package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"vmd/hv/disk"
)

type write struct {
	off  int64
	data []byte // nil: discarded, anything goes
	n    int64
}

// at is what a disk may hold after a crash: each sector as it was at the last
// flush, or as anything since made it.
type at struct {
	records int // length of the journal at the flush
	synced  plain
	since   []write
}

// crashRun does random things to an image and keeps the journal, and the
// history at every flush.
type crashRun struct {
	start []byte // the file at first
	file  *memFile
	flush []at
	base  disk.Image
}

// allowed reports whether sector k of got is among what may be there.
func (a *at) allowed(got []byte, k int64) bool {
	from, to := k*sectorSize, (k+1)*sectorSize
	if bytes.Equal(got[from:to], a.synced[from:to]) {
		return true
	}
	for _, w := range a.since {
		if w.off <= from && to <= w.off+w.n && (w.data == nil || bytes.Equal(got[from:to], w.data[from-w.off:to-w.off])) {
			return true
		}
	}
	return false
}

func newCrashRun(t *testing.T, seed uint64, o Options, small bool, base plain, steps int) *crashRun {
	r := rand.New(rand.NewPCG(seed, 3))
	c := &crashRun{}
	if base != nil {
		c.base = base
	}
	var f *memFile
	if small {
		f = smallTables(t, o)
	} else {
		f = newImageFile(t, o)
	}
	// Some of it is there already, and some of that is free again.
	img := mustOpen(t, f, c.base)
	model := newModel(t, seed, img, base)
	for range steps / 3 {
		model.step()
	}
	if small { // almost all that the table can count
		b := random(r, 3200<<9)
		if err := img.WriteAtV([][]byte{b}, 0); err != nil {
			t.Fatal(err)
		}
		copy(model.want, b)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	c.start = bytes.Clone(f.data)
	c.file = f.reopened()
	c.file.keep, c.file.solid = true, o.BackingName == ""
	img = mustOpen(t, c.file, c.base)
	model.img = img
	c.flush = []at{{0, bytes.Clone(model.want), nil}}
	for k := range steps {
		c.step(t, model, r)
		if small {
			b := random(r, 50<<9)
			off := int64(3200+50*k) << 9
			if err := img.WriteAtV([][]byte{b}, off); err != nil {
				t.Fatal(err)
			}
			copy(model.want[off:], b)
			now := &c.flush[len(c.flush)-1]
			now.since = append(now.since, write{off, b, int64(len(b))})
		}
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// step writes, zeroes, discards or flushes, and notes it.
func (c *crashRun) step(t *testing.T, m *model, r *rand.Rand) {
	off, n := m.where()
	now := &c.flush[len(c.flush)-1]
	var err error
	switch r.IntN(8) {
	case 0:
		err = m.img.WriteZeroes(off, n, r.IntN(2) == 0)
		clear(m.want[off : off+n])
		now.since = append(now.since, write{off, make([]byte, n), n})
	case 1:
		// Recorded first: the journal may be cut within.
		now.since = append(now.since, write{off, nil, n})
		err = m.img.Discard(off, n)
		m.discarded(off, n)
	case 2, 3:
		err = m.img.Flush()
		c.flush = append(c.flush, at{len(c.file.journal), bytes.Clone(m.want), nil})
	default:
		b := random(r, n)
		err = m.img.WriteAtV([][]byte{b}, off)
		copy(m.want[off:], b)
		now.since = append(now.since, write{off, b, n})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// crash is the file after n records of the journal. Of those after the last
// sync each sector reached the disk or did not, in any order; if order is
// kept (the process was killed, not the host) all did.
func (c *crashRun) crash(r *rand.Rand, n int, order bool) []byte {
	data := bytes.Clone(c.start)
	synced := 0
	for k, rec := range c.file.journal[:n] {
		if rec.data == nil && rec.hole == 0 {
			synced = k
		}
	}
	if order {
		synced = n
	}
	for _, rec := range c.file.journal[:synced] {
		data = apply(data, rec)
	}
	rest := sectors(c.file.journal[synced:n])
	r.Shuffle(len(rest), func(a, b int) {
		if !rest[a].touches(rest[b]) {
			rest[a], rest[b] = rest[b], rest[a]
		}
	})
	keep := r.IntN(5) // of 4
	for _, rec := range rest {
		if r.IntN(4) < keep {
			data = apply(data, rec)
		}
	}
	return data
}

// sectors cuts records into sectors.
func sectors(recs []record) []record {
	var out []record
	for _, rec := range recs {
		for off := int64(0); off < int64(len(rec.data)); {
			n := min(sectorSize-(rec.off+off)%sectorSize, int64(len(rec.data))-off)
			out = append(out, record{off: rec.off + off, data: rec.data[off : off+n]})
			off += n
		}
		if rec.hole > 0 {
			out = append(out, rec)
		}
	}
	return out
}

func (r record) touches(s record) bool {
	return extent{r.off, int64(len(r.data)) + r.hole}.overlaps(extent{s.off, int64(len(s.data)) + s.hole})
}

// verify opens what a crash left.
func (c *crashRun) verify(t *testing.T, data []byte, n int, order bool) {
	t.Helper()
	what := fmt.Sprintf("crash after %d of %d records, order kept: %v", n, len(c.file.journal), order)
	rep, err := check(bytes.NewReader(data), int64(len(data)))
	if err != nil || rep.Corruptions > 0 {
		t.Fatalf("%s: %v, %d corruptions: %q", what, err, rep.Corruptions, rep.Problems)
	}
	img, err := open(newMem(data), c.base, true)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got := readAll(t, img)
	now := &c.flush[0]
	for k := range c.flush {
		if c.flush[k].records <= n {
			now = &c.flush[k]
		}
	}
	for k := range int64(len(got) / sectorSize) {
		if !now.allowed(got, k) {
			t.Fatalf("%s: sector %d is neither what was flushed nor what was written since", what, k)
		}
	}
}

var crashCases = []struct {
	o     Options
	small bool  // refcount table and blocks as small as can be
	base  int64 // bytes
	steps int
}{
	{Options{Size: 300 << 9, ClusterBits: 9}, false, 0, 300},
	{Options{Size: 500<<9 + 512, ClusterBits: 9, BackingName: "b", BackingFormat: "raw"}, false, 400 << 9, 200},
	{Options{Size: 30 << 12, ClusterBits: 12}, false, 0, 300},
	{Options{Size: 30<<12 - 512, ClusterBits: 12, BackingName: "b", BackingFormat: "raw"}, false, 33 << 12, 300},
	{Options{Size: 4 << 20, ClusterBits: 9}, true, 0, 18},
}

// smallTables makes an image in memory whose refcount table has to grow: 64
// entries of 64 clusters.
func smallTables(t *testing.T, o Options) *memFile {
	n, err := plan(o)
	if err != nil {
		t.Fatal(err)
	}
	n.refOrder = maxRefOrder
	n.table.n = n.cluster()
	n.blocks = extent{n.table.off + n.table.n, 4 * n.cluster()}
	m := newMem(nil)
	if err := n.writeBlocks(m); err != nil {
		t.Fatal(err)
	}
	h, err := n.header()
	if err != nil {
		t.Fatal(err)
	}
	m.data = apply(m.data, record{data: h})
	return m.reopened()
}

// Whenever the process or the host dies, the image is sound and what was
// flushed is there.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	for k, tt := range crashCases {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(uint64(k), 4))
			var base plain
			if tt.base > 0 {
				base = random(r, tt.base)
			}
			c := newCrashRun(t, uint64(k), tt.o, tt.small, base, tt.steps)
			for n := range len(c.file.journal) + 1 {
				tries := 1
				if tt.small {
					// What the others do not have: a new refcount table, and
					// many new blocks.
					switch {
					case c.changes(n, func(rec record) bool { return rec.off < 512 }):
						tries = 6
					case !c.changes(n, func(rec record) bool { return len(rec.data) == 8 }):
						tries = 0
					}
				}
				for range tries {
					if n%3 == 0 {
						c.verify(t, c.crash(r, n, true), n, true)
					}
					c.verify(t, c.crash(r, n, false), n, false)
				}
			}
			if tt.small && !slices.ContainsFunc(c.file.journal, func(rec record) bool { return rec.data != nil && rec.off < 512 }) {
				t.Error("refcount table did not grow")
			}
		})
	}
}

// changes reports whether one of the records of the journal around n is of the kind that is sought.
func (c *crashRun) changes(n int, sought func(record) bool) bool {
	j := c.file.journal
	return slices.ContainsFunc(j[max(0, n-2):min(len(j), n+1)], func(rec record) bool { return rec.data != nil && sought(rec) })
}

// A few of these are for QEMU to judge. Leaks are exit code 3.
func TestQEMUOnCrashes(t *testing.T) {
	t.Parallel()
	q := newReferee(t)
	for k, tt := range crashCases[:3:3] {
		r := rand.New(rand.NewPCG(uint64(k), 5))
		if tt.base > 0 {
			q.write("b", random(r, tt.base))
		}
		var base plain
		if tt.base > 0 {
			base = plain(mustRead(t, q.path("b")))
		}
		c := newCrashRun(t, 100+uint64(k), tt.o, tt.small, base, tt.steps)
		for range 8 {
			n := r.IntN(len(c.file.journal))
			q.write("img", c.crash(r, n, false))
			if code := q.exitCode(q.img, "check", "-q", "-f", "qcow2", "img"); code != 0 && code != 3 {
				t.Errorf("case %d, crash after %d records: qemu-img check says %d", k, n, code)
			}
		}
	}
}

func mustRead(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
