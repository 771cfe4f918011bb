package vmm

import (
	"testing"
	"time"

	"github.com/rs/zerolog"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// world is a vmm between a test that plays parent and one that plays a VM
// process.
type world struct {
	t      *testing.T
	v      *vmm
	g      *guest
	parent *imsg.Conn
	vm     *imsg.Conn
	killed chan struct{}
}

const testID, testPID = 7, 4242

func newWorld(t *testing.T, started bool) *world {
	t.Helper()
	pair := func() (a, b *imsg.Conn) {
		fa, fb, err := imsg.Pair()
		if err != nil {
			t.Fatal(err)
		}
		a, err = imsg.New(fa)
		if err != nil {
			t.Fatal(err)
		}
		b, err = imsg.New(fb)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		return a, b
	}
	w := &world{t: t, killed: make(chan struct{}, 8)}
	mine, theirs := pair()
	w.parent = mine
	w.v = &vmm{Process: &privsep.Process{Parent: theirs, Loop: privsep.NewLoop(), Log: zerolog.Nop()}, guests: map[uint32]*guest{}}
	vmEnd, ourEnd := pair()
	w.vm = vmEnd
	page, err := counters.Create("x")
	if err != nil {
		t.Fatal(err)
	}
	w.g = &guest{v: w.v, id: testID, pid: testPID, conn: ourEnd, page: page, started: started, kill: func() { w.killed <- struct{}{} }}
	w.v.guests[testID] = w.g
	w.v.Loop.Read(theirs, w.v.handle, func(error) {})
	w.v.Loop.ReadPaced(ourEnd, pace, w.g.handle, w.g.gone)
	done := make(chan struct{})
	go func() { w.v.Loop.Run(); close(done) }()
	t.Cleanup(func() { w.v.Loop.Stop(nil); <-done })
	return w
}

// event is the next that parent hears.
func (w *world) event() (vmop.Event, int) {
	w.t.Helper()
	m := w.receive(w.parent, vmop.VMEvent)
	var e vmop.Event
	if err := imsg.Unmarshal(m.Payload, &e); err != nil {
		w.t.Fatal(err)
	}
	n := len(m.Files)
	m.Close()
	return e, n
}

func (w *world) receive(c *imsg.Conn, want vmop.Type) imsg.Msg {
	w.t.Helper()
	got := make(chan imsg.Msg, 1)
	go func() {
		if m, err := c.Recv(); err == nil {
			got <- m
		}
	}()
	select {
	case m := <-got:
		if vmop.Type(m.Type) != want {
			w.t.Fatalf("got message type %d, want %d", m.Type, want)
		}
		return m
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing came")
	}
	panic("unreachable")
}

func (w *world) exit(how string, cpu time.Duration) {
	w.v.Loop.Post(func() { w.g.exited(how, cpu) })
}

// What a VM process says, it says about itself.
func TestVMProcessCannotSpeakForAnother(t *testing.T) {
	w := newWorld(t, true)
	w.vm.Send(uint16(vmop.VMEvent), 0, vmop.Event{ID: 1, PID: 1, Kind: vmop.EventPaused})
	if e, _ := w.event(); e.ID != testID || e.PID != testPID || e.Kind != vmop.EventPaused {
		t.Errorf("got %+v", e)
	}
	w.v.Loop.Post(func() { w.g.greets = true })
	w.vm.Send(uint16(vmop.VMHello), 99, vmop.Hello{Definition: vmop.VMStartRequest{ID: 1}, PID: 1})
	m := w.receive(w.parent, vmop.VMHello)
	var h vmop.Hello
	if err := imsg.Unmarshal(m.Payload, &h); err != nil || h.Definition.ID != testID || h.PID != testPID || m.ID != testID {
		t.Errorf("got %+v, id %d, %v", h, m.ID, err)
	}
}

func TestStartedBringsTheSealedPage(t *testing.T) {
	w := newWorld(t, false)
	w.vm.Send(uint16(vmop.VMEvent), 0, vmop.Event{Kind: vmop.EventStarted})
	m := w.receive(w.parent, vmop.VMEvent)
	if len(m.Files) != 1 {
		t.Fatalf("%d descriptors, want the page", len(m.Files))
	}
	defer m.Close()
	if _, err := counters.Map(m.Files[0]); err == nil {
		t.Error("the page can still be mapped for writing")
	}
}

// Parent starts a VM again as soon as it hears of its end: by then its process
// must be gone, and with it the locks on its disks.
func TestEndIsToldWhenTheProcessIsGone(t *testing.T) {
	w := newWorld(t, true)
	w.vm.Send(uint16(vmop.VMEvent), 0, vmop.Event{Kind: vmop.EventReset, Detail: "why"})
	w.vm.Send(uint16(vmop.VMEvent), 0, vmop.Event{Kind: vmop.EventPaused}) // a mark
	if e, _ := w.event(); e.Kind != vmop.EventPaused {
		t.Fatalf("told of %+v before the process was gone", e)
	}
	w.exit("exit status 0", 3*time.Second)
	w.vm.Close()
	e, _ := w.event()
	if e.Kind != vmop.EventReset || e.Detail != "why" || e.ID != testID || e.CPU != uint64(3*time.Second) {
		t.Errorf("got %+v", e)
	}
}

func TestSilentEnds(t *testing.T) {
	for _, tt := range []struct {
		started bool
		want    vmop.EventKind
	}{{true, vmop.EventCrashed}, {false, vmop.EventFailed}} {
		w := newWorld(t, tt.started)
		w.vm.Close()
		w.exit("killed by SIGKILL", 0)
		if e, _ := w.event(); e.Kind != tt.want || e.Detail != "its process ended: killed by SIGKILL" {
			t.Errorf("started %v: got %+v, want kind %d", tt.started, e, tt.want)
		}
	}
}

func TestNonsenseCostsTheProcess(t *testing.T) {
	for name, send := range map[string]func(*imsg.Conn){
		"unknown type": func(c *imsg.Conn) { c.Send(9999, 0, nil) },
		"no payload":   func(c *imsg.Conn) { c.Send(uint16(vmop.VMEvent), 0, nil) },
		"hello twice":  func(c *imsg.Conn) { c.Send(uint16(vmop.VMHello), 0, vmop.Hello{}) },
		"start twice":  func(c *imsg.Conn) { c.Send(uint16(vmop.VMEvent), 0, vmop.Event{Kind: vmop.EventStarted}) },
		"wrong shape":  func(c *imsg.Conn) { c.Send(uint16(vmop.VMHello), 0, "hello") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, true)
			send(w.vm)
			select {
			case <-w.killed:
			case <-time.After(20 * time.Second):
				t.Fatal("the process lives on")
			}
		})
	}
}

func TestRequestsForNobody(t *testing.T) {
	w := newWorld(t, true)
	w.parent.Send(uint16(vmop.VMStop), 0, vmop.VMStopRequest{ID: 8})
	if e, _ := w.event(); e.Kind != vmop.EventError || e.Code != vmop.ErrNotRunning || e.ID != 8 {
		t.Errorf("got %+v", e)
	}
	w.parent.Send(uint16(vmop.VMAdopt), 0, vmop.VMAdoptRequest{ID: testID})
	if e, _ := w.event(); e.Kind != vmop.EventError || e.ID != testID {
		t.Errorf("adopt a VM that is here: got %+v", e)
	}
	w.parent.Send(uint16(vmop.VMPause), 0, vmop.VMID{ID: testID})
	w.receive(w.vm, vmop.VMPause)
}
