package vswitch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
	"vmd/net/tap"
)

func open(t *testing.T) *Conn {
	t.Helper()
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// check fails the test if err is not nil.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// named has the attributes that a new link needs.
func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func addBridge(t *testing.T, name string, filtering bool) netlink.Link {
	t.Helper()
	b := &netlink.Bridge{LinkAttrs: named(name)}
	if filtering {
		b.VlanFiltering = &filtering
	}
	check(t, netlink.LinkAdd(b))
	check(t, netlink.LinkSetUp(b))
	return b
}

// addTap opens a tap that lives as long as the test.
func addTap(t *testing.T, name string) *os.File {
	t.Helper()
	_, files, err := tap.Create(tap.Options{Name: name})
	check(t, err)
	t.Cleanup(func() { files[0].Close() })
	return files[0]
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	check(t, err)
	return l
}

func (c *Conn) mustAttach(t *testing.T, p Port) {
	t.Helper()
	_, _, err := c.Attach(p)
	check(t, err)
	_, err = c.SetUp(p.Tap, true)
	check(t, err)
}

const testType = 0x88b5 // an EtherType for experiments (IEEE 802)

func frame(dst, src [6]byte, text string) []byte {
	b := make([]byte, 12, 100) // virtio_net_hdr: nothing to finish
	b = append(append(b, dst[:]...), src[:]...)
	b = binary.BigEndian.AppendUint16(b, testType)
	return append(b, text...)
}

// receive returns the next frame of testType, without its header.
func receive(t *testing.T, tp *tap.Tap) []byte {
	t.Helper()
	stop := time.AfterFunc(20*time.Second, tp.Wake)
	defer stop.Stop()
	for {
		b := make([]byte, 2000)
		n, err := tp.ReadFrame([][]byte{b}, true)
		if err != nil || n == 0 {
			t.Fatalf("no frame: %v", err)
		}
		if b = b[12:n]; binary.BigEndian.Uint16(b[12:]) == testType {
			return b
		}
	}
}

var (
	guest1    = [6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0, 1}
	guest2    = [6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0, 2}
	stranger  = [6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0, 99}
	broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// A locked port does not let another source address through, even if the
// process that has the tap no longer filters; a port that is not does.
func TestLockedPort(t *testing.T) {
	for _, tt := range []struct {
		name   string
		locked bool
	}{{"locked", true}, {"not locked", false}} {
		t.Run(tt.name, func(t *testing.T) {
			testenv.NetNS(t)
			c := open(t)
			addBridge(t, "br0", false)
			from, to := addTap(t, "tap1"), addTap(t, "tap2")
			p := Port{Tap: "tap1", Bridge: "br0", MAC: HostMAC(guest1)}
			if tt.locked {
				p.Guest = guest1
			}
			c.mustAttach(t, p)
			c.mustAttach(t, p) // again
			c.mustAttach(t, Port{Tap: "tap2", Bridge: "br0", MAC: HostMAC(guest2), Guest: guest2})
			fd, err := unix.Dup(int(to.Fd())) // New owns what it gets
			check(t, err)
			rx, err := tap.New(fd)
			check(t, err)
			defer rx.Close()
			for _, b := range [][]byte{frame(broadcast, stranger, "spoofed"), frame(broadcast, guest1, "true")} {
				if _, err := from.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			first := receive(t, rx)
			if spoofed := bytes.HasPrefix(first[14:], []byte("spoofed")); spoofed == tt.locked {
				t.Errorf("first frame through: %q", first[14:])
			}
		})
	}
}

func TestGroupOfALink(t *testing.T) {
	testenv.NetNS(t)
	c := open(t)
	c.groups = map[string]uint32{"tap": 5, "dmz": 7}
	addTap(t, "tap1")
	for _, tt := range []struct {
		groups []string
		want   uint32
	}{{nil, 0}, {[]string{"nosuch"}, 0}, {[]string{"nosuch", "tap"}, 5}, {[]string{"dmz", "tap"}, 7}, {[]string{"nosuch"}, 7}} {
		c.mustAttach(t, Port{Tap: "tap1", Groups: tt.groups})
		if got := link(t, "tap1").Attrs().Group; got != tt.want {
			t.Errorf("%q: group %d, want %d", tt.groups, got, tt.want)
		}
	}
}

// An alternative name is as good as the first.
func TestBridgeByAnotherName(t *testing.T) {
	testenv.NetNS(t)
	c := open(t)
	b := addBridge(t, "br0", false)
	check(t, netlink.LinkAddAltName(b, "uplink"))
	addTap(t, "tap1")
	c.mustAttach(t, Port{Tap: "tap1", Bridge: "uplink"})
	if got := link(t, "tap1").Attrs().MasterIndex; got != b.Attrs().Index {
		t.Errorf("master %d, want %d", got, b.Attrs().Index)
	}
}

func TestPortMovesToTheBridgeItShallBeOn(t *testing.T) {
	testenv.NetNS(t)
	c := open(t)
	addBridge(t, "br0", false)
	b := addBridge(t, "br1", false)
	addTap(t, "tap1")
	for _, name := range []string{"br0", "br1", "br1"} {
		c.mustAttach(t, Port{Tap: "tap1", Bridge: name})
	}
	if got := link(t, "tap1").Attrs().MasterIndex; got != b.Attrs().Index {
		t.Errorf("master %d, want %d", got, b.Attrs().Index)
	}
}

func addVRF(t *testing.T, name string, table uint32) netlink.Link {
	t.Helper()
	v := &netlink.Vrf{LinkAttrs: named(name), Table: table}
	check(t, netlink.LinkAdd(v))
	check(t, netlink.LinkSetUp(v))
	return v
}

func TestLocalTapInAVRF(t *testing.T) {
	testenv.StockKernel(t)
	testenv.NetNS(t)
	c := open(t)
	addVRF(t, "blue", 11)
	red := addVRF(t, "red", 10)
	addTap(t, "tap1")
	p := Port{Tap: "tap1", VRF: 10,
		Address4: netip.MustParsePrefix("100.64.1.2/31"), Address6: netip.MustParsePrefix("fd00::6440:103:0:1/96")}
	c.mustAttach(t, p)
	c.mustAttach(t, p)
	if got := link(t, "tap1").Attrs().MasterIndex; got != red.Attrs().Index {
		t.Errorf("master %d, want %d", got, red.Attrs().Index)
	}
	for _, want := range []netip.Prefix{p.Address4, p.Address6} {
		as, err := netlink.AddrList(link(t, "tap1"), netlink.FAMILY_ALL)
		check(t, err)
		if !slices.ContainsFunc(as, func(a netlink.Addr) bool { return a.IPNet.String() == want.String() }) {
			t.Errorf("addresses %v lack %v", as, want)
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 10, LinkIndex: link(t, "tap1").Attrs().Index},
		netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
	if err != nil || len(routes) == 0 {
		t.Errorf("no route in table 10: %v", err)
	}
}

func TestVRFThatIsNotThere(t *testing.T) {
	testenv.StockKernel(t)
	testenv.NetNS(t)
	c := open(t)
	addTap(t, "tap1")
	p := Port{Tap: "tap1", VRF: 10}
	for range 2 { // the second time it is remembered, and must be noticed to have gone
		if _, _, err := c.Attach(p); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "rdomain 10") {
			t.Errorf("got %v", err)
		}
		v := addVRF(t, "red", 10)
		c.mustAttach(t, p)
		check(t, netlink.LinkDel(v))
	}
}

func TestSwitchInAVRF(t *testing.T) {
	testenv.StockKernel(t)
	testenv.NetNS(t)
	c := open(t)
	red := addVRF(t, "red", 10)
	addVRF(t, "blue", 11)
	addBridge(t, "br0", false)
	addTap(t, "tap1")
	p := Port{Tap: "tap1", Bridge: "br0", VRF: 10}
	if _, _, err := c.Attach(p); err == nil || !strings.Contains(err.Error(), "differs") {
		t.Errorf("the bridge is in no VRF yet: got %v", err)
	}
	for range 2 {
		l, err := c.SetSwitch(Switch{Bridge: "br0", VRF: 10})
		check(t, err)
		if l.Master != red.Attrs().Index {
			t.Errorf("master %d, want %d", l.Master, red.Attrs().Index)
		}
	}
	c.mustAttach(t, p)
	p.VRF = 11
	if _, _, err := c.Attach(p); err == nil || !strings.Contains(err.Error(), "rdomain 11 differs") {
		t.Errorf("another VRF: got %v", err)
	}
	// A switch without one leaves the administrator's choice alone.
	l, err := c.SetSwitch(Switch{Bridge: "br0", Down: true})
	if err != nil || l.Master != red.Attrs().Index || l.Up {
		t.Errorf("got %+v, %v", l, err)
	}
}

// The table of a bridge that filters VLANs is per VLAN: its port is not locked.
func TestPortOfAVLANBridge(t *testing.T) {
	testenv.StockKernel(t)
	testenv.NetNS(t)
	c := open(t)
	addBridge(t, "br0", true)
	addTap(t, "tap1")
	c.mustAttach(t, Port{Tap: "tap1", Bridge: "br0", Guest: guest1})
	neighs, err := netlink.NeighList(link(t, "tap1").Attrs().Index, unix.AF_BRIDGE)
	check(t, err)
	if len(neighs) == 0 {
		t.Error("the port's own address is not in the table")
	}
	for _, n := range neighs {
		if bytes.Equal(n.HardwareAddr, guest1[:]) {
			t.Errorf("entry %v", n)
		}
	}
}
