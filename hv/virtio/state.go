package virtio

import (
	"errors"
	"fmt"

	"vmd/hv/mem"
)

// Stateful is a Device with state of its own: what Activate alone does not give
// it back. Both methods are called while the device is paused.
type Stateful interface {
	Device
	// SaveState returns the state.
	SaveState() ([]byte, error)
	// RestoreState takes what SaveState of a device like this one returned, or
	// what somebody claims that it did: every field is checked, and one that
	// cannot be is an error. If the driver had the device at work it comes
	// after Activate.
	RestoreState([]byte) error
}

// Tracker is a Device of which some writes to guest memory pass by Queue: it is
// told while pages that are written must be marked, with mem.Memory.Track on.
type Tracker interface {
	Device
	// Track says that marks are wanted from now on, or no more. It may be
	// called whether the device is active, paused or neither.
	Track(on bool) error
}

// CoreState is what a Core remembers, for saving and restoring it.
type CoreState struct {
	Status     uint8        `cbor:"1,keyasint"`
	Features   uint64       `cbor:"2,keyasint"` // as the driver wrote them
	Legacy     bool         `cbor:"3,keyasint"`
	Frozen     bool         `cbor:"4,keyasint"` // FEATURES_OK was accepted
	Active     bool         `cbor:"5,keyasint"`
	Generation uint8        `cbor:"6,keyasint"`
	Changed    bool         `cbor:"7,keyasint"` // since the generation was read
	Queues     []QueueState `cbor:"8,keyasint"`
}

// QueueState is a queue as the driver set it up, and how far the device is.
type QueueState struct {
	Max       uint16  `cbor:"1,keyasint"`
	Size      uint16  `cbor:"2,keyasint"`
	Enabled   bool    `cbor:"3,keyasint"`
	Desc      mem.GPA `cbor:"4,keyasint"`
	Avail     mem.GPA `cbor:"5,keyasint"`
	Used      mem.GPA `cbor:"6,keyasint"`
	LastAvail uint16  `cbor:"7,keyasint"` // next entry of the available ring to take
	LastUsed  uint16  `cbor:"8,keyasint"` // next entry of the used ring to fill
	UsedFlags uint16  `cbor:"9,keyasint"` // as the driver sees them
}

// errState says that no driver can have brought a device where a state says
// that it is.
var errState = errors.New("status, features and queues contradict each other")

// Save returns what the core remembers. The device must be paused.
func (c *Core) Save() CoreState {
	s := CoreState{
		Status: c.Status(), Features: c.driver, Legacy: c.legacy, Frozen: c.frozen, Active: c.active,
		Generation: c.generation, Changed: c.changed.Load(),
	}
	for i := range c.queues {
		qc := &c.queues[i]
		qs := QueueState{Max: qc.Max, Size: qc.Size, Enabled: qc.Enabled, Desc: qc.Desc, Avail: qc.Avail, Used: qc.Used}
		if q := qc.queue; q != nil {
			qs.LastAvail, qs.LastUsed, qs.UsedFlags = q.lastAvail, q.usedIdx, q.usedFlags
		}
		s.Queues = append(s.Queues, qs)
	}
	return s
}

// Restore makes a core that no driver has touched what it was when s was saved.
// If the device was at work it is activated, and stands still until Resume. On
// an error the core is as new.
func (c *Core) Restore(s CoreState) error {
	if c.Status() != 0 || c.active || c.legacy {
		return errors.New("the device is in use")
	}
	err := c.check(&s)
	if err == nil {
		err = c.load(&s)
	}
	if err != nil {
		c.Reset()
	}
	return err
}

// check holds s against what drivers can do.
func (c *Core) check(s *CoreState) error {
	status := s.Status &^ VIRTIO_CONFIG_S_NEEDS_RESET
	offered := c.Features()
	if s.Legacy {
		offered = uint64(c.LegacyFeatures())
	}
	has := func(bit uint8) bool { return status&bit != 0 }
	switch {
	case len(s.Queues) != len(c.queues):
		return fmt.Errorf("%d queues there and %d here", len(s.Queues), len(c.queues))
	case (s.Legacy || s.Frozen) && s.Features&^offered != 0:
		return fmt.Errorf("the driver uses features %#x, which are not offered here", s.Features&^offered)
	case s.Legacy && (s.Frozen || has(VIRTIO_CONFIG_S_FEATURES_OK)),
		!s.Legacy && (s.Frozen != has(VIRTIO_CONFIG_S_FEATURES_OK) || !inOrder(status)),
		s.Frozen && s.Features&VIRTIO_F_VERSION_1 == 0,
		has(VIRTIO_CONFIG_S_DRIVER_OK) && !s.Active,
		s.Active && !s.Legacy && !has(VIRTIO_CONFIG_S_DRIVER_OK):
		return fmt.Errorf("%w: status %#x", errState, s.Status)
	}
	for i := range s.Queues {
		if err := c.checkQueue(i, s); err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
	}
	return nil
}

func (c *Core) checkQueue(i int, s *CoreState) error {
	q := &s.Queues[i]
	switch {
	case q.Max != c.queues[i].Max:
		return fmt.Errorf("up to %d descriptors there and %d here", q.Max, c.queues[i].Max)
	case !q.Enabled && (q.LastAvail != 0 || q.LastUsed != 0 || q.UsedFlags != 0),
		q.Enabled && !s.Legacy && !s.Frozen:
		return fmt.Errorf("%w: enabled %v", errState, q.Enabled)
	case q.LastAvail-q.LastUsed > q.Size && q.Enabled:
		return fmt.Errorf("%d buffers taken and %d returned of a ring of %d", q.LastAvail, q.LastUsed, q.Size)
	case q.UsedFlags&^VIRTQ_USED_F_NO_NOTIFY != 0:
		return fmt.Errorf("used flags %#x", q.UsedFlags)
	}
	if s.Legacy && q.Enabled {
		want := QueueConfig{Size: q.Max}
		want.layOut(uint32(q.Desc / legacyAlign))
		if q.Size != want.Size || q.Desc == 0 || q.Desc != want.Desc || q.Avail != want.Avail || q.Used != want.Used {
			return fmt.Errorf("legacy queue of %d descriptors with parts at %#x, %#x, %#x", q.Size, q.Desc, q.Avail, q.Used)
		}
	}
	return nil
}

// load takes a state that check has passed.
func (c *Core) load(s *CoreState) error {
	c.driver, c.legacy, c.frozen, c.generation = s.Features, s.Legacy, s.Frozen, s.Generation
	c.changed.Store(s.Changed)
	c.rest = true
	for i := range s.Queues {
		qs, qc := &s.Queues[i], &c.queues[i]
		qc.Size, qc.Desc, qc.Avail, qc.Used = qs.Size, qs.Desc, qs.Avail, qs.Used
		if !qs.Enabled {
			continue
		}
		q, err := newQueue(c, i)
		if err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
		q.lastAvail, q.availIdx = qs.LastAvail, qs.LastAvail
		q.usedIdx, q.published, q.usedFlags = qs.LastUsed, qs.LastUsed, qs.UsedFlags
		qc.queue, qc.Enabled = q, true
	}
	c.status.Store(uint32(s.Status))
	c.dead.Store(s.Status&VIRTIO_CONFIG_S_NEEDS_RESET != 0)
	if s.Active && !c.dead.Load() {
		return c.start()
	}
	c.active = s.Active
	return nil
}
