package frame

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

var (
	testEthernet = Ethernet{Dst: [6]byte{1, 2, 3, 4, 5, 6}, Src: [6]byte{7, 8, 9, 10, 11, 12}}
	testIP       = IPv4{TOS: 0x10, TTL: 16, Src: [4]byte{100, 64, 1, 2}, Dst: [4]byte{100, 64, 1, 3}}
	testUDP      = UDP{SrcPort: 67, DstPort: 68}
)

func testFrame(payload []byte) []byte {
	e, ip, u := testEthernet, testIP, testUDP
	return AppendUDP(nil, &e, &ip, &u, payload)
}

// parse goes all the way down.
func parse(b []byte, partial bool) (e Ethernet, ip IPv4, u UDP, payload []byte, err error) {
	if e, b, err = ParseEthernet(b); err != nil {
		return
	}
	if ip, b, err = ParseIPv4(b); err != nil {
		return
	}
	u, payload, err = ParseUDP(&ip, b, partial)
	return
}

// A header whose checksum somebody else has computed.
func TestKnownHeader(t *testing.T) {
	b, err := hex.DecodeString("45000073000040004011b861c0a80001c0a800c7")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, make([]byte, 0x73-20)...)
	ip, rest, err := ParseIPv4(b)
	want := IPv4{TTL: 64, Protocol: 17, Src: [4]byte{192, 168, 0, 1}, Dst: [4]byte{192, 168, 0, 199}}
	if err != nil || ip != want || len(rest) != 0x73-20 {
		t.Errorf("got %+v, %d bytes, %v", ip, len(rest), err)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 300, 301, 1472} {
		payload := bytes.Repeat([]byte{0xa5}, n)
		b := append(testFrame(payload), "padding"...)
		e, ip, u, got, err := parse(b, false)
		wantE, wantIP := testEthernet, testIP
		wantE.Type, wantIP.Protocol = TypeIPv4, ProtocolUDP
		if err != nil || e != wantE || ip != wantIP || u != testUDP || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: got %+v %+v %+v %d bytes, %v", n, e, ip, u, len(got), err)
		}
	}
}

// A checksum that comes out as 0 is sent as its complement.
func TestChecksumZero(t *testing.T) {
	for i := range 1 << 16 {
		b := testFrame([]byte{byte(i >> 8), byte(i)})
		sum := b[EthernetLen+IPv4Len+6:][:2]
		if sum[0] == 0 && sum[1] == 0 {
			t.Fatalf("payload %#x has no checksum", i)
		}
		if sum[0] == 0xff && sum[1] == 0xff {
			if _, _, _, _, err := parse(b, false); err != nil {
				t.Error(err)
			}
			return
		}
	}
	t.Error("no payload has that checksum")
}

func TestMalformed(t *testing.T) {
	const ip, udp = EthernetLen, EthernetLen + IPv4Len
	for _, tt := range []struct {
		name  string
		spoil func(b []byte) []byte
		want  error
	}{
		{"as it should be", func(b []byte) []byte { return b }, nil},
		{"empty", func(b []byte) []byte { return nil }, ErrShort},
		{"half an Ethernet header", func(b []byte) []byte { return b[:13] }, ErrShort},
		{"half an IP header", func(b []byte) []byte { return b[:ip+19] }, ErrShort},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, ErrShort},
		{"IPv6", func(b []byte) []byte { b[ip] = 0x65; return b }, ErrHeader},
		{"header of 16 bytes", func(b []byte) []byte { b[ip] = 0x44; return b }, ErrHeader},
		{"header longer than the packet", func(b []byte) []byte { b[ip+2], b[ip+3] = 0, 19; return b }, ErrHeader},
		{"IP checksum", func(b []byte) []byte { b[ip+10]++; return b }, ErrChecksum},
		{"more fragments", func(b []byte) []byte { return reseal(b, 6, 0x20) }, ErrFragment},
		{"fragment offset", func(b []byte) []byte { return reseal(b, 7, 1) }, ErrFragment},
		{"do not fragment", func(b []byte) []byte { return reseal(b, 6, 0x40) }, nil},
		{"TCP", func(b []byte) []byte { return reseal(b, 9, 6) }, ErrProtocol},
		{"total length too long", func(b []byte) []byte { return reseal(b, 2, 1) }, ErrShort},
		{"no UDP header", func(b []byte) []byte { return reseal(b, 3, 20+7) }, ErrShort},
		{"UDP length under its header", func(b []byte) []byte { b[udp+4], b[udp+5] = 0, 7; return b }, ErrHeader},
		{"UDP length too long", func(b []byte) []byte { b[udp+5]++; return b }, ErrShort},
		{"UDP checksum", func(b []byte) []byte { b[udp+6]++; return b }, ErrChecksum},
		{"no UDP checksum", func(b []byte) []byte { b[udp+6], b[udp+7] = 0, 0; return b }, nil},
	} {
		b := tt.spoil(testFrame([]byte("hello")))
		if _, _, _, _, err := parse(b, false); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	b := testFrame([]byte("hello"))
	b[udp+6] ^= 0x55
	if _, _, _, _, err := parse(b, true); err != nil {
		t.Errorf("a checksum that the sender left out: %v", err)
	}
}

// reseal sets one byte of the IP header and makes its checksum right again.
func reseal(b []byte, at int, v byte) []byte {
	h := b[EthernetLen:][:IPv4Len]
	h[at], h[10], h[11] = v, 0, 0
	c := finish(sum(0, h))
	h[10], h[11] = byte(c>>8), byte(c)
	return b
}

func TestOptionsArePassedOver(t *testing.T) {
	b := []byte{0x46, 0, 0, 28, 0, 0, 0, 0, 9, 17, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 0, 'd', 'a', 't', 'a', 'x'}
	c := finish(sum(0, b[:24]))
	b[10], b[11] = byte(c>>8), byte(c)
	if _, rest, err := ParseIPv4(b); err != nil || string(rest) != "data" {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestNothingAllocates(t *testing.T) {
	buf := make([]byte, 0, 2000)
	payload := make([]byte, 300)
	if n := testing.AllocsPerRun(100, func() {
		e, ip, u := testEthernet, testIP, testUDP
		b := AppendUDP(buf, &e, &ip, &u, payload)
		if _, _, _, _, err := parse(b, false); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever parses is inside the input and survives being built again.
func FuzzFrame(f *testing.F) {
	f.Add(testFrame([]byte("hello")), false)
	f.Add(append(testFrame(make([]byte, 300)), 1, 2, 3), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, in []byte, partial bool) {
		in = slices.Clip(in)
		e, ip, u, payload, err := parse(in, partial)
		if err != nil {
			return
		}
		if len(payload) > len(in)-EthernetLen-IPv4Len-UDPLen {
			t.Fatalf("payload of %d bytes out of %d", len(payload), len(in))
		}
		e2, ip2, u2, payload2, err := parse(AppendUDP(nil, &e, &ip, &u, payload), false)
		e.Type = TypeIPv4
		if err != nil || e2 != e || ip2 != ip || u2 != u || !bytes.Equal(payload, payload2) {
			t.Errorf("got %+v %+v %+v %x, %v", e2, ip2, u2, payload2, err)
		}
	})
}
