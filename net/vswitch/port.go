package vswitch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Port is what a tap shall be.
type Port struct {
	Tap    string
	Alias  string
	MAC    [6]byte // the tap's own; zero leaves it
	Bridge string  // "" for none
	// VRF is the table of the routing domain; 0 for none. That of a tap on a
	// bridge is the bridge's: it can only be the same.
	VRF    uint32
	Groups []string
	// Guest is the only address that may send through the bridge, if it is
	// not zero.
	Guest              [6]byte
	Address4, Address6 netip.Prefix // the host's; the zero value is none
}

// HostMAC derives a tap's own address from that of the guest behind it, so that
// neighbours' caches outlive a restart. It begins with fe, because a bridge
// takes the lowest address of its ports for its own, and differs from the
// guest's in one bit of the third byte, because a bridge delivers to itself
// what is for the address of a port.
func HostMAC(guest [6]byte) [6]byte {
	guest[0] = 0xfe
	guest[2] ^= 1
	return guest
}

// Attach sets everything up but leaves the tap down. It returns the tap, and
// the bridge if there is one.
func (c *Conn) Attach(p Port) (tap, bridge Link, err error) {
	l, err := c.tap(p.Tap)
	if err != nil {
		return Link{}, Link{}, err
	}
	if p.MAC != ([6]byte{}) && string(l.Attrs().HardwareAddr) != string(p.MAC[:]) {
		if err := c.h.LinkSetHardwareAddr(l, net.HardwareAddr(p.MAC[:])); err != nil {
			return Link{}, Link{}, fmt.Errorf("set the address of %s: %w", p.Tap, err)
		}
	}
	if err := c.quiet(l, p); err != nil {
		return Link{}, Link{}, err
	}
	if err := c.alias(l, p.Alias); err != nil {
		return Link{}, Link{}, err
	}
	if err := c.alternative(l, p.Alias); err != nil {
		return Link{}, Link{}, err
	}
	if err := c.group(l, p.Groups); err != nil {
		return Link{}, Link{}, err
	}
	if bridge, err = c.join(l, p); err != nil {
		return Link{}, Link{}, err
	}
	// Addresses come last: to be moved into a VRF flushes those of IPv6.
	for _, a := range []netip.Prefix{p.Address4, p.Address6} {
		if a.IsValid() {
			if err := c.address(l, a); err != nil {
				return Link{}, Link{}, err
			}
		}
	}
	tap, err = c.Link(p.Tap)
	return tap, bridge, err
}

// SetUp brings a tap up or down.
func (c *Conn) SetUp(name string, up bool) (Link, error) {
	l, err := c.tap(name)
	if err != nil {
		return Link{}, err
	}
	if err := c.setUp(l, up); err != nil {
		return Link{}, err
	}
	return c.Link(name)
}

// tap finds a tap: nothing else is changed as one, whatever its name.
func (c *Conn) tap(name string) (netlink.Link, error) {
	l, err := c.find(name)
	if err != nil {
		return nil, fmt.Errorf("tap %w", err)
	}
	if t, ok := l.(*netlink.Tuntap); !ok || t.Mode != netlink.TUNTAP_MODE_TAP {
		return nil, fmt.Errorf("tap %s: it is a link of kind %q, not a tap", name, l.Type())
	}
	return l, nil
}

// quiet keeps the host from giving itself a link-local address on a tap where
// it was not told to speak IPv6.
func (c *Conn) quiet(l netlink.Link, p Port) error {
	if p.Address6.IsValid() {
		return nil
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE (linux/if_link.h)
	err := c.h.LinkSetIP6AddrGenMode(l, none)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6 is quiet enough
		return fmt.Errorf("keep IPv6 off %s: %w", p.Tap, err)
	}
	return nil
}

// join makes l a member of its bridge or VRF.
func (c *Conn) join(l netlink.Link, p Port) (bridge Link, err error) {
	if p.Bridge == "" && p.VRF == 0 {
		return Link{}, nil
	}
	var vrf netlink.Link
	if p.VRF != 0 {
		if vrf, err = c.vrf(p.VRF); err != nil {
			return Link{}, fmt.Errorf("tap %s: %w", p.Tap, err)
		}
	}
	if p.Bridge == "" {
		return Link{}, c.enslave(l, vrf)
	}
	b, err := c.bridge(p.Bridge)
	if err != nil {
		return Link{}, fmt.Errorf("tap %s: %w", p.Tap, err)
	}
	if vrf != nil && b.MasterIndex != vrf.Attrs().Index {
		return Link{}, fmt.Errorf("tap %s: rdomain %d differs from that of its bridge %s", p.Tap, p.VRF, p.Bridge)
	}
	if err := c.plug(l, b); err != nil {
		return Link{}, err
	}
	if p.Guest != ([6]byte{}) {
		if err := c.lock(l, b, p.Guest); err != nil {
			return Link{}, err
		}
	}
	return describe(b), nil
}

// plug adds l to bridge b. The tap takes on the bridge's MTU first: a smaller
// port would lower that of the bridge and so of every other port.
func (c *Conn) plug(l netlink.Link, b *netlink.Bridge) error {
	if l.Attrs().MTU != b.MTU {
		if err := c.h.LinkSetMTU(l, b.MTU); err != nil {
			return fmt.Errorf("set the MTU of %s to the %d of %s: %w", l.Attrs().Name, b.MTU, b.Name, err)
		}
	}
	return c.enslave(l, b)
}

// address gives l an address of the host's, for good. One that it has already
// is fine.
func (c *Conn) address(l netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // nobody else is on the link to have it
	}
	if err := c.h.AddrReplace(l, a); err != nil {
		return fmt.Errorf("add address %v to %s: %w", p, l.Attrs().Name, err)
	}
	return nil
}
