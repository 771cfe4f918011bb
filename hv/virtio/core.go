package virtio

import (
	"errors"
	"fmt"
	"sync/atomic"

	"vmd/hv/mem"
)

// Core is the state that a driver negotiates with a device, without the
// registers that it does so through. A transport serialises calls of its
// methods; those of Transport may come from anywhere.
type Core struct {
	dev    Device
	mem    *mem.Memory
	notify Notifier
	warn   func(error)

	status     atomic.Uint32 // the device's goroutines may set NEEDS_RESET
	changed    atomic.Bool   // configuration changed since the generation was read
	dead       atomic.Bool   // NEEDS_RESET was set: queues stand still
	generation uint8

	driver uint64 // feature bits as the driver wrote them
	frozen bool   // FEATURES_OK was accepted
	legacy bool   // the driver uses the legacy interface
	extra  uint64 // features that are offered, and must be accepted, by the machine's wish
	active bool   // between Activate and Reset
	rest   bool   // between Pause and Resume
	queues []QueueConfig
}

// QueueConfig is a queue as the driver sets it up.
type QueueConfig struct {
	Max  uint16 // largest size; constant
	Size uint16
	// Desc, Avail and Used are guest physical addresses of the three parts.
	Desc, Avail, Used mem.GPA
	Enabled           bool

	bell  *Doorbell
	queue *Queue // once enabled
}

// NewCore makes the state of dev, whose queues are in m. n sends interrupts;
// warn, which may be nil, is told why a device stopped: at most once between
// two resets.
func NewCore(dev Device, m *mem.Memory, n Notifier, warn func(error)) (*Core, error) {
	c := &Core{dev: dev, mem: m, notify: n, warn: warn}
	for i, max := range dev.QueueSizes() {
		if max == 0 || max&(max-1) != 0 || max > 1<<15 {
			return nil, errors.Join(fmt.Errorf("queue %d of %d descriptors: not a power of two up to 32768", i, max), c.Close())
		}
		bell, err := NewDoorbell()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("queue %d: %w", i, err), c.Close())
		}
		c.queues = append(c.queues, QueueConfig{Max: max, Size: max, bell: bell})
	}
	return c, nil
}

// Close stops the device and gives its descriptors back.
func (c *Core) Close() error {
	c.Reset()
	var errs []error
	for i := range c.queues {
		errs = append(errs, c.queues[i].bell.Close())
	}
	c.queues = nil
	return errors.Join(errs...)
}

// Features are the bits that the device offers.
func (c *Core) Features() uint64 { return c.dev.Features() | ringFeatures | c.extra }

// LimitAccess says that the device cannot reach all of the guest's memory: the
// driver must let the platform say what it can (VIRTIO_F_ACCESS_PLATFORM, virtio
// 1.3, 6.1), or it gets no device. It is called before there is a driver.
func (c *Core) LimitAccess() { c.extra = VIRTIO_F_ACCESS_PLATFORM }

// DriverFeatures are the bits that the driver has written.
func (c *Core) DriverFeatures() uint64 { return c.driver }

// SetDriverFeatures takes the driver's choice. Once the device has accepted it
// further writes change nothing (virtio 1.3, 3.1.1).
func (c *Core) SetDriverFeatures(v uint64) {
	if !c.frozen && !c.legacy {
		c.driver = v
	}
}

// Queues is how many queues the device has.
func (c *Core) Queues() int { return len(c.queues) }

// Queue returns the set-up of queue i, or nil. The transport may change Size,
// Desc, Avail and Used until it calls Enable.
func (c *Core) Queue(i int) *QueueConfig {
	if i < 0 || i >= len(c.queues) {
		return nil
	}
	return &c.queues[i]
}

// Doorbell is what a notification of queue i, which must exist, rings.
func (c *Core) Doorbell(i int) *Doorbell { return c.queues[i].bell }

// Enable makes queue i live with the addresses that it now has. A set-up that
// cannot work costs the driver its device (virtio 1.3, 2.1.2).
func (c *Core) Enable(i int) {
	qc := c.Queue(i)
	if qc == nil || qc.Enabled || c.dead.Load() {
		return
	}
	if !c.frozen || c.active {
		c.Fail(errLate(i))
		return
	}
	c.enable(i)
}

func errLate(i int) error { return fmt.Errorf("queue %d: enabled outside the set-up phase", i) }

func (c *Core) enable(i int) {
	q, err := newQueue(c, i)
	if err != nil {
		c.Fail(fmt.Errorf("queue %d: %w", i, err))
		return
	}
	c.queues[i].queue, c.queues[i].Enabled = q, true
}

// Status is device_status.
func (c *Core) Status() uint8 { return uint8(c.status.Load()) }

// SetStatus takes the driver's write of v to device_status. Zero resets the
// device, and returns when that is done. Steps backwards or out of order change
// nothing (virtio 1.3, 2.1.1), nor does anything but a reset once the device
// needs one.
func (c *Core) SetStatus(v uint8) {
	if v == 0 {
		c.Reset()
		return
	}
	old := c.Status() &^ VIRTIO_CONFIG_S_NEEDS_RESET
	v &^= VIRTIO_CONFIG_S_NEEDS_RESET
	if old&^v != 0 || !inOrder(v) || c.dead.Load() {
		return
	}
	if v&VIRTIO_CONFIG_S_FEATURES_OK != 0 && !c.frozen {
		if !c.acceptable() {
			v &^= VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK
		} else {
			c.frozen = true
		}
	}
	c.status.Or(uint32(v)) // v has every bit that was set, bar what Fail adds now
	if v&VIRTIO_CONFIG_S_DRIVER_OK != 0 && !c.active {
		c.activate()
	}
}

// inOrder says whether each bit of v has those that must come before it.
func inOrder(v uint8) bool {
	needs := func(bit, before uint8) bool { return v&bit == 0 || v&before == before }
	return needs(VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE) &&
		needs(VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER) &&
		needs(VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK)
}

// acceptable says whether the device can work with the driver's choice. The
// legacy interface has registers of its own, so VERSION_1 is a must here
// (virtio 1.3, 6.2).
func (c *Core) acceptable() bool {
	must := VIRTIO_F_VERSION_1 | c.extra
	return !c.legacy && c.driver&^c.Features() == 0 && c.driver&must == must
}

func (c *Core) activate() {
	if err := c.start(); err != nil {
		c.Fail(err)
	}
}

func (c *Core) start() error {
	qs := make([]*Queue, len(c.queues))
	for i := range c.queues {
		qs[i] = c.queues[i].queue
	}
	c.active = true
	if err := c.dev.Activate(c.driver, qs, c); err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	return nil
}

// Reset takes the device back to where it was before the driver touched it.
// When it returns the device uses no guest memory.
func (c *Core) Reset() {
	if c.active {
		c.dev.Reset()
	}
	c.active, c.frozen, c.legacy, c.driver, c.rest = false, false, false, 0, false
	for i := range c.queues {
		qc := &c.queues[i]
		*qc = QueueConfig{Max: qc.Max, Size: qc.Max, bell: qc.bell}
	}
	c.status.Store(0)
	c.changed.Store(false)
	c.dead.Store(false)
}

// Pause stops the device's I/O without the driver noticing; Resume goes on.
func (c *Core) Pause() {
	c.rest = true
	c.dev.Pause()
}

// Resume undoes Pause.
func (c *Core) Resume() {
	c.rest = false
	c.dev.Resume()
}

// Generation is config_generation: it differs from the last answer if the
// configuration has changed since (virtio 1.3, 2.5).
func (c *Core) Generation() uint8 {
	if c.changed.Swap(false) {
		c.generation++
	}
	return c.generation
}

// ConfigChanged implements Transport.
func (c *Core) ConfigChanged() {
	c.changed.Store(true)
	if c.Status()&VIRTIO_CONFIG_S_DRIVER_OK != 0 {
		c.notify.NotifyConfig()
	}
}

// Fail implements Transport.
func (c *Core) Fail(err error) {
	if c.dead.Swap(true) {
		return
	}
	old := c.status.Or(VIRTIO_CONFIG_S_NEEDS_RESET)
	if old&VIRTIO_CONFIG_S_DRIVER_OK != 0 { // virtio 1.3, 2.1.2
		c.notify.NotifyConfig()
	}
	if c.warn != nil {
		c.warn(err)
	}
}
