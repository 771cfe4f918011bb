package vionet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
	"time"
)

const allControl = VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CTRL_MAC_ADDR | VIRTIO_NET_F_GUEST_ANNOUNCE |
	VIRTIO_NET_F_MQ | VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | guestOffloads

// tables is the data of VIRTIO_NET_CTRL_MAC_TABLE_SET.
func tables(unicast, multi [][6]byte) []byte {
	var b []byte
	for _, t := range [][][6]byte{unicast, multi} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t)))
		for _, mac := range t {
			b = append(b, mac[:]...)
		}
	}
	return b
}

func addresses(n int) [][6]byte {
	list := make([][6]byte, n)
	for i := range list {
		list[i] = [6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}
	}
	return list
}

func TestControlCommands(t *testing.T) {
	yes, no := true, false
	mac, csum, zero := [6]byte{2, 1, 2, 3, 4, 5}, VIRTIO_NET_F_GUEST_CSUM, uint64(0)
	full := limits{features: allControl, pairs: 4}
	without := func(f uint64) limits { return limits{features: allControl &^ f, pairs: 4} }
	for _, c := range []struct {
		name string
		in   []byte
		l    limits
		want command
		err  error
	}{
		{"promiscuous", []byte{0, 0, 1}, full, command{promisc: &yes}, nil},
		{"not promiscuous", []byte{0, 0, 0}, full, command{promisc: &no}, nil},
		{"all multicast", []byte{0, 1, 1}, full, command{allmulti: &yes}, nil},
		{"neither on nor off", []byte{0, 1, 2}, full, command{}, errValue},
		{"no value", []byte{0, 1}, full, command{}, errValue},
		{"a value too many", []byte{0, 1, 1, 1}, full, command{}, errValue},
		{"not negotiated", []byte{0, 0, 1}, without(VIRTIO_NET_F_CTRL_RX), command{}, errCommand},
		{"nothing", nil, full, command{}, errValue},
		{"half a command", []byte{0}, full, command{}, errValue},
		{"unknown class", []byte{99, 0, 1}, full, command{}, errCommand},
		{"unknown command", []byte{0, 5, 1}, full, command{}, errCommand},

		{"tables", append([]byte{1, 0}, tables(addresses(1), addresses(2))...), full,
			command{tables: &[2]table{{list: addresses(1)}, {list: addresses(2)}}}, nil},
		{"empty tables", append([]byte{1, 0}, tables(nil, nil)...), full, command{tables: new([2]table)}, nil},
		{"full table", append([]byte{1, 0}, tables(nil, addresses(64))...), full,
			command{tables: &[2]table{{}, {list: addresses(64)}}}, nil},
		{"too many addresses", append([]byte{1, 0}, tables(addresses(65), addresses(1))...), full,
			command{tables: &[2]table{{all: true, list: addresses(64)}, {list: addresses(1)}}}, nil},
		{"one table", []byte{1, 0, 0, 0, 0, 0}, full, command{}, errValue},
		{"table cut short", append([]byte{1, 0}, tables(nil, addresses(2))[:19]...), full, command{}, errValue},
		{"table with a tail", append(append([]byte{1, 0}, tables(nil, nil)...), 0), full, command{}, errValue},
		{"endless table", []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6}, full, command{}, errValue},

		{"address", append([]byte{1, 1}, mac[:]...), full, command{mac: &mac}, nil},
		{"locked address", append([]byte{1, 1}, mac[:]...), limits{features: allControl, locked: true}, command{}, errValue},
		{"multicast address", []byte{1, 1, 3, 1, 2, 3, 4, 5}, full, command{}, errValue},
		{"no address", []byte{1, 1, 0, 0, 0, 0, 0, 0}, full, command{}, errValue},
		{"short address", []byte{1, 1, 2, 0, 0}, full, command{}, errValue},

		{"announced", []byte{3, 0}, full, command{announced: true}, nil},
		{"announced what", []byte{3, 0, 0}, full, command{}, errValue},

		{"pairs", []byte{4, 0, 4, 0}, full, command{pairs: 4}, nil},
		{"no pairs", []byte{4, 0, 0, 0}, full, command{}, errValue},
		{"too many pairs", []byte{4, 0, 5, 0}, full, command{}, errValue},
		{"pairs, not negotiated", []byte{4, 0, 1, 0}, without(VIRTIO_NET_F_MQ), command{}, errCommand},
		{"long pairs", []byte{4, 0, 1, 0, 0, 0}, full, command{}, errValue},

		{"offloads", []byte{5, 0, 2, 0, 0, 0, 0, 0, 0, 0}, full, command{offloads: &csum}, nil},
		{"no offloads", []byte{5, 0, 0, 0, 0, 0, 0, 0, 0, 0}, full, command{offloads: &zero}, nil},
		{"offload, not negotiated", []byte{5, 0, 2, 0, 0, 0, 0, 0, 0, 0}, without(VIRTIO_NET_F_GUEST_CSUM), command{}, errValue},
		{"what is no offload", []byte{5, 0, 0, 0, 4, 0, 0, 0, 0, 0}, full, command{}, errValue},
		{"short offloads", []byte{5, 0, 2, 0, 0, 0}, full, command{}, errValue},
	} {
		got, err := parseControl(c.in, &c.l)
		if !errors.Is(err, c.err) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: % x: got %+v, %v; want %+v, %v", c.name, c.in, got, err, c.want, c.err)
		}
	}
}

func TestFilter(t *testing.T) {
	own, other, group := [6]byte{2, 0, 0, 0, 0, 1}, [6]byte{2, 0, 0, 0, 0, 2}, [6]byte{0x33, 0x33, 0, 0, 0, 1}
	for _, c := range []struct {
		name                    string
		f                       filter
		other, group, broadcast bool
	}{
		{"plain", filter{}, false, false, true},
		{"promiscuous", filter{promisc: true}, true, true, true},
		{"all multicast", filter{allmulti: true}, false, true, true},
		{"listed", filter{unicast: table{list: [][6]byte{other}}, multi: table{list: [][6]byte{group}}}, true, true, true},
		{"one listed", filter{multi: table{list: [][6]byte{group}}}, false, true, true},
		{"another listed", filter{multi: table{list: [][6]byte{other}}}, false, false, true},
		{"overflown", filter{unicast: table{all: true}, multi: table{all: true}}, true, true, true},
		{"locked", filter{locked: true, promisc: true, unicast: table{list: [][6]byte{other}}}, false, true, true},
	} {
		c.f.mac = own
		for dst, want := range map[[6]byte]bool{own: true, other: c.other, group: c.group, broadcast: c.broadcast} {
			if got := c.f.accepts(dst); got != want {
				t.Errorf("%s: frame for %x: accepted %v, want %v", c.name, dst, got, want)
			}
		}
	}
}

func TestPaceOfCommands(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	for i := range 64 {
		if wait := p.next(now); wait != 0 {
			t.Fatalf("command %d of a burst waits %v", i, wait)
		}
	}
	start := now
	for range 100 {
		wait := p.next(now)
		if wait <= 0 || wait > commandCost {
			t.Fatalf("after a burst a command waits %v", wait)
		}
		now = now.Add(wait)
	}
	if took := now.Sub(start); took != 100*commandCost {
		t.Errorf("100 commands took %v", took)
	}
	if wait := p.next(now.Add(time.Second)); wait != 0 {
		t.Errorf("after a rest a command waits %v", wait)
	}
}

// FuzzNetControl parses whatever a driver may say, and checks what the device
// would do.
func FuzzNetControl(f *testing.F) {
	f.Add([]byte{0, 0, 1}, allControl, false)
	f.Add(append([]byte{1, 0}, tables(addresses(3), addresses(70))...), allControl, false)
	f.Add([]byte{1, 1, 2, 1, 2, 3, 4, 5}, allControl, true)
	f.Add([]byte{4, 0, 2, 0}, allControl, false)
	f.Add([]byte{5, 0, 0x82, 1, 0, 0, 0, 0, 0, 0}, allControl, false)
	f.Fuzz(func(t *testing.T, in []byte, features uint64, locked bool) {
		before := bytes.Clone(in)
		c, err := parseControl(in, &limits{features: features, pairs: 3, locked: locked})
		switch {
		case !bytes.Equal(in, before):
			t.Error("the command was changed")
		case err != nil && !reflect.DeepEqual(c, command{}):
			t.Errorf("refused, and still %+v", c)
		case c.mac != nil && (locked || c.mac[0]&1 != 0):
			t.Errorf("address %x", *c.mac)
		case c.pairs < 0 || c.pairs > 3:
			t.Errorf("%d pairs", c.pairs)
		case c.offloads != nil && *c.offloads&^(features&guestOffloads) != 0:
			t.Errorf("offloads %#x of %#x", *c.offloads, features)
		case c.tables != nil && (len(c.tables[0].list) > maxTable || len(c.tables[1].list) > maxTable):
			t.Error("more addresses than a table holds")
		}
	})
}
