package vionet

import (
	"errors"
	"fmt"

	"vmd/hv/state"
	"vmd/internal/notation"
)

// cardState is what an interface is to its driver, and what the driver has said
// by the control queue.
type cardState struct {
	MAC      [6]byte     `cbor:"1,keyasint"` // as it left the factory
	MTU      uint16      `cbor:"2,keyasint"`
	SayMTU   bool        `cbor:"3,keyasint"`
	Down     bool        `cbor:"4,keyasint"`
	Announce bool        `cbor:"5,keyasint"`
	Filter   filterState `cbor:"6,keyasint"`
	Pairs    int         `cbor:"7,keyasint"` // that frames arrive on
	Offloads uint32      `cbor:"8,keyasint"` // TUN_F_ bits
}

type filterState struct {
	MAC      [6]byte    `cbor:"1,keyasint"`
	Promisc  bool       `cbor:"2,keyasint"`
	AllMulti bool       `cbor:"3,keyasint"`
	Unicast  tableState `cbor:"4,keyasint"`
	Multi    tableState `cbor:"5,keyasint"`
}

type tableState struct {
	All  bool      `cbor:"1,keyasint"`
	List [][6]byte `cbor:"2,keyasint"`
}

// errDriver says that no driver can have asked for what a state holds.
var errDriver = errors.New("interface: the driver cannot have asked for this")

// SaveState implements virtio.Stateful.
func (d *Device) SaveState() ([]byte, error) {
	f := d.filter.Load()
	s := cardState{
		MAC: d.mac, MTU: d.mtu, SayMTU: d.sayMTU, Down: d.down.Load(), Announce: d.announce.Load(),
		Filter: filterState{
			MAC: f.mac, Promisc: f.promisc, AllMulti: f.allmulti,
			Unicast: f.unicast.state(), Multi: f.multi.state(),
		},
		Pairs: d.active,
	}
	d.mu.Lock()
	if d.transport != nil {
		s.Offloads = d.offloads // else what a former driver wanted
	}
	d.mu.Unlock()
	return state.Encode(s)
}

func (t *table) state() tableState { return tableState{t.all, t.list} }

// RestoreState implements virtio.Stateful. The interface must be the one that
// the driver knows; whether its cable is plugged in is decided here, and the
// driver told.
func (d *Device) RestoreState(b []byte) error {
	var s cardState
	if err := state.Decode(b, &s); err != nil {
		return fmt.Errorf("interface: %w", err)
	}
	if err := d.sameCard(&s); err != nil {
		return err
	}
	d.mu.Lock()
	features, t := d.features, d.transport
	d.mu.Unlock()
	if t == nil {
		return nil // the next driver finds all as it was made
	}
	f, err := d.asked(&s, features)
	if err != nil {
		return err
	}
	d.announce.Store(s.Announce)
	d.filter.Store(f)
	if err := errors.Join(d.setPairs(s.Pairs), d.offload(s.Offloads), d.filterLent(f)); err != nil {
		return err
	}
	if s.Down != d.down.Load() {
		t.ConfigChanged()
	}
	return nil
}

// sameCard says whether this is the interface that the driver knows.
func (d *Device) sameCard(s *cardState) error {
	switch {
	case s.MAC != d.mac:
		return fmt.Errorf("interface with address %s there and %s here", notation.MAC(s.MAC), notation.MAC(d.mac))
	case s.MTU != d.mtu || s.SayMTU != d.sayMTU:
		return fmt.Errorf("interface with MTU %d there and %d here", s.MTU, d.mtu)
	}
	return nil
}

// asked returns the filter of s, if a driver that negotiated features can have
// asked for all that is in s.
func (d *Device) asked(s *cardState, features uint64) (*filter, error) {
	own := s.Filter.MAC == d.mac
	switch {
	case !own && d.locked:
		return nil, fmt.Errorf("interface: the driver has changed the address to %s, which is locked here", notation.MAC(s.Filter.MAC))
	case !own && (features&VIRTIO_NET_F_CTRL_MAC_ADDR == 0 || s.Filter.MAC[0]&1 != 0 || s.Filter.MAC == [6]byte{}),
		s.Announce && features&VIRTIO_NET_F_GUEST_ANNOUNCE == 0,
		s.Pairs < 1 || s.Pairs > d.pairsOf(features),
		s.Offloads&^receivable(features) != 0:
		return nil, errDriver
	}
	f := &filter{mac: s.Filter.MAC, promisc: s.Filter.Promisc, allmulti: s.Filter.AllMulti, locked: d.locked}
	for _, t := range []struct {
		to   *table
		from *tableState
	}{{&f.unicast, &s.Filter.Unicast}, {&f.multi, &s.Filter.Multi}} {
		if len(t.from.List) > maxTable {
			return nil, fmt.Errorf("%w: %d addresses in a table of %d", errDriver, len(t.from.List), maxTable)
		}
		*t.to = table{t.from.All, t.from.List}
	}
	return f, nil
}
