// Package dhcp answers DHCP and BOOTP on a local interface (RFC 2131, RFC 951).
//
// The one client is the guest, and it has one address for ever: an answer
// follows from the request alone, so there is no state and no lease file. What
// is not a request of the guest's to its host is left alone.
//
// Where vmd(8) of OpenBSD does otherwise: renewals are answered; a refusal is a
// plain NAK; DECLINE and RELEASE have no answer; INFORM has one; answers come
// from the address of the host's interface; only a guest that boots from the
// network is told a file, and firmware that does is not: it would ask for it, and
// there is no server here that has it; the host name is always sent; a guest that asks for
// broadcast gets it.
package dhcp

import (
	"encoding/binary"

	"vmd/net/frame"
)

// MaxHostName is the longest host name that is sent, in bytes. With it a reply
// still is one that any client must take (RFC 2131, 2: 576 bytes).
const MaxHostName = 63

// MaxDNS is how many name servers are told.
const MaxDNS = 3

// MaxReply is the longest frame that AppendReply appends.
const MaxReply = frame.EthernetLen + frame.IPv4Len + frame.UDPLen + maxMessage

// maxMessage has room for all options with the longest host name.
const maxMessage = offVendor + len(cookie) + 64 + MaxHostName

// bootFile is what a guest that boots from the network is told to load, as
// OpenBSD's installer expects it (autoinstall(8)).
const bootFile = "auto_install"

// forever is the lease time that never ends (RFC 2131, 3.3).
const forever = 0xffffffff

// Of the packets we send: those of dhcpd(8).
const (
	replyTTL = 16
	replyTOS = 0x10 // low delay
)

// everybody is the broadcast address of this link.
var everybody = [4]byte{255, 255, 255, 255}

// netmask is that of the /31 between host and guest.
var netmask = [4]byte{255, 255, 255, 254}

// Config is a local interface. It does not change.
type Config struct {
	GuestMAC, HostMAC [6]byte
	Guest, Host       [4]byte
	HostName          string    // "" or longer than MaxHostName: none is sent
	NetBoot           bool      // tell the boot file, but to no PXE client
	DNS               [][4]byte // name servers, of which MaxDNS are told; none: Host
}

// AppendReply looks at an Ethernet frame that the guest sends. If it is a
// request to its host it is ours, and not to be passed on; the answer, if there
// is one, is appended to b as a whole frame. With partial the frame lacks its
// UDP checksum. The frame must not change meanwhile: a guest's is copied first.
//
// It does not allocate if b has room for MaxReply bytes.
func (c *Config) AppendReply(b, f []byte, partial bool) (reply []byte, ours bool) {
	r, ok := c.parse(f, partial)
	if !ok {
		return b, false
	}
	a, ok := c.decide(&r)
	if !ok {
		return b, a.consumed
	}
	var buf [maxMessage]byte
	e := frame.Ethernet{Dst: c.GuestMAC, Src: c.HostMAC}
	ip := frame.IPv4{TOS: replyTOS, TTL: replyTTL, Src: c.Host, Dst: c.Guest}
	if a.kind == msgNAK || r.broadcast && r.ciaddr == [4]byte{} { // RFC 2131, 4.1
		e.Dst, ip.Dst = frame.Broadcast, everybody
	}
	u := frame.UDP{SrcPort: serverPort, DstPort: clientPort}
	return frame.AppendUDP(b, &e, &ip, &u, c.appendMessage(buf[:0], &r, a)), true
}

// answer is what to say to a request.
type answer struct {
	kind     byte // message type, msgNone for BOOTP
	consumed bool // the request is ours, though there is nothing to say
	address  bool // hand out the address, and the lease
}

// decide is the server (RFC 2131, 4.3). It returns false if there is no answer.
func (c *Config) decide(r *request) (a answer, ok bool) {
	none := [4]byte{}
	switch r.kind {
	case msgNone:
		return answer{kind: msgNone, address: true}, r.ciaddr == none || r.ciaddr == c.Guest
	case msgDiscover:
		return answer{kind: msgOffer, address: true}, r.ciaddr == none
	case msgRequest:
		wanted := r.requested // SELECTING, INIT-REBOOT
		if r.ciaddr != none { // RENEWING, REBINDING
			wanted = r.ciaddr
		}
		if wanted != none && wanted != c.Guest {
			return answer{kind: msgNAK}, true
		}
		return answer{kind: msgACK, address: true}, true
	case msgInform:
		return answer{kind: msgACK}, r.ciaddr == c.Guest
	case msgDecline, msgRelease:
		return answer{consumed: true}, false
	}
	return answer{kind: msgNAK}, r.ciaddr == none
}

// appendMessage appends the BOOTP message that says a to b.
func (c *Config) appendMessage(b []byte, r *request, a answer) []byte {
	b = b[:offVendor]
	clear(b)
	b[offOp], b[offHType], b[offHLen] = bootReply, hardwareEther, 6
	copy(b[offXID:], r.xid[:])
	if r.broadcast {
		binary.BigEndian.PutUint16(b[offFlags:], flagBroadcast)
	}
	copy(b[offCHAddr:], c.GuestMAC[:])
	if a.kind != msgNAK {
		copy(b[offCIAddr:], r.ciaddr[:])
		copy(b[offSIAddr:], c.Host[:])
		if c.NetBoot && !r.pxe {
			copy(b[offFile:], bootFile)
		}
	}
	if a.address {
		copy(b[offYIAddr:], c.Guest[:])
	}
	b = c.appendOptions(append(b, cookie[:]...), a)
	for len(b) < minMessage {
		b = append(b, optPad)
	}
	return b
}

func (c *Config) appendOptions(b []byte, a answer) []byte {
	if a.kind != msgNone {
		b = append(b, optMessageType, 1, a.kind)
		if a.address {
			b = append(b, optLeaseTime, 4)
			b = binary.BigEndian.AppendUint32(b, forever)
		}
		b = appendAddress(b, optServerID, c.Host)
	}
	if a.kind != msgNAK {
		b = appendAddress(b, optSubnetMask, netmask)
		b = appendAddress(b, optRouter, c.Host)
		b = c.appendDNS(b)
		if n := len(c.HostName); n > 0 && n <= MaxHostName {
			b = append(b, optHostName, byte(n))
			b = append(b, c.HostName...)
		}
	}
	return append(b, optEnd)
}

func (c *Config) appendDNS(b []byte) []byte {
	n := min(len(c.DNS), MaxDNS)
	if n == 0 {
		return appendAddress(b, optDNS, c.Host)
	}
	b = append(b, optDNS, byte(4*n))
	for _, a := range c.DNS[:n] {
		b = append(b, a[:]...)
	}
	return b
}

func appendAddress(b []byte, option byte, a [4]byte) []byte {
	return append(append(b, option, 4), a[:]...)
}
