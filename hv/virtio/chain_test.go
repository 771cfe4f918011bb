package virtio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"vmd/hv/mem"
)

// nobody is a Notifier that counts.
type nobody struct{ queue, config int }

func (n *nobody) NotifyQueue(int) { n.queue++ }
func (n *nobody) NotifyConfig()   { n.config++ }

// ramSize is the memory of a test guest, in two regions that touch: addresses
// from 0x10000 on are a slice of their own.
const ramSize = 0x12000

func testMemory(t testing.TB) *mem.Memory {
	t.Helper()
	all := make([]byte, ramSize)
	m, err := mem.New(mem.Region{Base: 0, Bytes: all[:0x10000:0x10000]}, mem.Region{Base: 0x10000, Bytes: all[0x10000:]})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Where the rings of a test queue are.
const (
	testDesc  = 0x0000
	testAvail = 0x1002 // in the middle of a word
	testUsed  = 0x2000
	testSize  = 8
)

func testQueue(t testing.TB, m *mem.Memory, features uint64) (*Queue, *Core, *nobody) {
	t.Helper()
	n := &nobody{}
	c := &Core{mem: m, notify: n, driver: features, queues: []QueueConfig{{
		Max: testSize, Size: testSize, Desc: testDesc, Avail: testAvail, Used: testUsed, bell: &Doorbell{fd: -1},
	}}}
	q, err := newQueue(c, 0)
	if err != nil {
		t.Fatal(err)
	}
	return q, c, n
}

type testRing struct {
	t testing.TB
	m *mem.Memory
}

func (r testRing) put16(gpa mem.GPA, v uint16) {
	if err := r.m.Write(gpa, binary.LittleEndian.AppendUint16(nil, v)); err != nil {
		r.t.Fatal(err)
	}
}

func (r testRing) get16(gpa mem.GPA) uint16 {
	var b [2]byte
	if err := r.m.Read(gpa, b[:]); err != nil {
		r.t.Fatal(err)
	}
	return binary.LittleEndian.Uint16(b[:])
}

func (r testRing) desc(table mem.GPA, i int, addr uint64, n uint32, flags, next uint16) {
	b := binary.LittleEndian.AppendUint64(nil, addr)
	b = binary.LittleEndian.AppendUint32(b, n)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint16(b, next)
	if err := r.m.Write(table+mem.GPA(16*i), b); err != nil {
		r.t.Fatal(err)
	}
}

func (r testRing) post(idx, head uint16) {
	r.put16(testAvail+4+2*mem.GPA(idx%testSize), head)
	r.put16(testAvail+2, idx+1)
}

func TestChains(t *testing.T) {
	const table = 0x3000
	for _, c := range []struct {
		name     string
		features uint64
		build    func(r testRing)
		want     string // of the error
		r, w     []int  // lengths of the pieces
	}{
		{"one", 0, func(r testRing) { r.desc(0, 0, 0x4000, 5, 0, 7) }, "", []int{5}, nil},
		{"read and write", 0, func(r testRing) { r.desc(0, 0, 0x4000, 5, 1, 3); r.desc(0, 3, 0x5000, 6, 2, 0) }, "", []int{5}, []int{6}},
		{"whole table", 0, func(r testRing) {
			for i := range testSize {
				r.desc(0, i, 0x4000, 1, uint16(min(1, testSize-1-i)), uint16(i+1))
			}
		}, "", []int{1, 1, 1, 1, 1, 1, 1, 1}, nil},
		{"loop", 0, func(r testRing) { r.desc(0, 0, 0x4000, 1, 1, 0) }, "longer than its table", nil, nil},
		{"nothing", 0, func(r testRing) { r.desc(0, 0, 1<<60, 0, 0, 0) }, "", nil, nil},
		{"across regions that touch", 0, func(r testRing) { r.desc(0, 0, 0xfff0, 0x20, 2, 0) }, "", nil, []int{16, 16}},
		{"behind the last region", 0, func(r testRing) { r.desc(0, 0, ramSize-1, 2, 0, 0) }, "outside guest memory", nil, nil},
		{"length that wraps", 0, func(r testRing) { r.desc(0, 0, 1<<64-1, 2, 0, 0) }, "outside guest memory", nil, nil},
		{"indirect", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) {
			r.desc(0, 0, table, 32, 4, 0)
			r.desc(table, 0, 0x4000, 3, 1, 1)
			r.desc(table, 1, 0x4000, 4, 2, 0)
		}, "", []int{3}, []int{4}},
		{"direct, then indirect", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) {
			r.desc(0, 0, 0x4000, 9, 1, 1)
			r.desc(0, 1, table, 16, 4|2, 0) // WRITE means nothing here
			r.desc(table, 0, 0x4000, 3, 0, 0)
		}, "", []int{9, 3}, nil},
		{"indirect, unaligned", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) {
			r.desc(0, 0, table+1, 16, 4, 0)
			r.desc(table+1, 0, 0x4000, 3, 0, 0)
		}, "", []int{3}, nil},
		{"longer than the queue, indirect", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) {
			r.desc(0, 0, table, 16*20, 4, 0)
			for i := range 20 {
				r.desc(table, i, 0x4000, 1, uint16(min(1, 19-i)), uint16(i+1))
			}
		}, "", []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, nil},
		{"indirect loop", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) { r.desc(0, 0, table, 16, 4, 0); r.desc(table, 0, 0x4000, 3, 1, 0) }, "longer than its table", nil, nil},
		{"indirect next outside", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) { r.desc(0, 0, table, 16, 4, 0); r.desc(table, 0, 0x4000, 3, 1, 1) }, "descriptor", nil, nil},
		{"nested", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) { r.desc(0, 0, table, 16, 4, 0); r.desc(table, 0, table, 16, 4, 0) }, "indirect", nil, nil},
		{"indirect and next", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) { r.desc(0, 0, table, 16, 5, 0) }, "indirect", nil, nil},
		{"indirect, not negotiated", 0, func(r testRing) { r.desc(0, 0, table, 16, 4, 0) }, "indirect", nil, nil},
		{"empty table", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) { r.desc(0, 0, table, 0, 4, 0) }, "table of 0", nil, nil},
		{"odd table", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) { r.desc(0, 0, table, 17, 4, 0) }, "table of 17", nil, nil},
		{"huge table", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) { r.desc(0, 0, 0, 1<<31, 4, 0) }, "table of", nil, nil},
		{"table outside", VIRTIO_RING_F_INDIRECT_DESC, func(r testRing) { r.desc(0, 0, ramSize-8, 16, 4, 0) }, "outside guest memory", nil, nil},
		{"read after write", 0, func(r testRing) { r.desc(0, 0, 0x4000, 1, 3, 1); r.desc(0, 1, 0x4000, 1, 0, 0) }, "after a writable", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testRing{t, testMemory(t)}
			c.build(r)
			q, _, _ := testQueue(t, r.m, c.features)
			var ch Chain
			err := ch.load(q, 0)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			lens := func(segs [][]byte) (n []int) {
				for _, s := range segs {
					n = append(n, len(s))
				}
				return n
			}
			if got := lens(ch.Readable); !equal(got, c.r) {
				t.Errorf("readable %v, want %v", got, c.r)
			}
			if got := lens(ch.Writable); !equal(got, c.w) {
				t.Errorf("writable %v, want %v", got, c.w)
			}
		})
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestTakePut(t *testing.T) {
	c := Chain{Readable: [][]byte{{1, 2}, {3}, {4, 5, 6}}, Writable: [][]byte{make([]byte, 2), make([]byte, 1), make([]byte, 3)}}
	p := make([]byte, 4)
	if !c.Take(p) || !bytes.Equal(p, []byte{1, 2, 3, 4}) || c.ReadableLen() != 2 {
		t.Errorf("took %v, %d left", p, c.ReadableLen())
	}
	if c.Take(p) || c.ReadableLen() != 2 {
		t.Errorf("took more than there is, %d left", c.ReadableLen())
	}
	if n := c.Put(1, []byte{7, 8, 9}); n != 3 || c.Writable[0][1] != 7 || c.Writable[1][0] != 8 || c.Writable[2][0] != 9 {
		t.Errorf("put %d: %v", n, c.Writable)
	}
	if n := c.Put(5, []byte{1, 2}); n != 1 {
		t.Errorf("put %d bytes into one", n)
	}
	if n := c.Put(6, []byte{1}); n != 0 {
		t.Errorf("put %d bytes behind the end", n)
	}
	for n := 5; n >= 0; n-- {
		if last := c.TakeLast(); len(last) != 1 || c.WritableLen() != uint64(n) {
			t.Fatalf("last %v, %d left, want %d", last, c.WritableLen(), n)
		}
	}
	if c.TakeLast() != nil {
		t.Error("a last byte of nothing")
	}
}

func TestRingSetupErrors(t *testing.T) {
	m := testMemory(t)
	good := QueueConfig{Max: 8, Size: 8, Desc: 0, Avail: 0x1000, Used: 0x2000}
	for _, c := range []struct {
		name string
		edit func(*QueueConfig)
		want string
	}{
		{"good", func(*QueueConfig) {}, ""},
		{"size 0", func(q *QueueConfig) { q.Size = 0 }, "power of two"},
		{"size 3", func(q *QueueConfig) { q.Size = 3 }, "power of two"},
		{"too large", func(q *QueueConfig) { q.Size = 16 }, "power of two"},
		{"table unaligned", func(q *QueueConfig) { q.Desc = 8 }, "aligned"},
		{"available unaligned", func(q *QueueConfig) { q.Avail++ }, "aligned"},
		{"used unaligned", func(q *QueueConfig) { q.Used += 2 }, "aligned"},
		{"table across regions", func(q *QueueConfig) { q.Desc = 0xfff0 }, "outside"},
		{"available at the end", func(q *QueueConfig) { q.Avail = ramSize - 24 }, ""},
		{"available over the end", func(q *QueueConfig) { q.Avail = ramSize - 20 }, "outside"},
		{"used at the end", func(q *QueueConfig) { q.Used = ramSize - 72 }, ""},
		{"used over the end", func(q *QueueConfig) { q.Used = ramSize - 68 }, "outside"},
		{"available wraps", func(q *QueueConfig) { q.Avail = 1<<64 - 2 }, "outside"},
		{"used wraps", func(q *QueueConfig) { q.Used = 1<<64 - 4 }, "outside"},
		{"table wraps", func(q *QueueConfig) { q.Desc = 1<<64 - 16 }, "outside"},
	} {
		qc := good
		c.edit(&qc)
		_, err := newQueue(&Core{mem: m, queues: []QueueConfig{qc}}, 0)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestInterruptSuppression walks a queue through both ways in which a driver
// says when it wants to hear of used buffers.
func TestInterruptSuppression(t *testing.T) {
	for _, features := range []uint64{0, VIRTIO_RING_F_EVENT_IDX} {
		r := testRing{t, testMemory(t)}
		r.desc(0, 0, 0x4000, 1, 0, 0)
		q, _, n := testQueue(t, r.m, features)
		var c Chain
		serve := func(start, count uint16) {
			for i := range count {
				r.post(start+i, 0)
			}
			for range count {
				if !q.Next(&c) {
					t.Fatal("no chain")
				}
				q.Done(&c, 0)
			}
			q.Flush()
		}
		quiet, loud := func() { r.put16(testAvail, 1) }, func() { r.put16(testAvail, 0) }
		if features != 0 {
			event := mem.GPA(testAvail + 4 + 2*testSize)
			quiet, loud = func() { r.put16(event, 100) }, func() { r.put16(event, r.get16(testUsed+2)+1) }
		}
		loud()
		serve(0, 3)
		if n.queue != 1 {
			t.Errorf("features %#x: %d interrupts for a burst, want 1", features, n.queue)
		}
		quiet()
		serve(3, 2)
		if n.queue != 1 {
			t.Errorf("features %#x: an interrupt that was not wanted", features)
		}
		loud()
		serve(5, 2)
		if n.queue != 2 {
			t.Errorf("features %#x: %d interrupts, want 2", features, n.queue)
		}
		if got := r.get16(testUsed + 2); got != 7 {
			t.Errorf("used index %d, want 7", got)
		}
	}
}

func TestDoorbellSuppression(t *testing.T) {
	r := testRing{t, testMemory(t)}
	q, _, _ := testQueue(t, r.m, 0)
	q.disarm()
	if r.get16(testUsed) != VIRTQ_USED_F_NO_NOTIFY {
		t.Error("a queue that is being served still wants doorbells")
	}
	if q.arm() || r.get16(testUsed) != 0 {
		t.Errorf("armed: flags %#x", r.get16(testUsed))
	}
	q.disarm()
	r.post(0, 0)
	if !q.arm() {
		t.Error("a chain that came before the queue was armed is overlooked")
	}

	r = testRing{t, testMemory(t)}
	q, _, _ = testQueue(t, r.m, VIRTIO_RING_F_EVENT_IDX)
	q.lastAvail = 5
	r.put16(testAvail+2, 5)
	if q.arm() || r.get16(testUsed+4+8*testSize) != 5 {
		t.Errorf("avail_event %d, want 5", r.get16(testUsed+4+8*testSize))
	}
}

// TestIndexWraps runs the 16-bit indices past their end.
func TestIndexWraps(t *testing.T) {
	r := testRing{t, testMemory(t)}
	r.desc(0, 3, 0x4000, 1, 0, 0)
	q, c, _ := testQueue(t, r.m, VIRTIO_RING_F_EVENT_IDX)
	var ch Chain
	for i := range 70000 {
		r.post(uint16(i), 3)
		if !q.Next(&ch) {
			t.Fatalf("step %d: no chain", i)
		}
		q.Done(&ch, uint32(i))
		q.Flush()
	}
	if c.dead.Load() {
		t.Error("device failed")
	}
	if got, want := r.get16(testUsed+2), uint16(70000&0xffff); got != want {
		t.Errorf("used index %d, want %d", got, want)
	}
}

func TestRewind(t *testing.T) {
	r := testRing{t, testMemory(t)}
	r.desc(0, 1, 0x4000, 1, 0, 0)
	r.desc(0, 2, 0x4000, 2, 0, 0)
	q, _, _ := testQueue(t, r.m, 0)
	r.post(0, 1)
	r.post(1, 2)
	var a, b Chain
	if !q.Next(&a) || !q.Next(&b) || q.Next(&a) {
		t.Fatal("want two chains")
	}
	q.Rewind(2)
	if !q.Next(&a) || a.head != 1 || !q.Next(&b) || b.head != 2 {
		t.Errorf("after a rewind: %d, %d", a.head, b.head)
	}
}

// FuzzChain lets a queue run over memory that is nothing but fuzz, and checks
// that every slice it hands out is guest memory, in bounds, and that it ends.
func FuzzChain(f *testing.F) {
	// The input is the descriptor table, the available ring, and what lies at
	// 0x3000, one after the other.
	const table, avail = 16 * testSize, 6 + 2*testSize
	ring := func(build func(r testRing)) []byte {
		r := testRing{f, testMemory(f)}
		build(r)
		b := r.m.Regions()[0].Bytes
		return bytes.Join([][]byte{b[:table], b[testAvail:][:avail], b[0x3000:0x3020]}, nil)
	}
	f.Add(ring(func(r testRing) { r.desc(0, 0, 0x4000, 8, 1, 1); r.desc(0, 1, 0x4000, 8, 2, 0); r.post(0, 0) }), true)
	f.Add(ring(func(r testRing) {
		r.desc(0, 0, 0x3000, 32, 4, 0)
		r.desc(0x3000, 0, 0xfff0, 64, 0, 0)
		r.post(0, 0)
	}), true)
	f.Add(ring(func(r testRing) { r.desc(0, 0, 0x4000, 8, 1, 0); r.post(0, 0) }), false)
	f.Fuzz(func(t *testing.T, ram []byte, event bool) {
		m := testMemory(t)
		b := m.Regions()[0].Bytes
		ram = ram[copy(b[:table], ram):]
		ram = ram[copy(b[testAvail:][:avail], ram):]
		copy(b[0x3000:], ram)
		features := VIRTIO_RING_F_INDIRECT_DESC
		if event {
			features |= VIRTIO_RING_F_EVENT_IDX
		}
		q, c, _ := testQueue(t, m, features)
		var failed error
		c.warn = func(err error) { failed = errors.Join(failed, err) }
		var ch Chain
		for n := 0; q.Next(&ch); n++ {
			if n > testSize {
				t.Fatal("more chains than the ring holds")
			}
			if ch.ReadableLen()+ch.WritableLen() >= 1<<32 {
				t.Fatal("4 GiB in one chain")
			}
			for _, s := range append(ch.Readable[:len(ch.Readable):len(ch.Readable)], ch.Writable...) {
				if len(s) == 0 || len(s) > ramSize || cap(s) != len(s) {
					t.Fatalf("piece of %d bytes, capacity %d", len(s), cap(s))
				}
			}
			var p [16]byte
			ch.Take(p[:])
			ch.Put(3, p[:])
			ch.TakeLast()
			q.Done(&ch, 1)
		}
		q.Flush()
		if c.dead.Load() != (failed != nil) {
			t.Errorf("failed %v, warned %v", c.dead.Load(), failed)
		}
	})
}

func TestNextDoesNotAllocate(t *testing.T) {
	r := testRing{t, testMemory(t)}
	for i := range testSize {
		r.desc(0, i, 0x4000, 1, uint16(min(1, testSize-1-i)), uint16(i+1))
	}
	q, _, _ := testQueue(t, r.m, VIRTIO_RING_F_EVENT_IDX)
	avail := r.m.Regions()[0].Bytes[testAvail:]
	var c Chain
	var idx uint16
	if n := testing.AllocsPerRun(100, func() {
		idx++
		binary.LittleEndian.PutUint16(avail[2:], idx)
		if !q.Next(&c) {
			t.Fatal("no chain")
		}
		q.Done(&c, 0)
		q.Flush()
	}); n != 0 {
		t.Errorf("%v allocations per chain", n)
	}
}
