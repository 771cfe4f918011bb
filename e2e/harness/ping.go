package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// pingPatience is when a request that nobody has answered is lost.
	pingPatience = 20 * time.Second
	// pingPause lies between an answer and the next request.
	pingPause = 50 * time.Millisecond
)

// Ping asks a guest for echoes, one after the other, until End.
type Ping struct {
	t    testing.TB
	conn *net.IPConn
	to   *net.IPAddr
	stop chan struct{}
	done chan struct{}

	answered atomic.Int64

	// For the goroutine until done is closed.
	lost, inRow, mostInRow int
	slowest                time.Duration
	err                    error
}

// NewPing begins to ping address with ICMP (RFC 792) and waits for the first
// answer.
func NewPing(t testing.TB, address string) *Ping {
	t.Helper()
	conn, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		t.Fatalf("ping %s: %v", address, err)
	}
	p := &Ping{t: t, conn: conn, to: &net.IPAddr{IP: net.ParseIP(address)},
		stop: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	t.Cleanup(func() { p.end() })
	WaitFor(t, "an answer of "+address, func() bool { return p.answered.Load() > 0 })
	return p
}

// Answered is how many requests were answered.
func (p *Ping) Answered() int64 { return p.answered.Load() }

// End stops it. It returns how many requests were lost, how many at most in a
// row, and how long the slowest answer took.
func (p *Ping) End() (lost, inRow int, slowest time.Duration) {
	p.t.Helper()
	p.end()
	if p.err != nil {
		p.t.Fatalf("ping %v: %v", p.to, p.err)
	}
	return p.lost, p.mostInRow, p.slowest
}

func (p *Ping) end() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	<-p.done
}

func (p *Ping) run() {
	defer close(p.done)
	defer p.conn.Close()
	for seq := uint16(1); p.err == nil; seq++ {
		select {
		case <-p.stop:
			return
		case <-time.After(pingPause):
		}
		begin := time.Now()
		switch err := p.once(seq); {
		case err == nil:
			p.answered.Add(1)
			p.inRow, p.slowest = 0, max(p.slowest, time.Since(begin))
		case !errors.Is(err, os.ErrDeadlineExceeded):
			p.err = err
		case p.answered.Load() > 0: // before the first it was not there yet
			p.lost++
			p.inRow++
			p.mostInRow = max(p.mostInRow, p.inRow)
		}
	}
}

// once sends a request and waits for its answer.
func (p *Ping) once(seq uint16) error {
	id := uint16(os.Getpid())
	if _, err := p.conn.WriteToIP(echoRequest(id, seq), p.to); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(pingPatience)); err != nil {
		return err
	}
	b := make([]byte, 1500)
	for {
		n, from, err := p.conn.ReadFromIP(b)
		if err != nil {
			return err
		}
		be := binary.BigEndian
		if n >= 8 && from.IP.Equal(p.to.IP) && b[0] == 0 && be.Uint16(b[4:]) == id && be.Uint16(b[6:]) == seq {
			return nil
		}
	}
}

// echoRequest is an Echo message with its checksum (RFC 792, RFC 1071).
func echoRequest(id, seq uint16) []byte {
	b := []byte{8, 0, 0, 0, byte(id >> 8), byte(id), byte(seq >> 8), byte(seq)}
	sum := uint32(8)<<8 + uint32(id) + uint32(seq)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}
