package parent

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/logging"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// The number of a VM's process may be another's when somebody else answers on
// the VM's socket. vmm would get leave to kill it.
func TestPidOfAnotherIsNoVMs(t *testing.T) {
	for _, tt := range []struct {
		title, name string
		ok          bool
	}{
		{"vmd: vm/web", "web", true},
		{"vmd: vm/web", "", true}, // found by its socket alone
		{"vmd: vm/web", "we", false},
		{"vmd: vm/db", "web", false},
		{"vmd: control", "", false},
		{"sleep", "web", false},
		{"sleep", "", false},
	} {
		c := exec.Command("/proc/self/exe", "-test.run=^TestSleeper$")
		c.Args[0], c.Env = tt.title, []string{"PARENT_TEST_SLEEPER=1"}
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		out.Read(make([]byte, 1)) // in the middle of exec it has no title
		f, err := openVM(c.Process.Pid, tt.name)
		if (err == nil) != tt.ok {
			t.Errorf("process %q for VM %q: %v", tt.title, tt.name, err)
		}
		if f != nil {
			f.Close()
		}
		in.Close()
		c.Wait()
	}
	if f, err := openVM(0, ""); err == nil {
		f.Close()
		t.Error("process 0 is a VM's")
	}
	if privsep.Title("vm/web") != "vmd: vm/web" {
		t.Error("titles are others by now")
	}
}

// TestSleeper is a process for others to look at.
func TestSleeper(t *testing.T) {
	if os.Getenv("PARENT_TEST_SLEEPER") == "" {
		return
	}
	os.Stdout.Write([]byte("."))
	os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// A priv that answers out of turn would have descriptors opened and kept for
// each answer.
func TestPrivAnswersOutOfTurn(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x", func(v *config.VM) { v.Enabled, v.NICs = true, make([]config.NIC, 1) })})
	m := d.expect("priv", vmop.TapOpen)
	d.send("priv", vmop.TapReady, m.ID, vmop.TapResult{VM: 1})
	d.wait(ended(d.roles["priv"]))
}

func TestPrivSendsTooManyDescriptors(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x", func(v *config.VM) { v.Enabled, v.NICs = true, make([]config.NIC, 1) })})
	m := d.expect("priv", vmop.TapOpen)
	var files []*os.File
	for range 9 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{VM: 1, Name: "tap0"}, files...)
	d.wait(ended(d.roles["priv"]))
}

// ended is closed when f was killed: its connection is at its end.
func ended(f *fake) <-chan struct{} {
	end := make(chan struct{})
	go func() {
		for m := range f.got {
			m.Close()
		}
		close(end)
	}()
	return end
}

// A control that makes up clients without end would have parent remember them.
func TestControlMakesUpClients(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	body, err := imsg.Marshal(vmop.WaitRequest{VM: vmNamed("x"), For: vmop.WaitCrashed})
	if err != nil {
		t.Fatal(err)
	}
	f := d.roles["control"]
	for i := range uint64(maxClients + 1) {
		d.join(i+1, 1)
		f.conn.Send(uint16(vmop.ClientRequest), i+1, vmop.Envelope{Client: i + 1, Type: vmop.Wait, Body: body})
	}
	d.wait(ended(f))
	d.respawned("control")
	d.on(func() {
		if len(d.p.clients)+len(d.p.pending) > 0 {
			t.Errorf("%d clients, %d requests are left of the control before", len(d.p.clients), len(d.p.pending))
		}
	})
}

// An agentx that asks for connections without end gets one at a time.
func TestAgentXAsksForManyConnections(t *testing.T) {
	d := newDaemon(t, nil)
	d.on(func() { d.p.dialling = true }) // one that takes long
	d.send("agentx", vmop.SNMPDial, 5, nil)
	for {
		m := d.expect("agentx", vmop.SNMPSetup)
		if m.ID != 5 {
			continue
		}
		if c := decoded[vmop.SNMPConfig](d, m); c.Detail == "" || len(m.Files) > 0 {
			t.Errorf("answered %+v", c)
		}
		return
	}
}

// What could not be saved because the disk was full is saved when it has room,
// although nothing has changed since.
func TestStateIsSavedWhenThereIsRoomAgain(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	d.on(func() {
		moved := d.p.paths.state + ".away"
		if err := os.Rename(d.p.paths.state, moved); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(moved, "state"))
		d.p.dirty = true
		d.p.saveState()
		if err := os.Rename(moved, d.p.paths.state); err != nil {
			t.Fatal(err)
		}
	})
	d.eventually("the state is saved", func() bool {
		_, err := os.Stat(d.p.paths.stateFile())
		return err == nil
	})
}

// Whoever owns the directory of a disk can put a link there, to any file of the
// host, once vm.conf has been read.
func TestDiskReplacedByALink(t *testing.T) {
	secret := tempFile(t, "secret")
	link := secret + ".link"
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	for _, k := range []kind{diskFile, kernelFile, initrdFile, baseFile} {
		if f, err := k.open(link); err == nil {
			f.Close()
			t.Errorf("%s: the link was followed", k.what)
		}
	}
	f, err := cdromFile.open(link) // its links are looked at here: this one is ours
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Lchown(link, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	if f, err := cdromFile.open(link); err == nil {
		f.Close()
		t.Error("cdrom: a stranger's link was followed")
	}
}

// A VM process that sends a counter page of its own before vmm does has not had
// parent keep both.
func TestSecondCounterPage(t *testing.T) {
	r := &run{id: 1}
	var first *os.File
	for range 2 {
		page, err := counters.Create("x")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.takePage(page); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = page
		}
	}
	if _, err := first.Stat(); err == nil {
		t.Error("the first is still open")
	}
	r.release(false)
}

// A control that makes up users does not have parent remember them all.
func TestControlMakesUpUsers(t *testing.T) {
	var c groupCache
	c.fill(&vmop.Peer{UID: 1<<31 + 1})
	for uid := range uint32(maxUsers) {
		c.groups[uid] = nil
	}
	c.fill(&vmop.Peer{UID: 1<<31 + 2})
	if len(c.groups) > maxUsers {
		t.Errorf("%d users are remembered", len(c.groups))
	}
}

// Signals that come faster than a file can be read do not pile up.
func TestReloadStorm(t *testing.T) {
	d := newDaemon(t, nil)
	d.on(func() {
		for range 1000 {
			d.p.readConfig(readConfig{})
		}
		if n := len(d.p.reading); n > 2 {
			t.Errorf("%d reloads wait", n)
		}
	})
	d.eventually("all is read", func() bool { return len(d.p.reading) == 0 })
}

// Who is denied something over and over, or pauses a VM over and over, does not
// fill the log; and what is not theirs is logged all the same.
func TestLogIsNotFilled(t *testing.T) {
	p := fakeParent(t)
	var log bytes.Buffer
	p.log = zerolog.New(&log)
	p.noisy = logging.Sampled(p.log)
	uid := uint32(1000)
	for range 1000 {
		p.do(registry.Log{Level: registry.Warn, Message: "denied", ID: 1, UID: &uid})
		p.do(registry.Log{Level: registry.Info, Message: "paused", ID: 2})
	}
	p.do(registry.Log{Level: registry.Error, Message: "crashed", ID: 2})
	p.do(registry.Log{Level: registry.Info, Message: "started", ID: 3})
	for word, most := range map[string]int{"denied": 100, "paused": 2 * vmLines, "crashed": 1, "started": 1} {
		if n := strings.Count(log.String(), word); n == 0 || n > most {
			t.Errorf("%q was logged %d times, want 1 to %d", word, n, most)
		}
	}
	p.do(registry.Delete{ID: 2})
	if p.lines[2] != nil {
		t.Error("a VM that is gone is still counted")
	}
}
