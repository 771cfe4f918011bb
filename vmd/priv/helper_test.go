package priv

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// What an administrator would do with ip(8), in the namespace of the test.

func add(t *testing.T, l netlink.Link) {
	t.Helper()
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatalf("add %s: %v", l.Attrs().Name, err)
	}
}

func addBridge(t *testing.T, name string, mtu int) (index int) {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = name, mtu
	add(t, &netlink.Bridge{LinkAttrs: a})
	return attrs(t, name).Index
}

func addVeth(t *testing.T, name, peer string) {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name = name
	add(t, &netlink.Veth{LinkAttrs: a, PeerName: peer})
}

func addPersistentTap(t *testing.T, name string, multi bool) {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name = name
	l := &netlink.Tuntap{LinkAttrs: a, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI}
	if multi {
		l.Flags |= netlink.TUNTAP_MULTI_QUEUE
		l.Queues = 1
	}
	add(t, l)
	for _, f := range l.Fds {
		f.Close()
	}
}

func attrs(t *testing.T, name string) *netlink.LinkAttrs {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l.Attrs()
}

func setUp(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// addresses are those of a link with their lengths, IPv4 first.
func addresses(t *testing.T, name string) []string {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		as, err := netlink.AddrList(l, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range as {
			all = append(all, a.IPNet.String())
		}
	}
	return all
}
