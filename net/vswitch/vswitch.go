// Package vswitch puts taps and bridges where vm.conf wants them: on a bridge,
// in a VRF, in a group, with a description and addresses. It is the only
// package that speaks rtnetlink and nf_tables.
//
// A switch of vm.conf is a bridge that the administrator made, under any name;
// a routing domain is the VRF with that number as its table. This package makes
// and removes neither: it attaches, and what it attached leaves with the tap.
//
// All methods set what differs and leave what is right already, so they may be
// called again.
package vswitch

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// MaxAlias is the longest description that a link can have, in bytes
// (linux/if.h, IFALIASZ less the final zero).
const MaxAlias = 255

// dumpTries is how often a dump is repeated that changes of others have cut
// across (NLM_F_DUMP_INTR).
const dumpTries = 16

// ErrNotFound says that there is no link or VRF of that name.
var ErrNotFound = errors.New("no such interface")

// Conn is a connection to the kernel's routing socket in the network namespace
// where it was opened. One goroutine uses it, but for Gone.
type Conn struct {
	h      *netlink.Handle
	raw    map[int]*nl.SocketHandle // for requests that the library has no method for
	groups map[string]uint32
	vrfs   map[uint32]int // table → index of the VRF, as last seen
	watch  *watch
	nft    *nft
	noNFT  error // why there is no nft
}

// Open connects to the kernel and reads the numbers of the groups. From then on
// it needs neither files nor further sockets.
func Open() (*Conn, error) {
	groups, err := readGroups(groupDirs)
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a routing socket: %w", err)
	}
	raw, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open a routing socket: %w", err)
	}
	c := &Conn{
		h:      h,
		raw:    map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: raw}},
		groups: groups,
		vrfs:   make(map[uint32]int),
	}
	if c.watch, err = openWatch(); err != nil {
		c.Close()
		return nil, err
	}
	c.nft, c.noNFT = openNFT()
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() {
	c.h.Close()
	c.raw[unix.NETLINK_ROUTE].Close()
	if c.watch != nil {
		c.watch.f.Close()
	}
	if c.nft != nil {
		c.nft.close()
	}
}

// Link is what there is to know about a link.
type Link struct {
	Name   string
	Index  int
	Kind   string // "tun", "bridge", "vrf" … as the kernel names it
	MAC    [6]byte
	MTU    int
	Master int // index of the bridge or VRF that it belongs to; 0: none
	Up     bool

	// Of a tap: whether it outlives its descriptors, may have several, and
	// how many it has.
	Tap, Persistent, MultiQueue bool
	Queues                      int
}

// Link looks up a link by name. The error is an ErrNotFound where there is none.
func (c *Conn) Link(name string) (Link, error) {
	l, err := c.find(name)
	if err != nil {
		return Link{}, err
	}
	return describe(l), nil
}

func describe(l netlink.Link) Link {
	a := l.Attrs()
	d := Link{
		Name:   a.Name,
		Index:  a.Index,
		Kind:   l.Type(),
		MTU:    a.MTU,
		Master: a.MasterIndex,
		Up:     a.Flags&net.FlagUp != 0,
	}
	copy(d.MAC[:], a.HardwareAddr)
	if t, ok := l.(*netlink.Tuntap); ok {
		d.Kind = "tun" // Type says tap or tun
		d.Tap = t.Mode == netlink.TUNTAP_MODE_TAP
		d.Persistent = !t.NonPersist
		d.MultiQueue = t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0
		d.Queues = t.Queues + t.DisabledQueues
	}
	return d
}

// find asks for one link by its name, which may be an alternative one.
func (c *Conn) find(name string) (netlink.Link, error) {
	var l netlink.Link
	err := repeat(func() (err error) {
		l, err = c.h.LinkByName(name)
		return err
	})
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	return l, nil
}

// repeat calls dump until its result is whole.
func repeat(dump func() error) error {
	var err error
	for range dumpTries {
		if err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}

// bridge finds a bridge.
func (c *Conn) bridge(name string) (*netlink.Bridge, error) {
	l, err := c.find(name)
	if err != nil {
		return nil, fmt.Errorf("bridge %w", err)
	}
	b, ok := l.(*netlink.Bridge)
	if !ok {
		return nil, fmt.Errorf("bridge %s: it is a link of kind %q, not a bridge", name, l.Type())
	}
	return b, nil
}

// vrf finds the VRF of a routing table.
func (c *Conn) vrf(table uint32) (netlink.Link, error) {
	if i, ok := c.vrfs[table]; ok {
		l, err := c.h.LinkByIndex(i)
		if v, isVRF := l.(*netlink.Vrf); err == nil && isVRF && v.Table == table {
			return l, nil
		}
		delete(c.vrfs, table)
	}
	var all []netlink.Link
	err := repeat(func() (err error) {
		all, err = c.h.LinkList()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for the VRF of rdomain %d: %w", table, err)
	}
	for _, l := range all {
		if v, ok := l.(*netlink.Vrf); ok && v.Table == table {
			c.vrfs[table] = v.Index
			return l, nil
		}
	}
	return nil, fmt.Errorf("rdomain %d: no VRF with table %d: %w", table, table, ErrNotFound)
}

// enslave makes l a member of master.
func (c *Conn) enslave(l, master netlink.Link) error {
	if l.Attrs().MasterIndex == master.Attrs().Index {
		return nil
	}
	if err := c.h.LinkSetMaster(l, master); err != nil {
		return fmt.Errorf("add %s to %s: %w", l.Attrs().Name, master.Attrs().Name, err)
	}
	return nil
}

// alias sets the description of l.
func (c *Conn) alias(l netlink.Link, text string) error {
	if text == "" || l.Attrs().Alias == text {
		return nil
	}
	if len(text) > MaxAlias {
		return fmt.Errorf("describe %s: %d bytes, at most %d can be", l.Attrs().Name, len(text), MaxAlias)
	}
	if err := c.h.LinkSetAlias(l, text); err != nil {
		return fmt.Errorf("describe %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// maxAltName is the longest alternative name (linux/if.h, ALTIFNAMSIZ less the
// final zero).
const maxAltName = 127

// alternative makes name one more name of l, to be used in commands. Names are
// unique: one that another link has, or that cannot be one, is left.
func (c *Conn) alternative(l netlink.Link, name string) error {
	if name == "" || len(name) > maxAltName || strings.ContainsAny(name, " /:") || slices.Contains(l.Attrs().AltNames, name) {
		return nil
	}
	err := c.h.LinkAddAltName(l, name)
	if err == nil || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return fmt.Errorf("name %s %s: %w", l.Attrs().Name, name, err)
}

// setUp brings l up or down.
func (c *Conn) setUp(l netlink.Link, up bool) error {
	word, set := "up", c.h.LinkSetUp
	if !up {
		word, set = "down", c.h.LinkSetDown
	}
	if (l.Attrs().Flags&net.FlagUp != 0) == up {
		return nil
	}
	if err := set(l); err != nil {
		return fmt.Errorf("bring %s %s: %w", l.Attrs().Name, word, err)
	}
	return nil
}
