package vioblk_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"vmd/hv/disk"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

// traveller is a guest that does not stop for its moves: it has requests out
// all the time.
type traveller struct {
	*virtiotest.Driver
	t     *testing.T
	r     *rand.Rand
	img   disk.Image
	opts  virtiopci.Options
	fn    *virtiopci.Function
	q     *virtiotest.Queue
	slots [20]slot // what a request needs of memory; three descriptors each
	free  []int
	heads map[uint16]int
	next  uint16 // descriptor that the next request begins with
	model []byte // what the disk is to hold once all that was asked for is done
}

type slot struct {
	at   mem.GPA // header, status 16 bytes behind it, 4096 bytes of data behind both
	op   uint32
	want []byte // of a read
}

const (
	travelled = 256 << 10 // bytes of the disk
	ringSize  = 256       // a legacy driver has no choice
)

func newTraveller(t *testing.T, seed uint64, features uint64, legacy, intx bool) *traveller {
	t.Helper()
	g := &traveller{t: t, r: rand.New(rand.NewPCG(seed, 7)), img: image(t, false), heads: map[uint16]int{}, model: make([]byte, travelled)}
	if legacy {
		g.opts.Interface = virtiopci.Transitional
	}
	h := virtiotest.NewHost(t, 1<<20)
	g.fn = h.PlugWith(pci.SlotDisk, g.device(), g.opts)
	if legacy {
		g.Driver = virtiotest.NewLegacy(h, pci.SlotDisk)
	} else {
		g.Driver = virtiotest.NewDriver(h, pci.SlotDisk)
	}
	g.INTx = g.INTx || intx
	g.Init(features)
	g.q = g.Queue(0, ringSize)
	g.Start()
	for i := range g.slots {
		g.slots[i].at = h.Alloc(32 + 4096)
		g.free = append(g.free, i)
	}
	return g
}

func (g *traveller) device() virtio.Device {
	dev, err := vioblk.New(g.img, vioblk.Config{Serial: "a disk"})
	if err != nil {
		g.t.Fatal(err)
	}
	return dev
}

// room says whether there is a slot for a request, and descriptors: those of the
// oldest one may still be out.
func (g *traveller) room() bool {
	for k := range uint16(3) {
		if _, out := g.heads[(g.next+k)%ringSize]; out {
			return false
		}
		if _, out := g.heads[(g.next-k)%ringSize]; out {
			return false
		}
	}
	return len(g.free) > 0
}

// ask sends a request, perhaps without ringing.
func (g *traveller) ask() {
	i := g.free[0]
	g.free = g.free[1:]
	s := &g.slots[i]
	n := 512 * (1 + g.r.IntN(8))
	// A disk carries out requests in any order: those under way keep apart.
	const own = travelled / 512 / 20 // sectors of each slot
	at := 512 * (i*own + g.r.IntN(own-n/512))
	head, data := g.Host.Bytes(s.at, 16), g.Host.Bytes(s.at+32, n)
	s.op, s.want = uint32(g.r.IntN(2)), nil
	binary.LittleEndian.PutUint32(head, s.op)
	binary.LittleEndian.PutUint64(head[8:], uint64(at/512))
	g.Host.Bytes(s.at+16, 1)[0] = 0xff
	part := virtiotest.Out(s.at+32, n)
	if s.op == vioblk.VIRTIO_BLK_T_OUT {
		for k := range data {
			data[k] = byte(g.r.Uint32())
		}
		copy(g.model[at:], data)
		part.Write = false
	} else {
		s.want = bytes.Clone(g.model[at : at+n])
	}
	g.add(i, virtiotest.In(s.at, 16), part, virtiotest.Out(s.at+16, 1))
	if g.r.IntN(3) > 0 {
		g.q.Kick()
	}
}

// add sends the request of slot i, of three parts.
func (g *traveller) add(i int, parts ...virtiotest.Part) {
	head := g.q.Add(parts...)
	g.heads[head] = i
	g.next = (head + 3) % ringSize
}

// answered checks an answer: there is one for each request.
func (g *traveller) answered(head uint16) {
	g.t.Helper()
	i, ok := g.heads[head]
	if !ok {
		g.t.Fatalf("chain %d came back twice, or was never sent", head)
	}
	delete(g.heads, head)
	g.free = append(g.free, i)
	s := &g.slots[i]
	if st := g.Host.Bytes(s.at+16, 1)[0]; st != 0 {
		g.t.Fatalf("request %d: status %d", s.op, st)
	}
	if s.want != nil && !bytes.Equal(g.Host.Bytes(s.at+32, len(s.want)), s.want) {
		g.t.Fatal("a read gave something that was not written")
	}
}

func (g *traveller) move() {
	g.t.Helper()
	g.fn = g.Move(g.fn, g.Host.Twin(), g.device(), g.opts, g.q)
}

func (g *traveller) run(steps int) {
	g.t.Helper()
	for range steps {
		switch k := g.r.IntN(20); {
		case k < 10 && g.room():
			g.ask()
		case k < 19:
			if head, _, ok := g.q.Next(); ok {
				g.answered(head)
			}
		default:
			g.move()
		}
	}
	g.q.Kick()
	for len(g.heads) > 0 {
		head, _ := g.q.Wait()
		g.answered(head)
	}
	got := make([]byte, travelled)
	if err := g.img.ReadAtV([][]byte{got}, 0); err != nil {
		g.t.Fatal(err)
	}
	if !bytes.Equal(got, g.model) {
		g.t.Error("the disk does not hold what was written last")
	}
}

func TestMovesWithRequestsInFlight(t *testing.T) {
	for _, tc := range []struct {
		name         string
		features     uint64
		legacy, intx bool
	}{
		{"flags", 0, false, false},
		{"event_idx", virtio.VIRTIO_RING_F_EVENT_IDX, false, false},
		{"pin", 0, false, true},
		{"legacy", 0, true, false},
		{"legacy pin", virtio.VIRTIO_RING_F_EVENT_IDX, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(2) {
				newTraveller(t, seed, tc.features, tc.legacy, tc.intx).run(400)
			}
		})
	}
}

// What a driver knows of its disk must be so on the other side; its id comes
// along.
func TestRestoreAnotherDisk(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		size       int64
		cfg        vioblk.Config
	}{
		{"the same", "", imageSize, vioblk.Config{Serial: "another id"}},
		{"larger", "sectors", imageSize + 512, vioblk.Config{}},
		{"read-only", "offered", imageSize, vioblk.Config{ReadOnly: true}},
		{"more queues", "another device", imageSize, vioblk.Config{Queues: 2}},
	} {
		g := newTraveller(t, 1, vioblk.VIRTIO_BLK_F_DISCARD, false, false)
		b := g.Host.Save(g.fn)
		img := image(t, false)
		dev, err := vioblk.New(sized{img, tc.size}, tc.cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.Host.Twin().Restore(pci.SlotDisk, dev, g.opts, b)
		if got := fmt.Sprint(err); (err != nil) != (tc.want != "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if tc.want == "" {
			if s, err := dev.SaveState(); err != nil || !bytes.Contains(s, []byte("a disk")) {
				t.Errorf("the id did not come along: %q, %v", s, err)
			}
		}
	}
}

// sized is an image of another size.
type sized struct {
	disk.Image
	size int64
}

func (s sized) Size() int64 { return s.size }

// Everything that a disk writes into a guest's memory is marked, and little else.
func TestMarksWhatItWrites(t *testing.T) {
	g := newTraveller(t, 1, 0, false, false)
	n := g.Host.Marks(g.fn, func() {
		for range 12 {
			g.ask()
		}
		g.head(vioblk.VIRTIO_BLK_T_IN, 1<<40) // refused: only its status is written
	}, func() {
		g.q.Ring()
		for len(g.heads) > 0 {
			head, _ := g.q.Wait()
			delete(g.heads, head)
		}
	})
	if n < 12 || n > 60 {
		t.Errorf("%d pages are marked", n)
	}
}

// head sends a request of one sector.
func (g *traveller) head(op uint32, sector uint64) {
	s := &g.slots[g.free[0]]
	head := g.Host.Bytes(s.at, 16)
	binary.LittleEndian.PutUint32(head, op)
	binary.LittleEndian.PutUint64(head[8:], sector)
	g.add(g.free[0], virtiotest.In(s.at, 16), virtiotest.Out(s.at+32, 512), virtiotest.Out(s.at+16, 1))
}
