package virtio

import "vmd/hv/mem"

// VIRTIO_F_ANY_LAYOUT says that a legacy device takes any framing of a request
// (virtio 1.3, 6.3). Ours always do.
const VIRTIO_F_ANY_LAYOUT uint64 = 1 << 27

// legacyAlign is where the used ring of a legacy queue begins (virtio 1.3,
// 2.7.2).
const legacyAlign = 4096

// A legacy driver (virtio 1.3, 1.4.1) agrees on features without saying so,
// gives a queue one address for all its parts, and may ring before DRIVER_OK.
// Which interface a driver uses shows with the first thing that it writes
// there, and stays so until the next reset.

// Legacy says whether the driver uses the legacy interface.
func (c *Core) Legacy() bool { return c.legacy }

// Active says whether the device is at work.
func (c *Core) Active() bool { return c.active }

// claim makes the driver a legacy one, unless it is a modern one already.
func (c *Core) claim() bool {
	if c.legacy {
		return true
	}
	if c.frozen || c.dead.Load() {
		return false
	}
	c.legacy, c.driver = true, 0
	return true
}

// LegacyFeatures are the bits that the device offers to a legacy driver.
func (c *Core) LegacyFeatures() uint32 { return uint32(c.Features() | VIRTIO_F_ANY_LAYOUT) }

// SetLegacyFeatures takes a legacy driver's choice. There is no way to refuse
// it: what was not offered is left out.
func (c *Core) SetLegacyFeatures(v uint32) {
	if c.claim() && !c.active {
		c.driver = uint64(v & c.LegacyFeatures())
	}
}

// SetLegacyStatus takes a legacy driver's write of v to the status register.
// Zero resets the device, and returns when that is done.
func (c *Core) SetLegacyStatus(v uint8) {
	if v == 0 {
		c.Reset()
		return
	}
	if !c.claim() || c.dead.Load() {
		return
	}
	c.status.Or(uint32(v &^ (VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FEATURES_OK)))
	if v&VIRTIO_CONFIG_S_DRIVER_OK != 0 {
		c.legacyStart()
	}
}

// LegacyPage is the number of the page that queue i, which must exist, begins
// at; 0 while it is not set up.
func (c *Core) LegacyPage(i int) uint32 {
	if q := &c.queues[i]; c.legacy && q.Enabled {
		return uint32(q.Desc / legacyAlign)
	}
	return 0
}

// SetLegacyPage puts queue i, which must exist, at a page; 0 takes it away.
// The queue has its largest size.
func (c *Core) SetLegacyPage(i int, page uint32) {
	if !c.claim() || c.dead.Load() {
		return
	}
	q := &c.queues[i]
	if c.active {
		if page != 0 && !q.Enabled {
			c.Fail(errLate(i))
		}
		return // drivers take a queue away after a reset, if at all
	}
	*q = QueueConfig{Max: q.Max, Size: q.Max, bell: q.bell}
	if page == 0 {
		return
	}
	q.layOut(page)
	c.enable(i)
}

// layOut puts the parts of a queue, whose size is known, where the legacy
// interface has them (virtio 1.3, 2.7.2).
func (q *QueueConfig) layOut(page uint32) {
	q.Desc = mem.GPA(page) * legacyAlign
	q.Avail = q.Desc + mem.GPA(descSize*uint64(q.Size))
	q.Used = (q.Avail + mem.GPA(availSize(q.Size)) + legacyAlign - 1) &^ (legacyAlign - 1)
}

// LegacyRing rings the doorbell of queue i, which must exist. Some legacy
// drivers do so before DRIVER_OK and wait for the answer (virtio 1.3, 3.1.2).
func (c *Core) LegacyRing(i int) {
	if c.legacy && c.queues[i].Enabled && c.Status()&VIRTIO_CONFIG_S_DRIVER != 0 {
		c.legacyStart()
	}
	c.queues[i].bell.Ring()
}

func (c *Core) legacyStart() {
	if !c.active && !c.dead.Load() {
		c.activate()
	}
}
