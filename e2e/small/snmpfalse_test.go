package small

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"vmd/e2e/harness"
)

// falseMasters are what a process may do that has the master agent's socket and
// is none. Each has a connection to itself.
var falseMasters = []func(net.Conn){
	func(c net.Conn) {}, // hangs up
	func(c net.Conn) { // talks nonsense
		var junk [4096]byte
		for i := range junk {
			junk[i] = byte(rand.Uint32())
		}
		c.Write(junk[:])
		io.Copy(io.Discard, c)
	},
	func(c net.Conn) { // asks without end, and never listens
		get := []byte{1, 5, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0} // RFC 2741, 6.2.5
		for many := bytes.Repeat(get, 1000); ; {
			if _, err := c.Write(many); err != nil {
				return
			}
		}
	},
	func(c net.Conn) { io.Copy(io.Discard, c) }, // says nothing
}

// No false master keeps vmd from anything but a session, or fills its log; and
// with a real one all is well.
func TestSNMPFalseMasters(t *testing.T) {
	dir := setUp(t)
	h := newSNMPHost(t, "", halting(t, dir, "a")+define("b", filepath.Join(dir, "a"), "disable"))
	h.await("1.2.0", int64(2))
	a := h.vmd.Await("a", "running")
	h.snmpd.Stop()
	os.Remove(h.snmpd.Socket)
	l, err := net.Listen("unix", h.snmpd.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var came atomic.Int32
	over := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := came.Add(1) - 1
			go func() { <-over; c.Close() }()
			go func() {
				defer c.Close()
				falseMasters[int(n)%len(falseMasters)](c)
			}()
		}
	}()
	for i := range len(falseMasters) {
		harness.WaitFor(t, "the next connection", func() bool { return int(came.Load()) > i })
		h.vmd.Vmctl("start", "b")
		h.vmd.Await("b", "running")
		h.vmd.Vmctl("stop", "-fw", "b")
	}
	l.Close()
	close(over)
	h.snmpd.Start()
	h.await("1.2.0", int64(2))
	if now := h.vmd.Row("a"); now.PID != a.PID || now.State != "running" {
		t.Errorf("a was %+v, is %+v", a, now)
	}
	started := func() int { return strings.Count(h.traps.Text(), ".236.0.1\t") }
	harness.WaitFor(t, "what happened to b to be told", func() bool { return started() >= len(falseMasters) })
	if n := strings.Count(h.vmd.Log(), "no session with the master agent"); n != 1 {
		t.Errorf("the loss of the session is in the log %d times", n)
	}
	if n := strings.Count(h.vmd.Log(), "agentx:"); n > 40 {
		t.Errorf("%d lines of agentx in the log", n)
	}
}
