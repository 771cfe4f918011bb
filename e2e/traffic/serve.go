package main

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Ports of a server. Datagrams to udpPort come back as they are, streams to
// tcpPort begin with an order.
const (
	udpPort = 7
	tcpPort = 5001
)

// order is what a stream begins with: what the server does then, and how much.
type order [9]byte

const (
	orderSink   = 's' // read so many bytes, answer with one
	orderSource = 'r' // send so many bytes
	orderFrames = 'f' // send so many datagrams to where the stream comes from
	orderCount  = 'c' // read so many datagrams, say so after each window
)

func makeOrder(what byte, n int) (o order) {
	o[0] = what
	binary.LittleEndian.PutUint64(o[1:], uint64(n))
	return o
}

func (o *order) count() int { return int(binary.LittleEndian.Uint64(o[1:])) }

// framePort is where datagrams of orderFrames go to, countPort where those of
// orderCount do.
const (
	framePort = 5002
	countPort = 5003
)

// smallest is the payload of a datagram that makes a frame of 60 bytes, the
// smallest of Ethernet.
const smallest = 18

// serve answers one client after the other, and pings at any time. The server
// has a thread each and no more: it shall cost little beside what is measured.
func serve() error {
	pong, err := listenUDP(udpPort)
	if err != nil {
		return err
	}
	go echo(pong)
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Port: tcpPort}); err != nil {
		return err
	}
	if err := unix.Listen(l, 8); err != nil {
		return err
	}
	fmt.Println("traffic ready")
	for {
		c, from, err := unix.Accept(l)
		if err != nil {
			return err
		}
		if err := carryOut(c, from.(*unix.SockaddrInet4)); err != nil {
			fmt.Println("traffic:", err)
		}
		unix.Close(c)
	}
}

func listenUDP(port int) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return -1, err
	}
	// Room for all that is sent before it is read; CAP_NET_ADMIN may ask for it.
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return -1, err
	}
	return s, unix.Bind(s, &unix.SockaddrInet4{Port: port})
}

func echo(s int) {
	b := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(s, b, 0)
		if err == nil {
			err = unix.Sendto(s, b[:n], 0, from)
		}
		if err != nil && err != unix.EINTR && err != unix.ECONNREFUSED {
			return
		}
	}
}

func carryOut(c int, from *unix.SockaddrInet4) error {
	var o order
	if err := readFull(c, o[:]); err != nil {
		return err
	}
	switch o[0] {
	case orderSink:
		if err := discard(c, o.count()); err != nil {
			return err
		}
		_, err := unix.Write(c, o[:1])
		return err
	case orderSource:
		return fill(c, o.count())
	case orderFrames:
		return sendFrames(from.Addr, framePort, o.count())
	case orderCount:
		return countFrames(c, o.count())
	}
	return fmt.Errorf("unknown order %q", o[0])
}

func readFull(c int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(c, b)
		if err == nil && n == 0 {
			err = unix.ECONNRESET
		}
		if err != nil && err != unix.EINTR {
			return err
		}
		b = b[max(0, n):]
	}
	return nil
}

// chunk is how much of a stream is read or written at once.
const chunk = 256 << 10

func discard(c, n int) error {
	b := make([]byte, chunk)
	for n > 0 {
		k, err := unix.Read(c, b[:min(n, len(b))])
		if err == nil && k == 0 {
			err = unix.ECONNRESET
		}
		if err != nil && err != unix.EINTR {
			return err
		}
		n -= max(0, k)
	}
	return nil
}

func fill(c, n int) error {
	b := make([]byte, chunk)
	for n > 0 {
		k, err := unix.Write(c, b[:min(n, len(b))])
		if err != nil && err != unix.EINTR {
			return err
		}
		n -= max(0, k)
	}
	return nil
}

func sendFrames(to [4]byte, port, n int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := unix.Connect(s, &unix.SockaddrInet4{Addr: to, Port: port}); err != nil {
		return err
	}
	b := make([]byte, smallest)
	for n > 0 {
		switch _, err := unix.Write(s, b); err {
		case nil:
			n--
		case unix.EINTR, unix.ENOBUFS:
		default:
			return err
		}
	}
	return nil
}

// Datagrams towards a server are sent window at a time, and the next half when
// it has read a half: a tap drops what its queue has no room for.
const window = 256

// countFrames reads n datagrams and writes a byte to c after each half window.
func countFrames(c, n int) error {
	s, err := listenUDP(countPort)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	one := []byte{1}
	if _, err := unix.Write(c, one); err != nil { // now they may come
		return err
	}
	b := make([]byte, 64)
	for i := 1; i <= n; i++ {
		if _, err := unix.Read(s, b); err != nil {
			return err
		}
		if i%(window/2) == 0 {
			if _, err := unix.Write(c, one); err != nil {
				return err
			}
		}
	}
	return nil
}
