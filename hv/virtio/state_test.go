package virtio

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"vmd/hv/mem"
)

// coreAtWork has a driver bring the device up, with both queues of 4 somewhere in
// the ring.
func coreAtWork(t *testing.T) (*Core, *dummy) {
	t.Helper()
	d := &dummy{}
	c, _, _ := testCore(t, d)
	c.SetDriverFeatures(VIRTIO_F_VERSION_1 | VIRTIO_RING_F_EVENT_IDX | 1<<3)
	c.SetStatus(fok)
	for i := range 2 {
		q := c.Queue(i)
		q.Size = 4
		q.Desc = c.mem.Regions()[0].Base + mem.GPA(i*1024)
		q.Avail, q.Used = q.Desc+256, q.Desc+512
		c.Enable(i)
	}
	c.SetStatus(dok)
	for _, q := range d.qs {
		q.lastAvail, q.usedIdx, q.published = 65535, 65535, 65535
	}
	if c.Status() != dok {
		t.Fatalf("status %#x", c.Status())
	}
	return c, d
}

func TestCoreRestore(t *testing.T) {
	a, _ := coreAtWork(t)
	a.Pause()
	s := a.Save()
	d := &dummy{}
	b, _, warned := testCore(t, d)
	if err := b.Restore(s); err != nil {
		t.Fatal(err)
	}
	if got := b.Save(); !reflect.DeepEqual(got, s) {
		t.Errorf("was %+v\nis  %+v", s, got)
	}
	if d.said() != "activate" || d.features != s.Features || len(d.qs) != 2 || !d.qs[0].Resting() || len(*warned) != 0 {
		t.Errorf("device did %q with %#x and %d queues, warned %v", d.said(), d.features, len(d.qs), *warned)
	}
	if b.Resume(); d.qs[0].Resting() {
		t.Error("queues rest after Resume")
	}
	if err := b.Restore(s); err == nil {
		t.Error("a device at work was restored")
	}
}

// A device that its driver has not finished setting up, or has lost, moves too:
// without being activated.
func TestCoreRestoreIdle(t *testing.T) {
	for name, bring := range map[string]func(*Core){
		"new":          func(*Core) {},
		"acknowledged": func(c *Core) { c.SetStatus(ack); c.Queue(1).Size = 3; c.SetDriverFeatures(1 << 60) },
		"negotiated":   func(c *Core) { c.SetDriverFeatures(VIRTIO_F_VERSION_1); c.SetStatus(fok); c.ConfigChanged() },
		"given up":     func(c *Core) { c.SetStatus(drv | VIRTIO_CONFIG_S_FAILED) },
		"failed":       func(c *Core) { c.SetStatus(fok); c.Fail(errors.New("broken")) },
		"failed early": func(c *Core) { c.Enable(0) },
		"legacy": func(c *Core) {
			c.SetLegacyFeatures(1 << 3)
			c.SetLegacyPage(1, 1)
		},
	} {
		a, _, _ := testCore(t, &dummy{})
		bring(a)
		a.Pause()
		s := a.Save()
		d := &dummy{}
		b, n, _ := testCore(t, d)
		if err := b.Restore(s); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := b.Save(); !reflect.DeepEqual(got, s) || d.said() != "" {
			t.Errorf("%s: was %+v\nis  %+v, device did %q", name, s, got, d.said())
		}
		if n.config != 0 {
			t.Errorf("%s: the driver was told something", name)
		}
		if b.SetStatus(0); b.Status() != 0 {
			t.Errorf("%s: status %#x after a reset", name, b.Status())
		}
	}
}

func TestCoreRestoreRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		change     func(*CoreState)
	}{
		{"one queue", "1 queues there", func(s *CoreState) { s.Queues = s.Queues[:1] }},
		{"features that are not offered", "features 0x10,", func(s *CoreState) { s.Features |= 1 << 4 }},
		{"no VERSION_1", "contradict", func(s *CoreState) { s.Features = 0 }},
		{"at work without DRIVER_OK", "contradict", func(s *CoreState) { s.Status = fok }},
		{"DRIVER_OK and not at work", "contradict", func(s *CoreState) { s.Active = false }},
		{"FEATURES_OK and not frozen", "contradict", func(s *CoreState) { s.Frozen = false }},
		{"status out of order", "contradict", func(s *CoreState) { s.Status &^= ack }},
		{"legacy with FEATURES_OK", "not offered here", func(s *CoreState) { s.Legacy = true }},
		{"queue of another length", "up to 16", func(s *CoreState) { s.Queues[0].Max = 16 }},
		{"position of a queue that is not enabled", "queue 1", func(s *CoreState) { s.Queues[1].Enabled = false }},
		{"more taken than there are", "5 buffers", func(s *CoreState) { s.Queues[0].LastAvail, s.Queues[0].LastUsed = 5, 0 }},
		{"more returned than taken", "buffers taken", func(s *CoreState) { s.Queues[0].LastUsed++ }},
		{"used flags", "used flags", func(s *CoreState) { s.Queues[0].UsedFlags = 2 }},
		{"size of 3", "size 3", func(s *CoreState) { s.Queues[0].Size = 3 }},
		{"size of 0", "size 0", func(s *CoreState) { s.Queues[0] = QueueState{Max: 8, Enabled: true} }},
		{"descriptors outside memory", "descriptor table", func(s *CoreState) { s.Queues[0].Desc = 1 << 63 }},
		{"ring that is not aligned", "available ring", func(s *CoreState) { s.Queues[0].Avail++ }},
		{"ring that wraps", "used ring", func(s *CoreState) { s.Queues[0].Used = 1<<64 - 4 }},
	} {
		a, _ := coreAtWork(t)
		s := a.Save()
		tc.change(&s)
		d := &dummy{}
		b, _, _ := testCore(t, d)
		err := b.Restore(s)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", tc.name, err, tc.want)
		}
		if b.Status() != 0 || b.Active() || d.said() != "" || b.Queue(0).Enabled {
			t.Errorf("%s: refused, and status %#x, device did %q", tc.name, b.Status(), d.said())
		}
	}
}

// Where a legacy queue lies follows from its page.
func TestCoreRestoreRefusesLegacyLayout(t *testing.T) {
	for name, change := range map[string]func(*QueueState){
		"desc":  func(q *QueueState) { q.Desc += 16 },
		"avail": func(q *QueueState) { q.Avail += 2 },
		"used":  func(q *QueueState) { q.Used += 4096 },
		"size":  func(q *QueueState) { q.Size /= 2 },
		"far":   func(q *QueueState) { q.Desc += 1 << 44 },
	} {
		a, _, _ := testCore(t, &dummy{})
		a.SetLegacyPage(0, 1)
		s := a.Save()
		if !s.Queues[0].Enabled {
			t.Fatal("the queue did not come up")
		}
		b, _, _ := testCore(t, &dummy{})
		if change(&s.Queues[0]); b.Restore(s) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A device that cannot start here is refused and as it was; one that had failed
// to start there stays failed.
func TestCoreRestoreWithoutActivation(t *testing.T) {
	a, _ := coreAtWork(t)
	d := &dummy{err: errors.New("no tap")}
	b, _, warned := testCore(t, d)
	if err := b.Restore(a.Save()); !errors.Is(err, d.err) || d.said() != "activate reset" || b.Status() != 0 || len(*warned) != 0 {
		t.Errorf("%v, device did %q, status %#x, warned %v", err, d.said(), b.Status(), *warned)
	}
	a.Fail(errors.New("broken"))
	if err := b.Restore(a.Save()); err != nil || d.said() != "activate reset" || b.Status() != dok|need {
		t.Errorf("%v, device did %q, status %#x", err, d.said(), b.Status())
	}
}
