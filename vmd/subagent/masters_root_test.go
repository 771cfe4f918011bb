package subagent

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
)

// AgentX PDU types (RFC 2741, 6.1).
const (
	pduClose    = 2
	pduTestSet  = 8
	pduResponse = 18
)

// pausing sends the role a change of the VM "web", which it has to take whatever
// its master does.
func (h *testHost) pausing(paused bool) {
	h.t.Helper()
	vm := named(3, "web")
	if paused {
		vm.State, vm.Admin = vmop.Paused, vmop.AdminPaused
	}
	h.send(vmop.SNMPPut, vm)
}

// alive fails the test if the role has ended.
func (h *testHost) alive() {
	h.t.Helper()
	if err := unix.Kill(h.role.PID, 0); err != nil {
		h.t.Fatalf("the role is gone: %v", err)
	}
}

// waits begins a test that waits for time-outs of seconds, beside others.
func waits(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long, and -short is set")
	}
	t.Parallel()
}

// A master that repeats each of its requests, as one that has lost patience does,
// gets the same answers, and a SET is made once.
func TestMasterRepeats(t *testing.T) {
	t.Parallel()
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true})
	var sets atomic.Int32
	newProxy(h, always(func(fromMaster bool, pdu []byte, out io.Writer) error {
		if fromMaster && pdu[1] == pduTestSet {
			sets.Add(1)
		}
		if fromMaster && pdu[1] != pduResponse {
			if err := pass(fromMaster, pdu, out); err != nil {
				return err
			}
		}
		return pass(fromMaster, pdu, out)
	}))
	h.begin(named(3, "web"))
	h.await("1.2.0=1")
	before := h.walk()
	h.set(0, 0, 9, 2, 10, 1)
	h.lastKept(false, true)
	h.set(0, 0, 9, 1, 10, 2)
	h.lastKept(true, false)
	if d := cmp.Diff(len(before), len(h.walk())); d != "" {
		t.Errorf("instances (-before +after):\n%s", d)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if sets.Load() != 2 || len(h.kept) != 2 {
		t.Errorf("%d SETs, kept %+v", sets.Load(), h.kept)
	}
}

// A master that reads and writes an octet a millisecond is served all the same.
func TestMasterIsSlow(t *testing.T) {
	t.Parallel()
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true})
	newProxy(h, always(func(_ bool, pdu []byte, out io.Writer) error {
		began := time.Now()
		for i := range pdu {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Millisecond)))
			if _, err := out.Write(pdu[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	}))
	h.begin(named(3, "web"))
	h.await("1.2.0=1")
	for i := range 4 {
		h.pausing(i%2 == 0)
	}
	for i := range 4 {
		if got, want := h.trap(), fmt.Sprintf("0.%d ", []int{4, 1}[i%2]); !strings.HasPrefix(got, want) {
			t.Errorf("notification %d is %s, want %s", i, got, want)
		}
	}
	if got := h.get("1.4.1.2.3", "1.4.1.6.3"); got[0] != `1.4.1.2.3="web"` || got[1] != "1.4.1.6.3=4" {
		t.Errorf("read %q", got)
	}
	h.alive()
}

// A master that takes connections and never says anything, or stops in the middle
// of something, is left for a new connection, and what happened meanwhile is told.
func TestMasterSaysNothing(t *testing.T) {
	waits(t)
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true})
	hole := always(func(bool, []byte, io.Writer) error { return nil })
	p := newProxy(h, hole)
	h.begin(named(3, "web"))
	for p.connections() < 2 { // an Open without an answer is given up
		h.alive()
		time.Sleep(10 * time.Millisecond)
	}
	h.pausing(true)
	p.use(always(pass))
	h.await("1.4.1.6.3=8")
	if got := h.trap(); !strings.HasPrefix(got, "0.4 ") {
		t.Errorf("notification %s, want vmPaused", got)
	}

	// Half of an answer, and then nothing.
	seen := p.connections()
	p.use(func() filter {
		answers := 0
		return func(fromMaster bool, pdu []byte, out io.Writer) error {
			if fromMaster {
				answers++
			}
			if fromMaster && answers > 6 {
				pdu = pdu[:len(pdu)/2]
			}
			return pass(fromMaster, pdu, out)
		}
	})
	for n := 0; p.connections() < seen+2; n++ {
		h.pausing(n%2 == 1)
		h.alive()
		time.Sleep(10 * time.Millisecond)
	}
	p.use(always(pass))
	h.pausing(false)
	h.await("1.4.1.6.3=4")
}

// A master whose words are torn up and mixed with others is left again and again,
// and does not bring the role down.
func TestMasterTalksNonsense(t *testing.T) {
	waits(t)
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true})
	seed := uint64(0)
	p := newProxy(h, func() filter {
		seed++
		return nonsense(rand.New(rand.NewPCG(7, seed)))
	})
	h.begin(named(3, "web"))
	h.client.Timeout = 50 * time.Millisecond
	for n := 0; p.connections() < 5; n++ {
		h.pausing(n%2 == 0)
		h.alive()
		h.tryGet("1.2.0", "1.4.1.2.3") // whatever comes of it
		time.Sleep(10 * time.Millisecond)
	}
	p.use(always(pass))
	h.client.Timeout = 20 * time.Second
	h.pausing(true)
	h.await("1.4.1.6.3=8")
}

// nonsense is a filter that lets some PDUs of the master through.
func nonsense(rnd *rand.Rand) filter {
	return func(fromMaster bool, pdu []byte, out io.Writer) error {
		if !fromMaster {
			return pass(fromMaster, pdu, out)
		}
		switch rnd.IntN(8) {
		case 0: // a bit is another
			pdu[rnd.IntN(len(pdu))] ^= 1 << rnd.IntN(8)
		case 1: // octets between two
			junk := make([]byte, 1+rnd.IntN(64))
			for i := range junk {
				junk[i] = byte(rnd.Uint32())
			}
			pdu = append(junk, pdu...)
		case 2: // some are missing
			pdu = pdu[:rnd.IntN(len(pdu))]
		case 3: // it is as long as can be
			orderOf(pdu).PutUint32(pdu[16:], 0xfffffffc)
		}
		return pass(fromMaster, pdu, out)
	}
}

// closing is a filter that closes the session, for a reason, instead of letting
// through the master's n-th PDU.
func closing(n int, reason byte) filter {
	return func(fromMaster bool, pdu []byte, out io.Writer) error {
		if !fromMaster {
			return pass(fromMaster, pdu, out)
		}
		if n--; n > 0 {
			return pass(fromMaster, pdu, out)
		}
		end := append([]byte(nil), pdu[:20]...)
		end[1] = pduClose
		orderOf(end).PutUint32(end[16:], 4)
		_, err := out.Write(append(end, reason, 0, 0, 0))
		return err
	}
}

// A master may close the session at any time, for any reason (RFC 2741, 6.2.2).
func TestMasterCloses(t *testing.T) {
	waits(t)
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true})
	reason := byte(0)
	p := newProxy(h, func() filter {
		reason++
		return closing(int(reason), reason)
	})
	h.begin(named(3, "web"))
	for i := 0; p.connections() < 4; i++ {
		h.pausing(i%2 == 0)
		h.alive()
		time.Sleep(10 * time.Millisecond)
	}
	p.use(always(pass))
	h.pausing(true)
	h.await("1.4.1.6.3=8")
}

// stopTime is for how long snmpd is stopped.
const stopTime = time.Minute

// A master that does nothing for a minute holds nothing up: the role takes every
// change, keeps the last 1000 notifications, and is back by itself.
func TestMasterStopsForAMinute(t *testing.T) {
	waits(t)
	const vms, kept = 1500, 1000
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true})
	var list []vmop.VM
	for i := range vms {
		list = append(list, named(uint32(i+1), fmt.Sprintf("vm%04d", i+1)))
	}
	h.begin(list...)
	h.await(fmt.Sprintf("1.2.0=%d", vms))
	h.snmpd.Signal(unix.SIGSTOP)
	over := time.NewTimer(stopTime)
	defer over.Stop()
	for _, vm := range list {
		vm.State, vm.Admin = vmop.Paused, vmop.AdminPaused
		h.send(vmop.SNMPPut, vm)
	}
	<-over.C
	h.alive()
	h.snmpd.Signal(unix.SIGCONT)
	h.await("1.4.1.6.1=8")
	h.await(fmt.Sprintf("1.4.1.6.%d=8", vms))

	// The first was under way when snmpd stopped, and may have come to it;
	// those before the last 1000 are lost; the rest comes in order.
	last, count := 0, 0
	for last < vms {
		var n int
		got := h.trap()
		if _, err := fmt.Sscanf(got, "0.4 1.4.1.2.%d=", &n); err != nil || n <= last {
			t.Fatalf("after that of VM %d comes %q", last, got)
		}
		if n > vms-kept && last != n-1 && last > vms-kept {
			t.Fatalf("after that of VM %d comes that of %d", last, n)
		}
		last = n
		count++
	}
	if count < kept {
		t.Errorf("%d notifications of the last %d", count, kept)
	}
}
