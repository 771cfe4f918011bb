package virtio

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dummy is a device that notes what is asked of it.
type dummy struct {
	calls    []string
	features uint64
	qs       []*Queue
	err      error
}

func (d *dummy) Type() uint16               { return VIRTIO_ID_RNG }
func (d *dummy) Features() uint64           { return 1 << 3 }
func (d *dummy) QueueSizes() []uint16       { return []uint16{8, 4} }
func (d *dummy) ReadConfig(uint64, []byte)  {}
func (d *dummy) WriteConfig(uint64, []byte) {}
func (d *dummy) Pause()                     { d.calls = append(d.calls, "pause") }
func (d *dummy) Resume()                    { d.calls = append(d.calls, "resume") }
func (d *dummy) Reset()                     { d.calls = append(d.calls, "reset") }
func (d *dummy) said() string               { return strings.Join(d.calls, " ") }
func (d *dummy) Activate(f uint64, qs []*Queue, _ Transport) error {
	d.calls, d.features, d.qs = append(d.calls, "activate"), f, qs
	return d.err
}

func testCore(t *testing.T, d *dummy) (*Core, *nobody, *[]error) {
	t.Helper()
	n, warned := &nobody{}, &[]error{}
	c, err := NewCore(d, testMemory(t), n, func(err error) { *warned = append(*warned, err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, n, warned
}

const (
	ack  = VIRTIO_CONFIG_S_ACKNOWLEDGE
	drv  = ack | VIRTIO_CONFIG_S_DRIVER
	fok  = drv | VIRTIO_CONFIG_S_FEATURES_OK
	dok  = fok | VIRTIO_CONFIG_S_DRIVER_OK
	need = VIRTIO_CONFIG_S_NEEDS_RESET
)

func TestStatusSequences(t *testing.T) {
	for _, c := range []struct {
		name     string
		features uint64
		writes   []uint8
		want     uint8
		said     string
	}{
		{"as it should be", VIRTIO_F_VERSION_1, []uint8{ack, drv, fok, dok}, dok, "activate"},
		{"all at once", VIRTIO_F_VERSION_1, []uint8{dok}, dok, "activate"},
		{"no acknowledge", VIRTIO_F_VERSION_1, []uint8{VIRTIO_CONFIG_S_DRIVER}, 0, ""},
		{"no driver", VIRTIO_F_VERSION_1, []uint8{ack, ack | VIRTIO_CONFIG_S_FEATURES_OK}, ack, ""},
		{"no features", VIRTIO_F_VERSION_1, []uint8{ack, drv, drv | VIRTIO_CONFIG_S_DRIVER_OK}, drv, ""},
		{"a bit taken back", VIRTIO_F_VERSION_1, []uint8{ack, drv, fok, drv}, fok, ""},
		{"no VERSION_1", 1 << 3, []uint8{ack, drv, fok, dok}, drv, ""},
		{"not offered", VIRTIO_F_VERSION_1 | 1<<4, []uint8{ack, drv, fok}, drv, ""},
		{"twice", VIRTIO_F_VERSION_1, []uint8{ack, drv, fok, dok, dok}, dok, "activate"},
		{"driver gave up", VIRTIO_F_VERSION_1, []uint8{ack, drv, drv | VIRTIO_CONFIG_S_FAILED}, drv | VIRTIO_CONFIG_S_FAILED, ""},
		{"reset", VIRTIO_F_VERSION_1, []uint8{ack, drv, fok, dok, 0}, 0, "activate reset"},
		{"reset while idle", 0, []uint8{0, ack, 0}, 0, ""},
		{"NEEDS_RESET is not the driver's", 0, []uint8{ack | need}, ack, ""},
	} {
		d := &dummy{}
		core, _, _ := testCore(t, d)
		core.SetDriverFeatures(c.features)
		for _, w := range c.writes {
			core.SetStatus(w)
		}
		if got := core.Status(); got != c.want || d.said() != c.said {
			t.Errorf("%s: status %#x, device did %q; want %#x, %q", c.name, got, d.said(), c.want, c.said)
		}
	}
}

func TestFeaturesFreeze(t *testing.T) {
	d := &dummy{}
	c, _, _ := testCore(t, d)
	c.SetDriverFeatures(VIRTIO_F_VERSION_1 | 1<<3)
	c.SetStatus(fok)
	c.SetDriverFeatures(VIRTIO_F_VERSION_1)
	c.SetStatus(dok)
	if d.features != VIRTIO_F_VERSION_1|1<<3 {
		t.Errorf("activated with %#x", d.features)
	}
	c.SetStatus(0)
	if c.DriverFeatures() != 0 {
		t.Errorf("features %#x survive a reset", c.DriverFeatures())
	}
}

func TestFailOnce(t *testing.T) {
	d := &dummy{}
	c, n, warned := testCore(t, d)
	c.SetDriverFeatures(VIRTIO_F_VERSION_1)
	c.SetStatus(dok)
	c.Fail(errors.New("first"))
	c.Fail(errors.New("second"))
	if len(*warned) != 1 || n.config != 1 || c.Status() != dok|need {
		t.Errorf("warned %v, %d interrupts, status %#x", *warned, n.config, c.Status())
	}
	c.SetStatus(dok) // does not heal it
	if c.Status() != dok|need {
		t.Errorf("status %#x", c.Status())
	}
	c.SetStatus(0)
	if c.Status() != 0 {
		t.Errorf("status %#x after a reset", c.Status())
	}
}

func TestEnable(t *testing.T) {
	set := func(c *Core, i int) {
		q := c.Queue(i)
		q.Size, q.Desc, q.Avail, q.Used = 4, 0, 0x1000, 0x2000
	}
	d := &dummy{}
	c, _, warned := testCore(t, d)
	c.SetDriverFeatures(VIRTIO_F_VERSION_1)
	c.SetStatus(fok)
	set(c, 1)
	c.Enable(1)
	c.Enable(2) // there is none
	c.Enable(-1)
	c.SetStatus(dok)
	if len(*warned) != 0 || len(d.qs) != 2 || d.qs[0] != nil || d.qs[1] == nil || d.qs[1].Size() != 4 {
		t.Errorf("warned %v, queues %v", *warned, d.qs)
	}
	set(c, 0)
	c.Enable(0) // too late
	if c.Status()&need == 0 {
		t.Error("a queue came up after DRIVER_OK")
	}

	c.SetStatus(0)
	set(c, 0)
	c.Enable(0) // too early
	if c.Status()&need == 0 {
		t.Error("a queue came up before FEATURES_OK")
	}

	c.SetStatus(0)
	c.SetDriverFeatures(VIRTIO_F_VERSION_1)
	c.SetStatus(fok)
	c.Queue(0).Used = 1 << 50
	c.Enable(0)
	if c.Status()&need == 0 || c.Queue(0).Enabled {
		t.Error("a queue came up outside memory")
	}
}

func TestActivateFails(t *testing.T) {
	d := &dummy{err: errors.New("no link")}
	c, _, warned := testCore(t, d)
	c.SetDriverFeatures(VIRTIO_F_VERSION_1)
	c.SetStatus(dok)
	if c.Status()&need == 0 || len(*warned) != 1 || !errors.Is((*warned)[0], d.err) {
		t.Errorf("status %#x, warned %v", c.Status(), *warned)
	}
	c.SetStatus(0)
	if d.said() != "activate reset" {
		t.Errorf("device did %q: what it started must be stopped", d.said())
	}
}

func TestGeneration(t *testing.T) {
	c, n, _ := testCore(t, &dummy{})
	g := c.Generation()
	if c.Generation() != g {
		t.Error("generation moved by itself")
	}
	c.ConfigChanged()
	c.ConfigChanged()
	if got := c.Generation(); got != g+1 {
		t.Errorf("generation %d, want %d", got, g+1)
	}
	if n.config != 0 {
		t.Error("interrupt before DRIVER_OK")
	}
	c.SetDriverFeatures(VIRTIO_F_VERSION_1)
	c.SetStatus(dok)
	c.ConfigChanged()
	if n.config != 1 {
		t.Errorf("%d interrupts, want 1", n.config)
	}
}

type odd struct{ dummy }

func (*odd) QueueSizes() []uint16 { return []uint16{8, 6} }

func TestQueueSizesArePowersOfTwo(t *testing.T) {
	if _, err := NewCore(&odd{}, testMemory(t), &nobody{}, nil); err == nil {
		t.Error("a queue of 6 descriptors was accepted")
	}
}
