package dhcp

import (
	"encoding/binary"

	"vmd/net/frame"
)

// A frame with a request has at least and at most so many bytes.
const (
	minFrame = frame.EthernetLen + 300
	maxFrame = frame.EthernetLen + 1500
)

// request is what there is to know about a message from the guest.
type request struct {
	kind      byte // message type, msgNone for BOOTP
	xid       [4]byte
	ciaddr    [4]byte
	requested [4]byte
	broadcast bool // the guest cannot receive unicast yet
	pxe       bool // it is firmware, to be told where a program is
}

// parse checks frame f against the addresses of c and makes a request of it. It
// returns false for what is not one of the guest's to its host.
func (c *Config) parse(f []byte, partial bool) (request, bool) {
	if len(f) < minFrame || len(f) > maxFrame {
		return request{}, false
	}
	e, b, err := frame.ParseEthernet(f)
	if err != nil || e.Type != frame.TypeIPv4 || e.Src != c.GuestMAC || e.Dst != frame.Broadcast && e.Dst != c.HostMAC {
		return request{}, false
	}
	ip, b, err := frame.ParseIPv4(b)
	if err != nil || ip.Dst != everybody && ip.Dst != c.Host {
		return request{}, false
	}
	u, m, err := frame.ParseUDP(&ip, b, partial)
	if err != nil || u.SrcPort != clientPort || u.DstPort != serverPort {
		return request{}, false
	}
	return c.parseMessage(m)
}

// parseMessage checks the BOOTP message m.
func (c *Config) parseMessage(m []byte) (request, bool) {
	if len(m) < offVendor ||
		m[offOp] != bootRequest || m[offHType] != hardwareEther || m[offHLen] != 6 || m[offHops] != 0 ||
		[6]byte(m[offCHAddr:]) != c.GuestMAC || [4]byte(m[offGIAddr:]) != [4]byte{} || m[offFile] != 0 {
		return request{}, false
	}
	r := request{
		xid:       [4]byte(m[offXID:]),
		ciaddr:    [4]byte(m[offCIAddr:]),
		broadcast: binary.BigEndian.Uint16(m[offFlags:])&flagBroadcast != 0,
	}
	r.options(m[offVendor:])
	return r, true
}

// options reads the three options that matter out of b. It stops where b does not
// look like options any more.
func (r *request) options(b []byte) {
	if len(b) < len(cookie) || [4]byte(b) != cookie {
		return
	}
	b = b[len(cookie):]
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return
		}
		value := b[2 : 2+int(b[1])]
		switch {
		case b[0] == optMessageType && len(value) == 1:
			r.kind = value[0]
		case b[0] == optRequestedIP && len(value) == 4:
			r.requested = [4]byte(value)
		case b[0] == optClassID && len(value) >= len(pxeClient) && string(value[:len(pxeClient)]) == pxeClient:
			r.pxe = true
		}
		b = b[2+len(value):]
	}
}
