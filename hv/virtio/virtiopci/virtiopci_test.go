package virtiopci_test

import (
	"encoding/binary"
	"testing"

	"go.uber.org/goleak"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a device with two queues that returns each chain with its first
// readable byte copied to its first writable one.
type echo struct {
	config  [16]byte
	workers []*virtio.Worker
	t       virtio.Transport
}

func (e *echo) Type() uint16         { return virtio.VIRTIO_ID_CONSOLE }
func (e *echo) Features() uint64     { return 1 << 7 }
func (e *echo) QueueSizes() []uint16 { return []uint16{16, 8} }

func (e *echo) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < 16 {
		copy(p, e.config[off:])
	}
}

func (e *echo) WriteConfig(off uint64, p []byte) {
	if off < 16 {
		copy(e.config[off:], p)
	}
}

func (e *echo) Activate(_ uint64, qs []*virtio.Queue, t virtio.Transport) error {
	e.t = t
	for _, q := range qs {
		if q == nil {
			continue
		}
		var c virtio.Chain
		e.workers = append(e.workers, q.Start(func() {
			for q.Next(&c) {
				var b [1]byte
				c.Take(b[:])
				q.Done(&c, uint32(c.Put(0, b[:])))
			}
		}, nil))
	}
	return nil
}

func (e *echo) Reset() {
	for _, w := range e.workers {
		w.Stop()
	}
	e.workers = nil
}

func (e *echo) Pause() {
	for _, w := range e.workers {
		w.Pause()
	}
}

func (e *echo) Resume() {
	for _, w := range e.workers {
		w.Resume()
	}
}

func plug(t testing.TB, warn func(error)) (*virtiotest.Driver, *echo) {
	t.Helper()
	h, e := virtiotest.NewHost(t, 4<<20), &echo{}
	h.Plug(pci.SlotConsole, e, warn)
	return virtiotest.NewDriver(h, pci.SlotConsole), e
}

func TestIdentity(t *testing.T) {
	d, _ := plug(t, nil)
	for _, c := range []struct {
		name   string
		reg, n int
		want   uint32
	}{
		{"ids", 0, 4, 0x10431af4},
		{"class, revision", 8, 4, 0x07800001},
		{"subsystem", 0x2c, 4, 0x00431af4},
		{"first capability is MSI-X", 0x34, 1, 0x98},
		{"vectors", 0x9a, 2, 2},
		{"pin", 0x3d, 1, 1},
		{"BAR 4 is 64-bit memory", 0x20, 1, 4},
	} {
		if got := d.Config(c.reg, c.n); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

func TestOwnID(t *testing.T) {
	h := virtiotest.NewHost(t, 1<<20)
	f, err := virtiopci.New(h, h.Mem, &echo{}, virtiopci.Options{ID: pci.ID{Vendor: 0x0b5d, Device: 0x0777}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if id := f.PCI().ID(); id.Vendor != 0x0b5d || id.Device != 0x777 {
		t.Errorf("id %+v", id)
	}
}

func TestCommonConfig(t *testing.T) {
	d, _ := plug(t, nil)
	rd := func(off uint64, n int) uint64 { return d.Read(d.Common+off, n) }
	wr := func(off uint64, n int, v uint64) { d.Write(d.Common+off, n, v) }
	check := func(name string, got, want uint64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %#x, want %#x", name, got, want)
		}
	}
	check("offered", d.Offered(), 1<<7|virtio.VIRTIO_F_VERSION_1|virtio.VIRTIO_RING_F_EVENT_IDX|virtio.VIRTIO_RING_F_INDIRECT_DESC)
	wr(virtiotest.DeviceFeatureSelect, 4, 2)
	check("features 64-95", rd(virtiotest.DeviceFeature, 4), 0)
	wr(virtiotest.DeviceFeatureSelect, 4, 1)
	check("features 32-47, as old iPXE reads them", rd(virtiotest.DeviceFeature, 2), virtio.VIRTIO_F_VERSION_1>>32)
	check("queues", rd(virtiotest.NumQueues, 2), 2)
	check("config vector", rd(virtiotest.ConfigVector, 2), pci.NoVector)
	wr(virtiotest.ConfigVector, 2, 2)
	check("config vector 2", rd(virtiotest.ConfigVector, 2), 2)
	wr(virtiotest.ConfigVector, 2, 3) // there are three
	check("config vector 3", rd(virtiotest.ConfigVector, 2), pci.NoVector)

	wr(virtiotest.QueueSelect, 2, 1)
	check("size", rd(virtiotest.QueueSize, 2), 8)
	check("notify offset", rd(virtiotest.QueueNotifyOff, 2), 1)
	wr(virtiotest.QueueDesc, 8, 0x1122334455667788)
	check("8-byte address", rd(virtiotest.QueueDesc, 8), 0x1122334455667788)
	check("its low half", rd(virtiotest.QueueDesc, 4), 0x55667788)
	check("its high half", rd(virtiotest.QueueDesc+4, 4), 0x11223344)
	wr(virtiotest.QueueDesc, 4, 1)
	wr(virtiotest.QueueDesc+4, 4, 2)
	check("address in halves", rd(virtiotest.QueueDesc, 8), 0x200000001)
	wr(virtiotest.QueueDesc, 2, 0xffff)
	check("after a write of 2 bytes", rd(virtiotest.QueueDesc, 8), 0x200000001)
	check("read of 2 bytes", rd(virtiotest.QueueDesc, 2), 0)
	check("status as 4 bytes", rd(virtiotest.DeviceStatus, 4), 0)
	check("across registers", rd(virtiotest.NumQueues, 4), 0)

	wr(virtiotest.QueueSelect, 2, 2)
	check("size of no queue", rd(virtiotest.QueueSize, 2), 0)
	wr(virtiotest.QueueEnable, 2, 1)
	check("enabled no queue", rd(virtiotest.QueueEnable, 2), 0)
	check("address of no queue", rd(virtiotest.QueueDesc, 8), 0)
	check("behind the structure", d.Read(d.Common+0x40, 4), 0)
	check("behind all registers", d.Read(d.Common+0x3ffc, 4), 0)
}

func TestDeviceConfig(t *testing.T) {
	d, _ := plug(t, nil)
	d.Write(d.Device+3, 1, 0xab)
	if got := d.Read(d.Device, 4); got != 0xab000000 {
		t.Errorf("config %#x", got)
	}
	d.Write(d.Device+0x100, 4, 1) // no longer its own
	if got := d.Read(d.Device+0x100, 4); got != 0 {
		t.Errorf("behind the config: %#x", got)
	}
}

func roundTrip(t *testing.T, d *virtiotest.Driver, q *virtiotest.Queue, in, out mem.GPA, v byte) {
	t.Helper()
	d.Host.Bytes(in, 1)[0] = v
	q.Add(virtiotest.In(in, 1), virtiotest.Out(out, 1))
	q.Kick()
	if _, n := q.Wait(); n != 1 || d.Host.Bytes(out, 1)[0] != v {
		t.Fatalf("%d bytes, %#x came back as %#x", n, v, d.Host.Bytes(out, 1)[0])
	}
}

func TestDoorbellsFollowTheBAR(t *testing.T) {
	d, _ := plug(t, nil)
	h := d.Host
	in, out := h.Alloc(1), h.Alloc(1)
	expect := func(name string, want int) {
		t.Helper()
		if got := h.Doorbells(); got != want {
			t.Errorf("%s: %d doorbells, want %d", name, got, want)
		}
	}
	expect("before set-up", 0)
	d.Init(0)
	q := d.Queue(0, 16)
	expect("one queue", 1)
	d.Queue(1, 8)
	expect("two queues", 2)
	d.Start()
	roundTrip(t, d, q, in, out, 1)
	d.SetConfig(4, 2, 0)
	expect("decoding off", 0)
	d.SetConfig(4, 2, 6)
	expect("decoding on", 2)
	roundTrip(t, d, q, in, out, 2)
	d.SetConfig(0x20, 4, 0xd0000000)
	expect("moved", 2)
	if got := d.Read(0xd0000000+virtiotest.DeviceStatus, 1); got != 15 {
		t.Errorf("status at the new place %#x", got)
	}
	d.SetConfig(0x20, 4, 0xfec00000)
	expect("moved onto the I/O APIC", 0)
	h.PCI.Reset()
	expect("reset", 0)
}

func TestResetThroughTheBus(t *testing.T) {
	d, e := plug(t, nil)
	h := d.Host
	in, out := h.Alloc(1), h.Alloc(1)
	for i := range 5 {
		d.Init(0)
		q := d.Queue(0, 16)
		d.Start()
		roundTrip(t, d, q, in, out, byte(i))
		h.PCI.Reset()
		if e.workers != nil {
			t.Fatal("the device runs after a reset of the bus")
		}
		if err := h.PCI.Assign(); err != nil {
			t.Fatal(err)
		}
		if s := d.Status(); s != 0 {
			t.Fatalf("status %#x after a reset of the bus", s)
		}
	}
}

func TestISR(t *testing.T) {
	d, e := plug(t, nil)
	d.INTx = true
	d.Init(0)
	d.Queue(0, 16)
	d.Start()
	e.t.ConfigChanged()
	if !d.Line().High() || d.Config(6, 2)&8 == 0 {
		t.Error("the line is not up")
	}
	if got := d.Read(d.ISR, 1); got != 2 {
		t.Errorf("ISR %d, want 2", got)
	}
	if got := d.Read(d.ISR, 1); got != 0 || d.Line().High() {
		t.Errorf("ISR %d after it was read, line %v", got, d.Line().High())
	}
}

func TestMSIXBeforeAndAfterEnable(t *testing.T) {
	d, e := plug(t, nil)
	d.Init(0)
	d.Queue(0, 16)
	d.Start()
	e.t.ConfigChanged()
	d.WaitConfig()
	if d.Line().High() || d.Read(d.ISR, 1) != 0 {
		t.Error("the pin moved although MSI-X is on")
	}
	d.Write(d.Common+virtiotest.ConfigVector, 2, pci.NoVector)
	e.t.ConfigChanged()
	if d.MSI(0).Pending() {
		t.Error("an interrupt without a vector")
	}
}

// TestWindow drives the device through the PCI_CFG capability only, as SeaBIOS
// does with a BAR above 4 GiB.
func TestWindow(t *testing.T) {
	d, _ := plug(t, nil)
	const at = 0x84
	if got := d.Config(at+3, 1); got != virtiopci.VIRTIO_PCI_CAP_PCI_CFG {
		t.Fatalf("capability type %d", got)
	}
	d.SetConfig(4, 2, 0) // no BAR answers
	point := func(bar, off, n uint32) {
		d.SetConfig(at+4, 1, bar)
		d.SetConfig(at+8, 4, off)
		d.SetConfig(at+12, 4, n)
	}
	rd := func(off, n uint32) uint32 { point(4, off, n); return d.Config(at+16, int(n)) }
	wr := func(off, n, v uint32) { point(4, off, n); d.SetConfig(at+16, int(n), v) }
	wr(virtiotest.DeviceStatus, 1, 1)
	wr(virtiotest.DeviceStatus, 1, 3)
	if got := rd(virtiotest.DeviceStatus, 1); got != 3 {
		t.Errorf("status %#x", got)
	}
	if got := rd(virtiotest.NumQueues, 2); got != 2 {
		t.Errorf("queues %d", got)
	}
	wr(0x2000, 4, 0x12345678)
	if got := rd(0x2000, 4); got != 0x12345678 {
		t.Errorf("device config %#x", got)
	}
	wr(virtiotest.DeviceStatus, 1, 0)
	if got := rd(virtiotest.DeviceStatus, 1); got != 0 {
		t.Errorf("status %#x after a reset", got)
	}
	for _, c := range [][3]uint32{{1, 0x2000, 4}, {4, 0x2001, 4}, {4, 0x2000, 3}, {4, 0x2000, 0}, {4, 0x4000, 4}, {4, 0xfffffffc, 4}, {4, 0xffffffff, 1}} {
		point(c[0], c[1], c[2])
		d.SetConfig(at+16, 4, 0)
		d.Config(at+16, 4)
	}
	if got := rd(0x2000, 4); got != 0x12345678 {
		t.Errorf("a window that is none wrote: %#x", got)
	}
}

func TestPauseBeforeStart(t *testing.T) {
	h := virtiotest.NewHost(t, 1<<20)
	f := h.Plug(pci.SlotConsole, &echo{}, nil)
	f.Pause()
	f.Resume()
}

// FuzzRegisters makes random accesses of a running device's registers, through
// its BAR and through configuration space, while its queues are being served.
func FuzzRegisters(f *testing.F) {
	f.Add([]byte{0, 20, 0, 1, 0, 20, 0, 3, 0, 20, 0, 11})
	f.Add([]byte{0, 22, 0, 1, 0, 28, 0, 1, 3, 0, 0, 0})
	f.Add([]byte{8, 0x20, 0, 0xc0, 8, 4, 0, 0, 2, 0x94, 0, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		d, _ := plug(t, func(error) {})
		d.Init(0)
		q := d.Queue(0, 16)
		d.Start()
		for ; len(ops) >= 4; ops = ops[4:] {
			off := uint64(ops[1]) | uint64(ops[2]&0x3f)<<8
			n := 1 << (ops[0] >> 4 & 3)
			v := uint64(ops[3]) * 0x0101010101010101
			switch ops[0] & 7 {
			case 0, 1:
				if off&0x3f00 == 0 {
					v = uint64(ops[3])
				}
				d.Write(d.Common+off, n, v)
			case 2:
				d.SetConfig(int(ops[1]&^3), min(n, 4), uint32(v))
			case 3:
				q.Ring()
			case 4:
				d.Config(int(ops[1]&^3), min(n, 4))
			case 5:
				d.Write(d.MSIXTable()+off&0xfff, n, v)
			case 6:
				q.PutDesc(uint16(ops[1]&15), mem.GPA(v>>40), uint32(ops[2]), uint16(ops[3]&3), uint16(ops[3]>>4))
				q.Post(uint16(ops[1] & 15))
			default:
				d.Read(d.Common+off, n)
			}
		}
		d.Host.PCI.Reset()
		var b [4]byte
		d.Host.Ports().Write(0xcf8, binary.LittleEndian.AppendUint32(nil, 1<<31|18<<11))
		d.Host.Ports().Read(0xcfc, b[:])
		if got := binary.LittleEndian.Uint32(b[:]); got != 0x10431af4 {
			t.Errorf("ids %#x", got)
		}
	})
}
