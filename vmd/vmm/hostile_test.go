package vmm

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// A last word that fills a packet must not keep parent from hearing of the end:
// with what vmm adds it would fit in none.
func TestEndIsToldHoweverLongTheLastWord(t *testing.T) {
	w := newWorld(t, true)
	long := strings.Repeat("x", imsg.MaxPayload-16)
	if err := w.vm.Send(uint16(vmop.VMEvent), 0, vmop.Event{Kind: vmop.EventPoweroff, Detail: long}); err != nil {
		t.Fatal(err)
	}
	w.vm.Send(uint16(vmop.VMEvent), 0, vmop.Event{Kind: vmop.EventPaused}) // a mark
	w.event()
	w.exit("exit status 0", 0)
	w.vm.Close()
	if e, _ := w.event(); e.Kind != vmop.EventPoweroff || len(e.Detail) > vmop.MaxDetail {
		t.Errorf("got kind %v with %d bytes of detail", e.Kind, len(e.Detail))
	}
}

// A VM process can pass its end of the connection to somebody outside, through
// the socket of a console. Its end is told all the same.
func TestEndIsToldThoughTheConnectionLivesOn(t *testing.T) {
	w := newWorld(t, true)
	w.exit("killed by SIGKILL", 0)
	if e, _ := w.event(); e.Kind != vmop.EventCrashed {
		t.Errorf("got %+v", e)
	}
}

// The descriptor of a process that has ended may be another process's by the
// time somebody is to be killed.
func TestKillOfAnEndedProcessHitsNobody(t *testing.T) {
	c := exec.Command("/proc/self/exe", "-test.run=^TestSleeper$")
	c.Env = []string{"VMM_TEST_SLEEPER=1"}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	gone := os.NewFile(uintptr(fd), "process")
	gone.Close()
	other, err := unix.PidfdOpen(c.Process.Pid, 0) // the lowest free number: the same
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if other != fd {
		t.Logf("descriptor %d was not used again, but %d", fd, other)
	}
	killPidfd(gone)
	in.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("another process: %v", err)
	}
}

// TestSleeper is the process that must not be killed.
func TestSleeper(t *testing.T) {
	if os.Getenv("VMM_TEST_SLEEPER") == "" {
		return
	}
	os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// An adopted VM process is known by what parent sent, and its end by that.
func TestAdoptedProcessEnds(t *testing.T) {
	w := newWorld(t, true)
	c := exec.Command("/proc/self/exe", "-test.run=^TestSleeper$")
	c.Env = []string{"VMM_TEST_SLEEPER=1"}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	fd, err := unix.PidfdOpen(c.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := imsg.New(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	w.parent.Send(uint16(vmop.VMAdopt), 0, vmop.VMAdoptRequest{ID: 9, PID: 1}, ours, os.NewFile(uintptr(fd), "process"))
	vm.Send(uint16(vmop.VMHello), 0, vmop.Hello{})
	w.receive(w.parent, vmop.VMHello)
	vm.Send(9999, 0, nil) // which costs it its life
	if e, _ := w.event(); e.ID != 9 || e.Kind != vmop.EventCrashed {
		t.Errorf("got %+v", e)
	}
}

// A VM process that floods us waits in its own socket: parent is not flooded,
// and takes nobody for dead.
func TestFloodWaits(t *testing.T) {
	w := newWorld(t, true)
	flood := time.Now()
	go func() {
		for w.vm.Queued() < 1000 {
			if w.vm.Send(uint16(vmop.VMEvent), 0, vmop.Event{Kind: vmop.EventPaused}) != nil {
				return
			}
		}
	}()
	const n = 40 // more than the burst
	for range pace.Burst + n {
		w.event()
	}
	if d := time.Since(flood); d < (n-1)*pace.Every {
		t.Errorf("%d messages in %v", pace.Burst+n, d)
	}
}

// A VM process that closes its connection and lives on could not be stopped.
func TestProcessWithoutAConnectionIsKilled(t *testing.T) {
	w := newWorld(t, true)
	armed := make(chan bool, 1)
	w.v.Loop.Post(func() { w.g.gone(nil); armed <- w.g.timer != nil })
	if !<-armed {
		t.Error("nobody will kill it")
	}
}

// The descriptors of viewers do not pile up before a VM process that does not
// read.
func TestViewersOfAProcessThatDoesNotRead(t *testing.T) {
	w := newWorld(t, true)
	const n = 4096 // more than a socket holds
	got := make(chan int, 1)
	w.v.Loop.Post(func() {
		for range n {
			ours, theirs, err := imsg.Pair()
			if err != nil {
				t.Error(err)
				break
			}
			ours.Close()
			m := imsg.Msg{Type: uint16(vmop.VMConsole), Files: []*os.File{theirs}}
			w.g.console(m, vmop.VMConsoleRequest{ID: testID})
			m.Close()
		}
		got <- w.g.conn.Queued()
	})
	if q := <-got; q > maxBehind {
		t.Errorf("%d viewers wait", q)
	}
}
