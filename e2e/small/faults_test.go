package small

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// kills is how often a test of re-adoption kills.
const kills = 5

// sameRuns fails the test unless the VMs run as they did in before.
func sameRuns(t *testing.T, d *harness.Daemon, before map[string]harness.Row) {
	t.Helper()
	after := d.Rows()
	for name, was := range before {
		is := after[name]
		if is.ID != was.ID || is.UUID != was.UUID || is.PID != was.PID || is.TTY != was.TTY || is.State != was.State {
			t.Errorf("%s was %+v, is %+v", name, was, is)
		}
		if is.PID != 0 && unix.Kill(is.PID, 0) != nil {
			t.Errorf("%s: there is no process %d", name, is.PID)
		}
	}
}

func TestKilledRolesComeBack(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, halting(t, dir, "a", "b"))
	d.Await("a", "running")
	d.Await("b", "running")
	before := d.Rows()
	for _, role := range []string{"control", "priv", "agentx"} {
		t.Run(role, func(t *testing.T) {
			old := harness.Role(t, role, 0)
			start := time.Now()
			kill(t, old)
			harness.Role(t, role, old)
			harness.WaitFor(t, "vmctl to work", func() bool { return d.VmctlAs("alice", "status").Status == 0 })
			t.Logf("%s was away for %v", role, time.Since(start)) // the aim is 2 s on a machine of its own
			sameRuns(t, d, before)
		})
	}
	// Each role does its work again: stop, and start, which needs a tap.
	d.Vmctl("stop", "-fw", "a")
	d.Vmctl("start", "a")
	d.Await("a", "running")
}

func TestPrivKilledWhileIdleMakesTaps(t *testing.T) {
	dir := setUp(t)
	kernel := harness.Tiny(t, dir, "k", "x", harness.TinyHalt)
	d := harness.StartVMD(t, define("net", kernel, "disable", "interface tap"))
	old := harness.Role(t, "priv", 0)
	kill(t, old)
	harness.Role(t, "priv", old)
	d.Vmctl("start", "net")
	row := d.Await("net", "running")
	if len(row.Interfaces) != 1 || !exists("/sys/class/net/"+row.Interfaces[0].Tap) {
		t.Errorf("interfaces %+v", row.Interfaces)
	}
	d.Vmctl("stop", "-f", "net")
	harness.NothingRemains(t)
}

func TestKilledGuestLeavesNothing(t *testing.T) {
	dir := setUp(t)
	kernel := harness.Tiny(t, dir, "k", "x", harness.TinyHalt)
	d := harness.StartVMD(t, define("victim", kernel, "interface tap")+halting(t, dir, "other"))
	other, victim := d.Await("other", "running"), d.Await("victim", "running")
	kill(t, victim.PID)
	row := d.Await("victim", "crashed")
	if row.PID != 0 || row.TTY != "" || row.ID != victim.ID || !strings.Contains(row.LastExit, "SIGKILL") {
		t.Errorf("after the crash: %+v", row)
	}
	if exists(victim.TTY) {
		t.Errorf("%s is still there", victim.TTY)
	}
	sameRuns(t, d, map[string]harness.Row{"other": other})
	d.Vmctl("stop", "-f", "other")
	harness.NothingRemains(t)
	d.Vmctl("start", "victim")
	if row := d.Await("victim", "running"); row.ID != victim.ID || row.Interfaces[0].MAC != victim.Interfaces[0].MAC {
		t.Errorf("after a start: %+v, was %+v", row, victim)
	}
}

func TestGuestsOutliveVMM(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, echoing(t, dir, "a")+halting(t, dir, "b"))
	d.Await("a", "running")
	d.Await("b", "running")
	before := d.Rows()
	for range kills {
		old := harness.Role(t, "vmm", 0)
		kill(t, old)
		harness.Role(t, "vmm", old)
		adopted(t, d, before)
	}
	stopAdopted(t, d, "a", "b")
}

func TestGuestsOutliveParent(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, echoing(t, dir, "a")+halting(t, dir, "b"))
	d.Await("a", "running")
	d.Await("b", "running")
	before := d.Rows()
	for range kills {
		d.Kill()
		for name, row := range before {
			if err := unix.Kill(row.PID, 0); err != nil {
				t.Fatalf("%s died with its parent: %v", name, err)
			}
		}
		d.Start()
		adopted(t, d, before)
	}
	stopAdopted(t, d, "a", "b")
}

func TestGuestThatDiedUnattendedIsCrashed(t *testing.T) {
	dir := setUp(t)
	// Disabled, so that the next daemon does not start it at once.
	kernel := harness.Tiny(t, dir, "k", "x", harness.TinyHalt)
	d := harness.StartVMD(t, define("a", kernel, "disable")+halting(t, dir, "b"))
	d.Vmctl("start", "a")
	a, b := d.Await("a", "running"), d.Await("b", "running")
	d.Kill()
	kill(t, a.PID)
	d.Start()
	if row := d.Await("a", "crashed"); row.ID != a.ID || row.PID != 0 {
		t.Errorf("a is %+v, was %+v", row, a)
	}
	harness.WaitFor(t, "its control group to go", func() bool {
		return !slices.ContainsFunc(harness.Remains(t), func(left string) bool { return strings.HasSuffix(left, fmt.Sprintf("/vmd/%d", a.ID)) })
	})
	sameRuns(t, d, map[string]harness.Row{"b": b})
	d.Vmctl("start", "a")
	d.Await("a", "running")
}

// adopted fails the test unless the VMs of before are what they were, and a
// answers on its console.
func adopted(t *testing.T, d *harness.Daemon, before map[string]harness.Row) {
	t.Helper()
	for name := range before {
		d.Await(name, "running")
	}
	sameRuns(t, d, before)
	// Until its process has said hello, a VM's console is "busy, try again".
	harness.WaitFor(t, "a's console", func() bool { return d.VmctlAs("root", "console", "a").Status == 0 })
	c := d.Console("a")
	c.Say("still here")
	c.Expect("still here")
}

// stopAdopted stops VMs and wants nothing left.
func stopAdopted(t *testing.T, d *harness.Daemon, names ...string) {
	t.Helper()
	for _, name := range names {
		d.Vmctl("stop", "-fw", name)
		d.Await(name, "stopped")
	}
	harness.NothingRemains(t)
}

// echoing defines a VM that answers on its console.
func echoing(t *testing.T, dir, name string) string {
	t.Helper()
	return define(name, harness.Tiny(t, dir, name, "tiny "+name+"\n", harness.TinyEcho))
}

func TestEndings(t *testing.T) {
	dir := setUp(t)
	cases := []struct {
		name        string
		code        []byte
		state, last string
	}{
		{"off", harness.TinyPowerOff, "stopped", "guest powered off"},
		{"reset", harness.TinyReset, "crashed", "guest resets too often"},
		{"fault", harness.TinyFault, "crashed", "guest resets too often"},
	}
	var conf strings.Builder
	for _, c := range cases {
		conf.WriteString(define(c.name, harness.Tiny(t, dir, c.name, "x", c.code), "disable"))
	}
	d := harness.StartVMD(t, conf.String())
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d.VmctlAs("root", "start", c.name) // which may be gone before the answer
			if row := d.Await(c.name, c.state); row.PID != 0 || row.TTY != "" || row.LastExit != c.last {
				t.Errorf("ended as %+v, want %q", row, c.last)
			}
			harness.NothingRemains(t)
		})
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
