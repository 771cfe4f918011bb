package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// work is how much of each there is to measure. It is given by count and not by
// duration: a second may be a long time where a machine is emulated.
type work struct {
	bytes, frames, trips int
}

// patience bounds each wait for the server.
const patience = 10

// measure prints a figure a line: its name, the figure, its unit.
func (w *work) measure(address string) error {
	to, err := parse(address)
	if err != nil {
		return err
	}
	if _, err := pings(to, w.trips/10); err != nil { // neighbours get to know each other
		return fmt.Errorf("round trips: %w", err)
	}
	for _, f := range []struct {
		name, unit string
		run        func([4]byte) (float64, error)
	}{
		{"trip", "us", func(to [4]byte) (float64, error) { return pings(to, w.trips) }},
		{"from", "MB/s", w.from},
		{"to", "MB/s", w.to},
		{"frames-from", "1/s", w.framesFrom},
		{"frames-to", "1/s", w.framesTo},
	} {
		v, err := f.run(to)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		fmt.Printf("%s %.3f %s\n", f.name, v, f.unit)
	}
	return nil
}

func pingOnly(address string, trips int) error {
	to, err := parse(address)
	if err != nil {
		return err
	}
	if _, err := pings(to, trips/10); err != nil {
		return err
	}
	v, err := pings(to, trips)
	if err == nil {
		fmt.Printf("trip %.3f us\n", v)
	}
	return err
}

func parse(address string) ([4]byte, error) {
	a, err := netip.ParseAddr(address)
	if err == nil && !a.Is4() {
		err = errors.New("want an IPv4 address")
	}
	if err != nil {
		return [4]byte{}, err
	}
	return a.As4(), nil
}

func socket(kind int) (int, error) {
	s, err := unix.Socket(unix.AF_INET, kind, 0)
	if err != nil {
		return -1, err
	}
	limit := unix.Timeval{Sec: patience}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return -1, err
	}
	return s, unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
}

// pings is the time of a round trip of one small datagram, in µs, over n.
func pings(to [4]byte, n int) (float64, error) {
	s, err := socket(unix.SOCK_DGRAM)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	if err := unix.Connect(s, &unix.SockaddrInet4{Addr: to, Port: udpPort}); err != nil {
		return 0, err
	}
	b := make([]byte, smallest)
	start := time.Now()
	for range n {
		if _, err := unix.Write(s, b); err != nil {
			return 0, err
		}
		if _, err := unix.Read(s, b); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(start).Microseconds()) / float64(n), nil
}

// ask begins a stream with an order.
func ask(to [4]byte, what byte, n int) (int, error) {
	c, err := socket(unix.SOCK_STREAM)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(c, &unix.SockaddrInet4{Addr: to, Port: tcpPort}); err != nil {
		unix.Close(c)
		return -1, err
	}
	o := makeOrder(what, n)
	if _, err := unix.Write(c, o[:]); err != nil {
		unix.Close(c)
		return -1, err
	}
	return c, nil
}

// rate is how many of n there were in a second since start.
func rate(n int, start time.Time) float64 { return float64(n) / time.Since(start).Seconds() }

func (w *work) from(to [4]byte) (float64, error) {
	c, err := ask(to, orderSource, w.bytes)
	if err != nil {
		return 0, err
	}
	defer unix.Close(c)
	start := time.Now()
	err = discard(c, w.bytes)
	return rate(w.bytes, start) / 1e6, err
}

func (w *work) to(to [4]byte) (float64, error) {
	c, err := ask(to, orderSink, w.bytes)
	if err != nil {
		return 0, err
	}
	defer unix.Close(c)
	start := time.Now()
	if err := fill(c, w.bytes); err != nil {
		return 0, err
	}
	err = readFull(c, make([]byte, 1))
	return rate(w.bytes, start) / 1e6, err
}

// framesFrom counts from the first datagram to the last.
func (w *work) framesFrom(to [4]byte) (float64, error) {
	s, err := listenUDP(framePort)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	limit := unix.Timeval{Sec: patience}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return 0, err
	}
	c, err := ask(to, orderFrames, w.frames)
	if err != nil {
		return 0, err
	}
	defer unix.Close(c)
	b := make([]byte, 64)
	var start time.Time
	for i := range w.frames {
		if _, err := unix.Read(s, b); err != nil {
			return 0, fmt.Errorf("after %d: %w", i, err)
		}
		if i == 0 {
			start = time.Now()
		}
	}
	return rate(w.frames-1, start), nil
}

func (w *work) framesTo(to [4]byte) (float64, error) {
	c, err := ask(to, orderCount, w.frames)
	if err != nil {
		return 0, err
	}
	defer unix.Close(c)
	token := make([]byte, 1)
	if err := readFull(c, token); err != nil {
		return 0, err
	}
	start := time.Now()
	for sent := 0; sent < w.frames; {
		n := window / 2
		if sent == 0 {
			n = window
		}
		if n = min(n, w.frames-sent); n > 0 {
			if err := sendFrames(to, countPort, n); err != nil {
				return 0, err
			}
		}
		sent += n
		if err := readFull(c, token); err != nil {
			return 0, fmt.Errorf("after %d: %w", sent, err)
		}
	}
	// The first window was two halves: one answer is still to come.
	err = readFull(c, token)
	return rate(w.frames, start), err
}
