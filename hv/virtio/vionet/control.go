package vionet

import (
	"encoding/binary"
	"errors"
)

// maxControl is the longest command that is looked at.
const maxControl = 16 << 10

// Reasons to refuse a command. The driver sees VIRTIO_NET_ERR.
var (
	errCommand = errors.New("unknown command, or one that was not negotiated")
	errValue   = errors.New("command with a wrong value or length")
)

// command is a checked command of the control queue. A nil field is none of
// its business.
type command struct {
	promisc, allmulti *bool
	tables            *[2]table // unicast, multicast
	mac               *[6]byte
	announced         bool
	pairs             int     // 0: not said
	offloads          *uint64 // guest feature bits
}

// limits are what a command is checked against.
type limits struct {
	features uint64 // negotiated
	pairs    int    // that there are
	locked   bool   // the address is not the guest's to choose
}

// parseControl makes a command of what a driver sent, less the room for the
// answer (virtio 1.3, 5.1.6.5).
func parseControl(b []byte, l *limits) (c command, err error) {
	if len(b) < 2 {
		return c, errValue
	}
	for _, k := range commands {
		if k.class != b[0] || k.cmd != b[1] || l.features&k.feature == 0 {
			continue
		}
		if !k.parse(&c, b[2:], l) {
			return command{}, errValue
		}
		return c, nil
	}
	return c, errCommand
}

// commands are those that there are, the feature that each comes with, and what
// parses its data.
var commands = []struct {
	class, cmd byte
	feature    uint64
	parse      func(*command, []byte, *limits) bool
}{
	{VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_F_CTRL_RX, parsePromisc},
	{VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_F_CTRL_RX, parseAllMulti},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_F_CTRL_RX, parseTables},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_F_CTRL_MAC_ADDR, parseAddress},
	{VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_F_GUEST_ANNOUNCE, parseAnnounced},
	{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_F_MQ, parsePairs},
	{VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, parseOffloads},
}

func parseBool(b []byte) (*bool, bool) {
	if len(b) != 1 || b[0] > 1 {
		return nil, false
	}
	on := b[0] == 1
	return &on, true
}

func parsePromisc(c *command, b []byte, _ *limits) (ok bool) {
	c.promisc, ok = parseBool(b)
	return ok
}

func parseAllMulti(c *command, b []byte, _ *limits) (ok bool) {
	c.allmulti, ok = parseBool(b)
	return ok
}

// parseTables reads the two tables of struct virtio_net_ctrl_mac, each a count
// and as many addresses.
func parseTables(c *command, b []byte, _ *limits) bool {
	var ts [2]table
	for i := range ts {
		if len(b) < 4 {
			return false
		}
		n := uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
		if n*6 > uint64(len(b)) {
			return false
		}
		ts[i].all = n > maxTable
		for k := range min(n, maxTable) {
			ts[i].list = append(ts[i].list, [6]byte(b[6*k:]))
		}
		b = b[6*n:]
	}
	c.tables = &ts
	return len(b) == 0
}

func parseAddress(c *command, b []byte, l *limits) bool {
	if len(b) != 6 || b[0]&1 != 0 || [6]byte(b) == [6]byte{} || l.locked {
		return false
	}
	mac := [6]byte(b)
	c.mac = &mac
	return true
}

func parseAnnounced(c *command, b []byte, _ *limits) bool {
	c.announced = true
	return len(b) == 0
}

func parsePairs(c *command, b []byte, l *limits) bool {
	if len(b) != 2 {
		return false
	}
	c.pairs = int(binary.LittleEndian.Uint16(b))
	return c.pairs >= 1 && c.pairs <= l.pairs
}

// guestOffloads are the features that the driver may turn off and on again.
const guestOffloads = VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6

func parseOffloads(c *command, b []byte, l *limits) bool {
	if len(b) != 8 {
		return false
	}
	v := binary.LittleEndian.Uint64(b)
	c.offloads = &v
	return v&^(l.features&guestOffloads) == 0
}
