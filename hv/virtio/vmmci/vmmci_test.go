package vmmci_test

import (
	"slices"
	"testing"
	"time"

	"vmd/hv/pci"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
	"vmd/hv/virtio/vmmci"
)

// The registers, behind the legacy ones.
const (
	command = 20
	seconds = 24
	micros  = 32
)

type heard struct {
	acks      []vmmci.Command
	announced int
}

func plug(t *testing.T) (*virtiotest.Driver, *vmmci.Device, *heard) {
	t.Helper()
	h, got, now := virtiotest.NewHost(t, 1<<20), &heard{}, time.Unix(1<<33+5, 678_901_234)
	dev := vmmci.New(vmmci.Config{
		Acked:     func(c vmmci.Command) { got.acks = append(got.acks, c) },
		Announced: func() { got.announced++ },
		Now:       func() time.Time { now = now.Add(time.Second); return now },
	})
	h.PlugWith(pci.SlotVMMCI, dev, virtiopci.Options{Interface: virtiopci.Legacy, ID: vmmci.ID})
	return virtiotest.NewLegacy(h, pci.SlotVMMCI), dev, got
}

const all = vmmci.VMMCI_F_TIMESYNC | vmmci.VMMCI_F_ACK | vmmci.VMMCI_F_SYNCRTC

func bind(d *virtiotest.Driver, features uint64) {
	d.Init(features)
	d.Start()
}

func TestIdentity(t *testing.T) {
	d, _, _ := plug(t)
	for reg, want := range map[int]uint32{0: 0x07770b5d, 8: 0x07800000, 0x2c: 0xffff0b5d, 0x34: 0} {
		if got := d.Config(reg, 4); got != want {
			t.Errorf("register %#x: %#x, want %#x", reg, got, want)
		}
	}
	if got := d.Offered() & 7; got != all {
		t.Errorf("features %#x", got)
	}
}

func TestGuestHearsAndAcknowledges(t *testing.T) {
	d, dev, got := plug(t)
	if dev.Send(vmmci.Reboot) {
		t.Error("sent to a guest without a driver")
	}
	bind(d, all)
	for _, c := range []vmmci.Command{vmmci.SyncRTC, vmmci.Shutdown, vmmci.Reboot} {
		if !dev.Send(c) || !dev.Send(c) && c != vmmci.SyncRTC {
			t.Fatalf("%d: not sent", c)
		}
		d.WaitConfig()
		if isr := d.TakeISR(); isr != 2 || d.Line().High() {
			t.Errorf("%d: ISR %d, line %v", c, isr, d.Line().High())
		}
		if v := d.In(command, 4); vmmci.Command(v) != c {
			t.Errorf("command %d, want %d", v, c)
		}
		d.Out(command, 4, uint32(c))
		if v := d.In(command, 4); v != 0 {
			t.Errorf("command %d after it was acknowledged", v)
		}
	}
	if want := []vmmci.Command{vmmci.SyncRTC, vmmci.Shutdown, vmmci.Reboot}; !slices.Equal(got.acks, want) || got.announced != 0 {
		t.Errorf("heard %+v, want %v", got, want)
	}
}

func TestGuestThatGoesNeedsNoClock(t *testing.T) {
	d, dev, _ := plug(t)
	bind(d, all)
	dev.Send(vmmci.Reboot)
	if dev.Send(vmmci.SyncRTC) {
		t.Error("a command that was not heard gave way to the clock")
	}
	if v := d.In(command, 4); vmmci.Command(v) != vmmci.Reboot {
		t.Errorf("command %d", v)
	}
}

func TestWhatADriverCannotIsNotSent(t *testing.T) {
	d, dev, _ := plug(t)
	bind(d, vmmci.VMMCI_F_TIMESYNC)
	if dev.Send(vmmci.Shutdown) || dev.Send(vmmci.SyncRTC) {
		t.Error("sent a command that the driver did not negotiate")
	}
}

func TestGuestGoesUnasked(t *testing.T) {
	d, dev, got := plug(t)
	d.Out(command, 4, uint32(vmmci.Shutdown)) // no driver yet
	bind(d, all)
	for _, v := range []uint32{0, uint32(vmmci.Reboot), 3, 4, 0xffffffff} {
		d.Out(command, 4, v)
	}
	d.Out(command, 2, 1)
	d.Out(command, 1, 1)
	d.Out(command+2, 2, 1)
	if got.announced != 0 || got.acks != nil {
		t.Errorf("heard %+v of nothing", got)
	}
	d.Out(command, 4, uint32(vmmci.Shutdown))
	if got.announced != 1 || got.acks != nil {
		t.Errorf("heard %+v", got)
	}
	dev.Send(vmmci.Reboot)
	d.Out(command, 4, uint32(vmmci.Shutdown))
	if got.announced != 1 || got.acks != nil {
		t.Errorf("heard %+v of another command than was sent", got)
	}
}

func TestResetForgets(t *testing.T) {
	d, dev, got := plug(t)
	bind(d, all)
	dev.Send(vmmci.Reboot)
	d.SetStatus(0)
	if dev.Send(vmmci.Reboot) || d.Line().High() {
		t.Error("sent after a reset, or the line is still up")
	}
	d.INTx = true
	bind(d, all)
	if v := d.In(command, 4); v != 0 || got.acks != nil {
		t.Errorf("command %d, %+v", v, got)
	}
}

func TestTimeIsTakenAtOnce(t *testing.T) {
	d, _, _ := plug(t)
	bind(d, all)
	lo, hi := d.In(seconds, 4), d.In(seconds+4, 4)
	us := d.In(micros, 4)
	if lo != 6 || hi != 2 || us != 678901 || d.In(micros+4, 4) != 0 {
		t.Errorf("seconds %d:%d, microseconds %d", hi, lo, us)
	}
	if next := d.In(seconds, 4); next != 7 {
		t.Errorf("a second later: %d", next)
	}
	if v := d.In(micros+8, 4); v != 0 {
		t.Errorf("behind the end: %#x", v)
	}
}
