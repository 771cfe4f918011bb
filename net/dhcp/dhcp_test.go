package dhcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"vmd/net/frame"
)

var testConfig = Config{
	GuestMAC: [6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0x12, 0x34},
	HostMAC:  [6]byte{0xfe, 0xe1, 0xba, 0xd1, 0x12, 0x34},
	Guest:    [4]byte{100, 64, 1, 3},
	Host:     [4]byte{100, 64, 1, 2},
	HostName: "web",
}

// message is a BOOTP message to be sent, or as received.
type message struct {
	op, htype, hlen, hops byte
	flags                 uint16
	xid                   uint32
	ciaddr, yiaddr        [4]byte
	siaddr, giaddr        [4]byte
	chaddr                [6]byte
	file                  string
	vendor                []byte // after the fixed part

	// What it is wrapped in.
	eth  frame.Ethernet
	ip   frame.IPv4
	udp  frame.UDP
	size int // of the message, at least
}

func options(opts ...[]byte) []byte {
	b := bytes.Clone(cookie[:])
	for _, o := range opts {
		b = append(b, o...)
	}
	return append(b, optEnd)
}

func kind(k byte) []byte { return []byte{optMessageType, 1, k} }

func class(s string) []byte { return append([]byte{optClassID, byte(len(s))}, s...) }

func requestedIP(a ...byte) []byte { return append([]byte{optRequestedIP, 4}, a...) }

// from is a broadcast of the guest's.
func from(vendor []byte) *message {
	return &message{
		op: 1, htype: 1, hlen: 6, xid: 0xdeadbeef, chaddr: testConfig.GuestMAC, vendor: vendor, size: 300,
		eth: frame.Ethernet{Dst: frame.Broadcast, Src: testConfig.GuestMAC},
		ip:  frame.IPv4{TTL: 64, Dst: everybody},
		udp: frame.UDP{SrcPort: 68, DstPort: 67},
	}
}

// renewal is a unicast REQUEST of the guest's for the address that it has.
func renewal() *message {
	m := from(options(kind(msgRequest)))
	m.ciaddr = testConfig.Guest
	m.eth.Dst = testConfig.HostMAC
	m.ip.Src, m.ip.Dst = testConfig.Guest, testConfig.Host
	return m
}

func (m *message) frame() []byte {
	b := make([]byte, 236)
	b[0], b[1], b[2], b[3] = m.op, m.htype, m.hlen, m.hops
	binary.BigEndian.PutUint32(b[4:], m.xid)
	binary.BigEndian.PutUint16(b[8:], 7) // secs
	binary.BigEndian.PutUint16(b[10:], m.flags)
	copy(b[12:], m.ciaddr[:])
	copy(b[16:], m.yiaddr[:])
	copy(b[20:], m.siaddr[:])
	copy(b[24:], m.giaddr[:])
	copy(b[28:], m.chaddr[:])
	copy(b[108:], m.file)
	b = append(b, m.vendor...)
	for len(b) < m.size {
		b = append(b, 0)
	}
	return frame.AppendUDP(nil, &m.eth, &m.ip, &m.udp, b)
}

// received takes an answer apart.
func received(t *testing.T, b []byte) *message {
	t.Helper()
	var m message
	var err error
	if m.eth, b, err = frame.ParseEthernet(b); err != nil {
		t.Fatal(err)
	}
	if m.ip, b, err = frame.ParseIPv4(b); err != nil {
		t.Fatal(err)
	}
	if m.udp, b, err = frame.ParseUDP(&m.ip, b, false); err != nil {
		t.Fatal(err)
	}
	if len(b) < 300 {
		t.Fatalf("message of %d bytes", len(b))
	}
	m.op, m.htype, m.hlen, m.hops = b[0], b[1], b[2], b[3]
	m.xid = binary.BigEndian.Uint32(b[4:])
	m.flags = binary.BigEndian.Uint16(b[10:])
	m.ciaddr, m.yiaddr, m.siaddr, m.giaddr = [4]byte(b[12:]), [4]byte(b[16:]), [4]byte(b[20:]), [4]byte(b[24:])
	m.chaddr = [6]byte(b[28:])
	m.file = strings.TrimRight(string(b[108:236]), "\x00")
	m.vendor = bytes.TrimRight(b[236:], "\x00")
	return &m
}

// The example of vmd's specification, but for the sender's address.
func TestAnswerByteForByte(t *testing.T) {
	c := testConfig
	c.HostName = ""
	got, ours := c.AppendReply(nil, from(options(kind(msgDiscover))).frame(), false)
	want := "fee1bbd11234" + "fee1bad11234" + "0800" +
		"4510" + "0148" + "0000" + "0000" + "1011" + "XXXX" + "64400102" + "64400103" +
		"0043" + "0044" + "0134" + "XXXX" +
		"02010600" + "deadbeef" + "00000000" + "00000000" + "64400103" + "64400102" + "00000000" +
		"fee1bbd11234" + strings.Repeat("00", 10+64+128) +
		"63825363" + "350102" + "3304ffffffff" + "360464400102" + "0104fffffffe" + "030464400102" + "060464400102" + "ff"
	want += strings.Repeat("00", 14+20+8+300-len(want)/2)
	h := hex.EncodeToString(got)
	if !ours || len(h) != len(want) {
		t.Fatalf("got %d bytes, want %d", len(h)/2, len(want)/2)
	}
	// received checks both checksums.
	received(t, got)
	h = h[:48] + "XXXX" + h[52:80] + "XXXX" + h[84:]
	if h != want {
		t.Errorf("got\n%s, want\n%s", h, want)
	}
}

const (
	lease  = "3304ffffffff"
	server = "360464400102"
	net1   = "0104fffffffe030464400102060464400102"
	name   = "0c03776562"
)

func TestAnswers(t *testing.T) {
	guest, host := testConfig.Guest, testConfig.Host
	other := [4]byte{10, 9, 8, 7}
	for _, tt := range []struct {
		name   string
		m      *message
		vendor string // of the answer, in hex without cookie and end; "" is none
		yiaddr [4]byte
	}{
		{"BOOTP", from(nil), net1 + name, guest},
		{"BOOTP with a vendor area", from(options()), net1 + name, guest},
		{"BOOTP of another vendor", from([]byte{1, 2, 3, 4, 53, 1, 1, 255}), net1 + name, guest},
		{"DISCOVER", from(options(kind(msgDiscover))), "350102" + lease + server + net1 + name, guest},
		{"DISCOVER for another address", from(options(kind(msgDiscover), requestedIP(10, 9, 8, 7))), "350102" + lease + server + net1 + name, guest},
		{"REQUEST", from(options(kind(msgRequest))), "350105" + lease + server + net1 + name, guest},
		{"REQUEST for it", from(options(requestedIP(100, 64, 1, 3), kind(msgRequest))), "350105" + lease + server + net1 + name, guest},
		{"REQUEST for 0.0.0.0", from(options(kind(msgRequest), requestedIP(0, 0, 0, 0))), "350105" + lease + server + net1 + name, guest},
		{"REQUEST for another", from(options(kind(msgRequest), requestedIP(10, 9, 8, 7))), "350106" + server, [4]byte{}},
		{"renewal", renewal(), "350105" + lease + server + net1 + name, guest},
		{"rebinding", with(renewal(), func(m *message) { m.eth.Dst, m.ip.Dst = frame.Broadcast, everybody }), "350105" + lease + server + net1 + name, guest},
		{"renewal of another", with(renewal(), func(m *message) { m.ciaddr = other }), "350106" + server, [4]byte{}},
		{"INFORM", with(renewal(), func(m *message) { m.vendor = options(kind(msgInform)) }), "350105" + server + net1 + name, [4]byte{}},
		{"DECLINE", from(options(kind(msgDecline), requestedIP(100, 64, 1, 3))), "", [4]byte{}},
		{"RELEASE", with(renewal(), func(m *message) { m.vendor = options(kind(msgRelease)) }), "", [4]byte{}},
		{"an unknown type", from(options(kind(77))), "350106" + server, [4]byte{}},
		{"pads between options", from(options([]byte{0, 0}, kind(msgDiscover), []byte{0})), "350102" + lease + server + net1 + name, guest},
		{"type after the end", from(append(options(), kind(msgDiscover)...)), net1 + name, guest},
		{"type of two bytes", from(options([]byte{optMessageType, 2, 1, 1})), net1 + name, guest},
		{"option that overruns", from(options(kind(msgDiscover), []byte{77, 250})), "350102" + lease + server + net1 + name, guest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, ours := testConfig.AppendReply([]byte("before"), tt.m.frame(), false)
			if !ours || !bytes.HasPrefix(b, []byte("before")) {
				t.Fatalf("ours is %v, got %q", ours, b)
			}
			b = b[len("before"):]
			if tt.vendor == "" {
				if len(b) != 0 {
					t.Errorf("answer %x", b)
				}
				return
			}
			m := received(t, b)
			if want := "63825363" + tt.vendor + "ff"; hex.EncodeToString(m.vendor) != want {
				t.Errorf("options %x, want %s", m.vendor, want)
			}
			if m.op != 2 || m.htype != 1 || m.hlen != 6 || m.hops != 0 || m.xid != 0xdeadbeef || m.chaddr != testConfig.GuestMAC ||
				m.yiaddr != tt.yiaddr || m.giaddr != [4]byte{} || m.file != "" {
				t.Errorf("answer %+v", m)
			}
			wantIP := frame.IPv4{TOS: 0x10, TTL: 16, Protocol: 17, Src: host, Dst: guest}
			wantEth := frame.Ethernet{Dst: testConfig.GuestMAC, Src: testConfig.HostMAC, Type: frame.TypeIPv4}
			if strings.HasPrefix(tt.vendor, "350106") {
				wantIP.Dst, wantEth.Dst = everybody, frame.Broadcast
			} else if m.ciaddr != tt.m.ciaddr || m.siaddr != host {
				t.Errorf("answer %+v", m)
			}
			if m.eth != wantEth || m.ip != wantIP || m.udp != (frame.UDP{SrcPort: 67, DstPort: 68}) {
				t.Errorf("wrapped in %+v %+v %+v", m.eth, m.ip, m.udp)
			}
		})
	}
}

func with(m *message, f func(*message)) *message {
	f(m)
	return m
}

func TestWhatIsLeftAlone(t *testing.T) {
	discover := options(kind(msgDiscover))
	other := [4]byte{10, 9, 8, 7}
	for name, f := range map[string]func(*message){
		"another sender":       func(m *message) { m.eth.Src[5]++ },
		"another destination":  func(m *message) { m.eth.Dst = [6]byte{2} },
		"to another host":      func(m *message) { m.ip.Dst = other },
		"another client port":  func(m *message) { m.udp.SrcPort = 69 },
		"another server port":  func(m *message) { m.udp.DstPort = 68 },
		"a reply":              func(m *message) { m.op = 2 },
		"token ring":           func(m *message) { m.htype = 6 },
		"long address":         func(m *message) { m.hlen = 8 },
		"relayed":              func(m *message) { m.hops = 1 },
		"through a relay":      func(m *message) { m.giaddr = other },
		"for another client":   func(m *message) { m.chaddr[0] = 2 },
		"a file":               func(m *message) { m.file = "x" },
		"DISCOVER and address": func(m *message) { m.ciaddr = testConfig.Guest },
		"BOOTP of another":     func(m *message) { m.ciaddr, m.vendor = other, nil },
		"INFORM of nobody":     func(m *message) { m.vendor = options(kind(msgInform)) },
		"unknown and address":  func(m *message) { m.ciaddr, m.vendor = other, options(kind(99)) },
		"too short":            func(m *message) { m.size = 0; m.vendor = nil },
		"too long":             func(m *message) { m.size = 1500 },
	} {
		t.Run(name, func(t *testing.T) {
			if b, ours := testConfig.AppendReply(nil, with(from(discover), f).frame(), false); ours || len(b) != 0 {
				t.Errorf("ours is %v, answer %x", ours, b)
			}
		})
	}
}

func TestChecksums(t *testing.T) {
	b := from(options(kind(msgDiscover))).frame()
	udpSum := b[14+20+6:][:2]
	udpSum[0] ^= 0x55
	if _, ours := testConfig.AppendReply(nil, b, false); ours {
		t.Error("a wrong checksum is taken")
	}
	if _, ours := testConfig.AppendReply(nil, b, true); !ours {
		t.Error("a checksum that the guest left to us is not")
	}
	udpSum[0], udpSum[1] = 0, 0
	if _, ours := testConfig.AppendReply(nil, b, false); !ours {
		t.Error("no checksum is not taken")
	}
	b[14+10]++
	if _, ours := testConfig.AppendReply(nil, b, true); ours {
		t.Error("a wrong IP checksum is taken")
	}
}

// RFC 2131, 4.1: who asks for broadcast cannot receive anything else yet.
func TestBroadcastFlag(t *testing.T) {
	m := from(options(kind(msgDiscover)))
	m.flags = 0x8000
	b, _ := testConfig.AppendReply(nil, m.frame(), false)
	if got := received(t, b); got.ip.Dst != everybody || got.eth.Dst != frame.Broadcast || got.flags != 0x8000 {
		t.Errorf("got %+v", got)
	}
	m = renewal()
	m.flags = 0x8000
	b, _ = testConfig.AppendReply(nil, m.frame(), false)
	if got := received(t, b); got.ip.Dst != testConfig.Guest {
		t.Errorf("got %+v", got)
	}
}

// Only a guest that boots from the network is told to install itself.
func TestBootFile(t *testing.T) {
	c := testConfig
	c.NetBoot = true
	for _, tt := range []struct {
		m    *message
		want string
	}{
		{from(nil), "auto_install"},
		{from(options(kind(msgDiscover))), "auto_install"},
		{from(options(kind(msgRequest), requestedIP(1, 2, 3, 4))), ""},
		{from(options(kind(msgDiscover), class("PXEClient:Arch:00000:UNDI:002001"))), ""},
		{from(options(kind(msgRequest), class("PXEClient"))), ""},
		{from(options(class("PXEClient"))), ""}, // BOOTP
		{from(options(kind(msgDiscover), class("PXEClien"))), "auto_install"},
		{from(options(kind(msgDiscover), class(""))), "auto_install"},
		{from(options(kind(msgDiscover), class("OpenBSD PXEClient"))), "auto_install"},
	} {
		b, _ := c.AppendReply(nil, tt.m.frame(), false)
		if got := received(t, b).file; got != tt.want {
			t.Errorf("file %q, want %q", got, tt.want)
		}
	}
}

func TestHostName(t *testing.T) {
	for _, name := range []string{"", "x", strings.Repeat("n", MaxHostName), strings.Repeat("n", MaxHostName+1), strings.Repeat("n", 300)} {
		c := testConfig
		c.HostName, c.NetBoot = name, true
		b, _ := c.AppendReply(nil, from(options(kind(msgDiscover))).frame(), false)
		want := append([]byte{optHostName, byte(len(name))}, name...)
		if len(name) == 0 || len(name) > MaxHostName {
			want = []byte{optDNS, 4, 100, 64, 1, 2} // the option before
		}
		if got := received(t, b); !bytes.HasSuffix(got.vendor, append(want, optEnd)) {
			t.Errorf("%d bytes: options %x", len(name), got.vendor)
		}
		if len(b) > MaxReply || len(b) > 14+576 {
			t.Errorf("answer of %d bytes", len(b))
		}
	}
}

func TestNameServers(t *testing.T) {
	all := [][4]byte{{9, 9, 9, 9}, {10, 0, 0, 1}, {10, 0, 0, 2}, {10, 0, 0, 3}}
	for n := range len(all) + 1 {
		c := testConfig
		c.HostName, c.NetBoot, c.DNS = strings.Repeat("n", MaxHostName), true, all[:n]
		b, _ := c.AppendReply(nil, from(options(kind(msgDiscover))).frame(), false)
		want := []byte{optDNS, byte(4 * min(n, MaxDNS))}
		for _, a := range all[:min(n, MaxDNS)] {
			want = append(want, a[:]...)
		}
		if n == 0 {
			want = []byte{optDNS, 4, 100, 64, 1, 2} // the host
		}
		if got := received(t, b); !bytes.Contains(got.vendor, append(want, optHostName)) {
			t.Errorf("%d name servers: options %x", n, got.vendor)
		}
		if len(b) > MaxReply || len(b) > 14+576 {
			t.Errorf("answer of %d bytes", len(b))
		}
	}
}

func TestAnAnswerDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, MaxReply)
	in := from(options(kind(msgDiscover))).frame()
	if n := testing.AllocsPerRun(100, func() {
		if _, ours := testConfig.AppendReply(buf, in, false); !ours {
			t.Error("not ours")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever the guest sends, an answer is a correct frame to that guest, and an
// option that hands out an address hands out its own.
func FuzzDHCP(f *testing.F) {
	for _, m := range []*message{
		from(nil), from(options(kind(msgDiscover))), renewal(),
		from(options(kind(msgRequest), requestedIP(10, 9, 8, 7), []byte{77, 250})),
		from(options(kind(msgDecline))),
	} {
		f.Add(m.frame(), true)
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, in []byte, partial bool) {
		before := bytes.Clone(in)
		b, ours := testConfig.AppendReply(nil, in, partial)
		if !bytes.Equal(in, before) {
			t.Error("the request was changed")
		}
		if len(b) == 0 {
			return
		}
		if !ours || len(b) > MaxReply {
			t.Fatalf("answer of %d bytes, ours is %v", len(b), ours)
		}
		m := received(t, b)
		if m.chaddr != testConfig.GuestMAC || m.eth.Src != testConfig.HostMAC || m.ip.Src != testConfig.Host {
			t.Errorf("answer %+v", m)
		}
		if m.yiaddr != testConfig.Guest && m.yiaddr != [4]byte{} {
			t.Errorf("address %v", m.yiaddr)
		}
	})
}
