package subagent

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// A filter is given each PDU that passes a proxy, and writes what comes out at the
// other end. An error ends the connection. It is called by one goroutine for each
// direction.
type filter func(fromMaster bool, pdu []byte, out io.Writer) error

// pass is the filter of a proxy that is not there.
func pass(_ bool, pdu []byte, out io.Writer) error {
	_, err := out.Write(pdu)
	return err
}

// errCut is what a filter returns to end a connection.
var errCut = errors.New("cut")

// proxy stands between the role and snmpd.
type proxy struct {
	t      testing.TB
	path   string
	master string

	mu     sync.Mutex
	filter func() filter // makes one for a connection
	ends   []net.Conn
	count  int // connections so far
	work   sync.WaitGroup
}

// newProxy makes the role of h come to snmpd through a proxy.
func newProxy(h *testHost, f func() filter) *proxy {
	h.t.Helper()
	p := &proxy{t: h.t, path: filepath.Join(h.snmpd.Dir, "proxy"), master: h.snmpd.Socket, filter: f}
	l, err := net.Listen("unix", p.path)
	if err != nil {
		h.t.Fatal(err)
	}
	p.work.Go(func() { p.accept(l) })
	h.t.Cleanup(func() {
		l.Close()
		p.cut()
		p.work.Wait()
	})
	h.mu.Lock()
	h.dial = p.path
	h.mu.Unlock()
	return p
}

func (p *proxy) accept(l net.Listener) {
	for {
		here, err := l.Accept()
		if err != nil {
			return
		}
		there, err := net.Dial("unix", p.master)
		if err != nil {
			here.Close()
			continue
		}
		p.mu.Lock()
		f := p.filter()
		p.count++
		p.ends = append(p.ends, here, there)
		p.mu.Unlock()
		p.work.Go(func() { forward(true, there, here, f) })
		p.work.Go(func() { forward(false, here, there, f) })
	}
}

// forward moves PDUs until an end of the connection is closed; then it closes both.
func forward(fromMaster bool, from, to net.Conn, f filter) {
	defer from.Close()
	defer to.Close()
	for {
		pdu, err := readPDU(from)
		if err != nil || f(fromMaster, pdu, to) != nil {
			return
		}
	}
}

// readPDU reads a header and as much as it says comes behind it (RFC 2741, 6.1).
func readPDU(r io.Reader) ([]byte, error) {
	pdu := make([]byte, 20, 512)
	if _, err := io.ReadFull(r, pdu); err != nil {
		return nil, err
	}
	size := orderOf(pdu).Uint32(pdu[16:])
	if size > 1<<20 {
		return nil, errCut
	}
	pdu = append(pdu, make([]byte, size)...)
	_, err := io.ReadFull(r, pdu[20:])
	return pdu, err
}

func orderOf(pdu []byte) binary.ByteOrder {
	if pdu[2]&0x10 != 0 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// use changes the filter; connections that have another end.
func (p *proxy) use(f func() filter) {
	p.mu.Lock()
	p.filter = f
	p.mu.Unlock()
	p.cut()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.ends {
		c.Close()
	}
	p.ends = nil
}

// connections is how often the role has come so far.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// always is a maker of filters that all are f.
func always(f filter) func() filter { return func() filter { return f } }
