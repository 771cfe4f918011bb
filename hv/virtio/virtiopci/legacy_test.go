package virtiopci_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

// plugLegacy returns a legacy driver of a device with the interface i.
func plugLegacy(t testing.TB, i virtiopci.Interface, warn func(error)) (*virtiotest.Driver, *echo) {
	t.Helper()
	h, e := virtiotest.NewHost(t, 4<<20), &echo{}
	h.PlugWith(pci.SlotConsole, e, virtiopci.Options{Interface: i, Warn: warn})
	return virtiotest.NewLegacy(h, pci.SlotConsole), e
}

func TestTransitionalIdentity(t *testing.T) {
	d, _ := plugLegacy(t, virtiopci.Transitional, nil)
	for _, c := range []struct {
		name   string
		reg, n int
		want   uint32
	}{
		{"ids", 0, 4, 0x10031af4},
		{"class, revision", 8, 4, 0x07800000},
		{"subsystem", 0x2c, 4, 0x00031af4},
		{"first capability is MSI-X", 0x34, 1, 0x98},
		{"BAR 0 is of ports", 0x10, 4, 0xc001},
		{"BAR 4 is 64-bit memory", 0x20, 1, 4},
	} {
		if got := d.Config(c.reg, c.n); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

func TestLegacyOnlyHasNoCapabilities(t *testing.T) {
	d, _ := plugLegacy(t, virtiopci.Legacy, nil)
	if d.Config(0x34, 1) != 0 || d.Config(6, 2)&0x10 != 0 || d.Config(0x20, 4) != 0 {
		t.Error("there are capabilities, or a BAR 4")
	}
}

func TestNoLegacyInterface(t *testing.T) {
	h := virtiotest.NewHost(t, 1<<20)
	_, err := virtiopci.New(h, h.Mem, &vsock{}, virtiopci.Options{Interface: virtiopci.Transitional})
	if err == nil {
		t.Error("made a legacy device of a type that has none")
	}
}

type vsock struct{ echo }

func (*vsock) Type() uint16 { return virtio.VIRTIO_ID_VSOCK }

// TestLegacyDriver has requests served for each kind of interrupt, both kinds
// of function, and with what a legacy driver can negotiate.
func TestLegacyDriver(t *testing.T) {
	for _, c := range []struct {
		name     string
		i        virtiopci.Interface
		intx     bool
		features uint64
	}{
		{"messages", virtiopci.Transitional, false, 0},
		{"pin", virtiopci.Transitional, true, 0},
		{"event index", virtiopci.Transitional, false, virtio.VIRTIO_RING_F_EVENT_IDX},
		{"alone", virtiopci.Legacy, true, virtio.VIRTIO_RING_F_INDIRECT_DESC},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := plugLegacy(t, c.i, nil)
			d.INTx = c.intx
			h := d.Host
			in, out := h.Alloc(1), h.Alloc(1)
			for round := range 3 { // a driver may come again
				d.Init(c.features)
				q, q1 := d.Queue(0, 0), d.Queue(1, 0)
				d.Start()
				if got := h.Doorbells(); got != 2 {
					t.Errorf("%d doorbells, want 2", got)
				}
				for i := range 40 {
					roundTrip(t, d, q, in, out, byte(round*100+i))
				}
				roundTrip(t, d, q1, in, out, 0xee)
			}
			d.SetStatus(0)
			if got := h.Doorbells(); got != 0 {
				t.Errorf("%d doorbells after a reset", got)
			}
		})
	}
}

// Some drivers ring before DRIVER_OK and wait for the answer.
func TestLegacyRingBeforeDriverOK(t *testing.T) {
	d, _ := plugLegacy(t, virtiopci.Transitional, nil)
	in, out := d.Host.Alloc(1), d.Host.Alloc(1)
	d.Init(0)
	q := d.Queue(0, 0)
	roundTrip(t, d, q, in, out, 7)
	d.Start()
	roundTrip(t, d, q, in, out, 8)
}

func TestLegacyRegisters(t *testing.T) {
	d, e := plugLegacy(t, virtiopci.Transitional, func(error) {})
	d.INTx = true
	check := func(name string, got, want uint32) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %#x, want %#x", name, got, want)
		}
	}
	check("features", d.In(virtiotest.LegacyDeviceFeature, 4), 1<<7|1<<27|1<<28|1<<29)
	d.Out(virtiotest.LegacyDriverFeature, 4, 0xffffffff)
	check("what was not offered is left out", d.In(virtiotest.LegacyDriverFeature, 4), 1<<7|1<<27|1<<28|1<<29)
	check("queue size", d.In(virtiotest.LegacyQueueSize, 2), 16)
	d.Out(virtiotest.LegacyQueueSelect, 2, 1)
	check("queue 1's size", d.In(virtiotest.LegacyQueueSize, 2), 8)
	d.Out(virtiotest.LegacyQueueSelect, 2, 2)
	check("size of no queue", d.In(virtiotest.LegacyQueueSize, 2), 0)
	d.Out(virtiotest.LegacyQueuePage, 4, 0x100)
	check("page of no queue", d.In(virtiotest.LegacyQueuePage, 4), 0)
	check("wrong size", d.In(virtiotest.LegacyStatus, 2), 0)

	d.Out(20+3, 1, 0xab)
	check("config", d.In(20, 4), 0xab000000)
	d.SetConfig(0x9a, 2, 1<<15)
	check("config with MSI-X", d.In(24, 4), 0xab000000)
	check("no vector", d.In(virtiotest.LegacyConfigVector, 2), pci.NoVector)
	d.Out(virtiotest.LegacyConfigVector, 2, 1)
	check("a vector", d.In(virtiotest.LegacyConfigVector, 2), 1)
	d.Out(virtiotest.LegacyQueueVector, 2, 77)
	check("a vector that is not there", d.In(virtiotest.LegacyQueueVector, 2), 0)
	d.SetConfig(0x9a, 2, 0)

	d.Out(virtiotest.LegacyQueueSelect, 2, 0)
	d.Out(virtiotest.LegacyQueuePage, 4, 0x100)
	check("page", d.In(virtiotest.LegacyQueuePage, 4), 0x100)
	d.Out(virtiotest.LegacyQueuePage, 4, 0)
	check("page taken away", d.In(virtiotest.LegacyQueuePage, 4), 0)
	d.Start()
	if e.t == nil {
		t.Fatal("not active")
	}
	e.t.ConfigChanged()
	check("ISR", d.In(virtiotest.LegacyISR, 1), 2)
	check("ISR once read", d.In(virtiotest.LegacyISR, 1), 0)
	d.Out(virtiotest.LegacyQueuePage, 4, 0x100)
	check("a queue too late", uint32(d.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET), virtio.VIRTIO_CONFIG_S_NEEDS_RESET)
}

// A driver that mixes the interfaces gets the one that it began with.
func TestTheInterfacesDoNotMix(t *testing.T) {
	d, e := plugLegacy(t, virtiopci.Transitional, func(error) {})
	m := virtiotest.NewDriver(d.Host, pci.SlotConsole)
	m.Init(0)
	d.Out(virtiotest.LegacyQueuePage, 4, 0x100)
	d.SetStatus(7)
	if got := m.Read(m.Common+virtiotest.QueueEnable, 2); got != 0 || e.t != nil {
		t.Error("a modern driver's queue was set up by the legacy interface")
	}
	d.Init(0)
	m.SetFeatures(virtiotest.Modern)
	m.SetStatus(15)
	m.Write(m.Common+virtiotest.QueueEnable, 2, 1)
	if e.t != nil || m.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
		t.Errorf("a legacy driver's device was started by the modern interface, status %#x", m.Status())
	}
}

func TestLegacyBadPage(t *testing.T) {
	for _, page := range []uint32{0xffffffff, 0x80000000, 0xfffff, 1} {
		d, _ := plugLegacy(t, virtiopci.Transitional, func(error) {})
		d.Init(0)
		d.Out(virtiotest.LegacyQueuePage, 4, page)
		if d.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
			t.Errorf("page %#x: status %#x", page, d.Status())
		}
		d.Start()
		d.Init(0)
		in, out := d.Host.Alloc(1), d.Host.Alloc(1)
		q := d.Queue(0, 0)
		d.Start()
		roundTrip(t, d, q, in, out, 9)
	}
}

func FuzzLegacy(f *testing.F) {
	f.Add([]byte{18, 1, 1, 18, 1, 3, 8, 4, 1, 16, 2, 0})
	f.Add([]byte{4, 4, 0xff, 14, 2, 1, 8, 4, 0x80, 18, 1, 4, 18, 1, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		d, _ := plugLegacy(t, virtiopci.Transitional, func(error) {})
		m := virtiotest.NewDriver(d.Host, pci.SlotConsole)
		for ; len(ops) >= 3; ops = ops[3:] {
			off, n, v := uint64(ops[0]&0x7f), 1<<(ops[1]&3%3), uint32(ops[2])
			if off+uint64(n) > 0x80 {
				continue
			}
			switch ops[1] >> 6 {
			case 0, 1:
				d.Out(off, n, v)
			case 2:
				d.In(off, n)
			default:
				m.Write(m.Common+off, n, uint64(v))
			}
		}
		d.Host.PCI.Reset()
	})
}
