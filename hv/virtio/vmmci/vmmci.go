// Package vmmci is OpenBSD's VMM control interface: a device without queues by
// which the host asks a guest to shut down, to reboot or to set its clock, and
// the guest says that it has heard. Only OpenBSD's kernel has a driver; it
// speaks the legacy interface of virtio 0.9.
package vmmci

import (
	"encoding/binary"
	"sync"
	"time"

	"vmd/hv/virtio"
)

// Config is what New needs; each field may be left out. Functions are called on
// a vCPU's thread and must not block, nor call the device.
type Config struct {
	// Acked is called when the guest has heard a command that was sent.
	Acked func(Command)
	// Announced is called when the guest says unasked that it shuts down.
	Announced func()
	// Now is the time that the guest is shown; time.Now if nil.
	Now func() time.Time
}

// Device is the control interface. It implements virtio.Device.
type Device struct {
	cfg Config

	mu       sync.Mutex
	driver   virtio.Transport // nil while no driver is there
	features uint64
	pending  Command
	latched  [configSize - offSeconds]byte
}

// New makes a control interface.
func New(c Config) *Device {
	if c.Acked == nil {
		c.Acked = func(Command) {}
	}
	if c.Announced == nil {
		c.Announced = func() {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Device{cfg: c}
}

// Send gives the guest a command, in place of one that it has not heard yet. It
// returns false if there is no driver that could, and nothing is sent.
func (d *Device) Send(c Command) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	need := uint64(VMMCI_F_ACK)
	if c == SyncRTC {
		need = VMMCI_F_SYNCRTC
		if d.pending != None {
			return false // a guest that goes needs no clock
		}
	}
	if d.driver == nil || d.features&need == 0 {
		return false
	}
	if c != d.pending {
		d.pending = c
		d.driver.ConfigChanged()
	}
	return true
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return deviceType }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return VMMCI_F_TIMESYNC | VMMCI_F_ACK | VMMCI_F_SYNCRTC }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return nil }

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off <= offSeconds && offSeconds < off+uint64(len(p)) {
		d.latch()
	}
	var c [configSize]byte
	binary.LittleEndian.PutUint32(c[offCommand:], uint32(d.pending))
	copy(c[offSeconds:], d.latched[:])
	clear(p)
	if off < configSize {
		copy(p, c[off:])
	}
}

// latch takes the time down, so that its halves belong together.
func (d *Device) latch() {
	now := d.cfg.Now()
	binary.LittleEndian.PutUint64(d.latched[0:], uint64(now.Unix()))
	binary.LittleEndian.PutUint64(d.latched[offMicros-offSeconds:], uint64(now.Nanosecond()/1000))
}

// WriteConfig implements virtio.Device. The command is all that a driver
// writes: the one it was given, or Shutdown when it goes of its own accord.
func (d *Device) WriteConfig(off uint64, p []byte) {
	if off != offCommand || len(p) != 4 {
		return
	}
	c := Command(binary.LittleEndian.Uint32(p))
	d.mu.Lock()
	sent := d.pending
	on := d.driver != nil
	if on && c == sent {
		d.pending = None
	}
	d.mu.Unlock()
	switch {
	case !on || c == None:
	case c == sent:
		d.cfg.Acked(c)
	case c == Shutdown && sent == None:
		d.cfg.Announced()
	}
}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, _ []*virtio.Queue, t virtio.Transport) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.driver, d.features = t, features
	return nil
}

// Reset implements virtio.Device. What was sent and not heard is forgotten.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.driver, d.features, d.pending = nil, 0, None
}

// Pause implements virtio.Device.
func (d *Device) Pause() {}

// Resume implements virtio.Device.
func (d *Device) Resume() {}
