package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sending is a number of frames that are written to an interface as they are.
type sending struct {
	kind, source string
	count, rate  int
	answered     bool
}

// experimental is an EtherType for those who need one (IEEE 802, 9.2.4).
const experimental = 0x88b5

// frames are the kinds that there are: what follows the source address.
var frames = map[string]func(mac net.HardwareAddr) []byte{
	"plain": func(net.HardwareAddr) []byte {
		return append(binary.BigEndian.AppendUint16(nil, experimental), make([]byte, 46)...)
	},
	// As good as a request for an address, with options that never end well.
	"dhcp": func(mac net.HardwareAddr) []byte {
		return request(mac, append([]byte{99, 130, 83, 99, 53, 1, 3, 50, 4, 10, 0, 0, 1}, make([]byte, 200)...))
	},
	"broken-dhcp": func(mac net.HardwareAddr) []byte {
		options := []byte{99, 130, 83, 99, 53, 9}
		for range 100 {
			options = append(options, 50, 0xff)
		}
		return request(mac, options)
	},
}

func kinds() string { return strings.Join(slices.Sorted(maps.Keys(frames)), ", ") }

// request is an IPv4 packet with a BOOTP message to everybody (RFC 951), without
// a UDP checksum.
func request(mac net.HardwareAddr, options []byte) []byte {
	m := make([]byte, 236, 236+len(options))
	m[0], m[1], m[2] = 1, 1, 6
	copy(m[28:], mac)
	m = append(m, options...)
	b := binary.BigEndian.AppendUint16(nil, 0x0800)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+len(m)))
	copy(ip[16:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	b = append(b, ip...)
	for _, v := range []int{68, 67, 8 + len(m), 0} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return append(b, m...)
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return ^uint16(sum>>16 + sum)
}

func (s *sending) send(name string) error {
	rest, ok := frames[s.kind]
	if !ok {
		return fmt.Errorf("unknown kind %q", s.kind)
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	source := i.HardwareAddr
	if s.source != "" {
		if source, err = net.ParseMAC(s.source); err != nil {
			return err
		}
	}
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, source...)
	frame = append(frame, rest(source)...)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	protocol := uint16(0) // nothing is received
	if s.answered {
		protocol = 0x0008 // ETH_P_IP in network byte order
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index, Protocol: protocol}); err != nil {
		return err
	}
	if err := s.pace(fd, frame); err != nil || !s.answered {
		return err
	}
	return await(fd)
}

// pace writes frame as often as it is to be, in step with the rate.
func (s *sending) pace(fd int, frame []byte) error {
	start := time.Now()
	for n := 0; n < s.count; {
		_, err := unix.Write(fd, frame)
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if err == nil {
			n++
		}
		if s.rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(n) * time.Second / time.Duration(s.rate))))
		}
	}
	fmt.Printf("sent %d\n", s.count)
	return nil
}

// await prints the type of the DHCP message that comes from a server: an answer
// of ours has it first of all options (RFC 2132, 9.6).
func await(fd int) error {
	limit := unix.Timeval{Sec: patience}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	const ports, kind = 14 + 20, 14 + 20 + 8 + 236 + 4
	b := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, b)
		if err != nil {
			return err
		}
		if n > kind+2 && b[23] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(b[ports:]) == 67 && b[kind] == 53 {
			fmt.Printf("answer %d\n", b[kind+2])
			return nil
		}
	}
}
