package addr

import (
	"errors"
	"net/netip"
	"testing"
)

// The table of vmd's specification, with the ids that collide there refused.
func TestLocal4(t *testing.T) {
	for _, tt := range []struct {
		prefix      string
		id          uint32
		index       int
		host, guest string // "" is ErrOutside
	}{
		{"100.64.0.0/10", 1, 0, "100.64.1.2/31", "100.64.1.3/31"},
		{"100.64.0.0/10", 1, 1, "100.64.1.4/31", "100.64.1.5/31"},
		{"100.64.0.0/10", 5, 3, "100.64.5.8/31", "100.64.5.9/31"},
		{"100.64.0.0/10", 255, 0, "100.64.255.2/31", "100.64.255.3/31"},
		{"100.64.0.0/10", 256, 0, "100.65.0.2/31", "100.65.0.3/31"},
		{"100.64.0.0/10", 16383, 3, "100.127.255.8/31", "100.127.255.9/31"},
		{"100.64.0.0/10", 16383, 126, "100.127.255.254/31", "100.127.255.255/31"},
		{"100.64.0.0/10", 16384, 0, "", ""},
		{"100.64.0.0/10", 16385, 0, "", ""},
		{"100.64.0.0/10", 32768, 0, "", ""},
		{"100.64.0.0/10", 1 << 24, 0, "", ""}, // would shift out of 32 bits
		{"100.64.0.0/10", 1<<32 - 1, 0, "", ""},
		{"100.64.0.0/10", 1, -1, "", ""},
		{"100.64.0.0/10", 1, 127, "", ""},
		{"100.64.0.0/10", 1, 1 << 40, "", ""},
		{"10.0.0.0/8", 1, 0, "10.0.1.2/31", "10.0.1.3/31"},
		{"10.0.0.0/8", 300, 1, "10.1.44.4/31", "10.1.44.5/31"},
		{"10.0.0.0/8", 65535, 3, "10.255.255.8/31", "10.255.255.9/31"},
		{"10.0.0.0/8", 65536, 0, "", ""},
		{"10.1.0.0/16", 255, 0, "10.1.255.2/31", "10.1.255.3/31"},
		{"10.1.0.0/16", 256, 0, "", ""},
		{"10.1.0.0/16", 257, 0, "", ""},
		{"192.168.0.0/16", 255, 0, "192.168.255.2/31", "192.168.255.3/31"},
		{"192.168.0.0/16", 256, 0, "", ""},
		{"10.1.2.3/8", 1, 0, "10.0.1.2/31", "10.0.1.3/31"},
		{"10.1.2.0/24", 0, 3, "10.1.2.8/31", "10.1.2.9/31"},
		{"10.1.2.0/24", 1, 0, "", ""},
		{"10.1.2.3/32", 0, 0, "", ""},
		{"0.0.0.0/0", 1<<24 - 1, 0, "255.255.255.2/31", "255.255.255.3/31"},
	} {
		host, guest, err := Local4(netip.MustParsePrefix(tt.prefix), tt.id, tt.index)
		if tt.host == "" {
			if !errors.Is(err, ErrOutside) {
				t.Errorf("%s, %d, %d: got %v, %v, %v; want %v", tt.prefix, tt.id, tt.index, host, guest, err, ErrOutside)
			}
			continue
		}
		if err != nil || host.String() != tt.host || guest.String() != tt.guest {
			t.Errorf("%s, %d, %d: got %v, %v, %v; want %s, %s", tt.prefix, tt.id, tt.index, host, guest, err, tt.host, tt.guest)
		}
	}
	if _, _, err := Local4(netip.MustParsePrefix("fd00::/8"), 1, 0); err == nil {
		t.Error("an IPv6 prefix is taken")
	}
	if _, _, err := Local4(netip.Prefix{}, 1, 0); err == nil {
		t.Error("no prefix is taken")
	}
}

func TestLocal4IsUnique(t *testing.T) {
	seen := map[netip.Prefix]uint32{}
	for id := uint32(1); id < 1<<14; id++ {
		host, guest, err := Local4(Default4, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !Default4.Contains(host.Addr()) || host.Masked() != guest.Masked() {
			t.Fatalf("VM %d: %v, %v", id, host, guest)
		}
		if other, ok := seen[host.Masked()]; ok {
			t.Fatalf("VMs %d and %d both have %v", id, other, host)
		}
		seen[host.Masked()] = id
	}
}

func TestLocal6(t *testing.T) {
	for _, tt := range []struct{ prefix, guest4, host, guest string }{
		{"fd12:3456:789a:bcde::/64", "100.64.1.3", "fd12:3456:789a:bcde:6440:103:0:1/96", "fd12:3456:789a:bcde:6440:103:0:2/96"},
		{"fd12:3456:789a:bcde::/64", "100.64.5.9", "fd12:3456:789a:bcde:6440:509:0:1/96", "fd12:3456:789a:bcde:6440:509:0:2/96"},
		{"2001:db8:1::/64", "10.1.44.5", "2001:db8:1:0:a01:2c05:0:1/96", "2001:db8:1:0:a01:2c05:0:2/96"},
		{"2001:db8::/48", "10.0.0.3", "2001:db8::a00:3:0:1/96", "2001:db8::a00:3:0:2/96"},
		{"2001:db8::/65", "10.0.0.3", "", ""},
		{"10.0.0.0/8", "10.0.0.3", "", ""},
		{"::ffff:10.0.0.0/40", "10.0.0.3", "", ""},
		{"2001:db8::/64", "::1", "", ""},
	} {
		host, guest, err := Local6(netip.MustParsePrefix(tt.prefix), netip.MustParseAddr(tt.guest4))
		if tt.host == "" {
			if err == nil {
				t.Errorf("%s, %s: got %v; want an error", tt.prefix, tt.guest4, host)
			}
			continue
		}
		if err != nil || host.String() != tt.host || guest.String() != tt.guest {
			t.Errorf("%s, %s: got %v, %v, %v; want %s, %s", tt.prefix, tt.guest4, host, guest, err, tt.host, tt.guest)
		}
	}
	// What Local4 returns with its error.
	if _, _, err := Local6(netip.MustParsePrefix("fd00::/64"), netip.Prefix{}.Addr()); err == nil {
		t.Error("an address is made of none")
	}
}

func TestUnique6(t *testing.T) {
	got := Unique6([7]byte{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde})
	if want := "fd12:3456:789a:bcde::/64"; got.String() != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
