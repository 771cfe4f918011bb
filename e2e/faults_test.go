package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// restartTime is how long a role may be away. The aim is 2 s on a real machine;
// five times that in one that is emulated.
const restartTime = 10 * time.Second

// kills is how often vmm and parent are each killed under load.
const kills = 3

// rolesDieUnderLoad kills every process of vmd but the guests', while one of
// them writes to its disk. Nobody is to notice for long.
func rolesDieUnderLoad(t *testing.T, r *road) {
	load := r.ready(t, "web")
	load.Command("run touch /tmp/go; (while [ -e /tmp/go ]; do dd if=/dev/zero of=/dev/vda bs=64k count=32 conv=fsync 2>/dev/null; echo round >>/tmp/rounds; done) &")
	before := r.Rows()
	for _, role := range []string{"agentx", "control", "priv"} {
		die(t, r, role, func() {
			old := harness.Role(t, role, 0)
			if err := unix.Kill(old, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			harness.Role(t, role, old)
		}, before)
	}
	for range kills {
		die(t, r, "vmm", func() {
			old := harness.Role(t, "vmm", 0)
			if err := unix.Kill(old, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			harness.Role(t, "vmm", old)
		}, before)
		die(t, r, "parent", func() {
			r.Kill()
			r.Start()
		}, before)
	}
	c := r.ready(t, "web")
	c.Command("run rm /tmp/go; wait")
	if got := c.Command("run wc -l </tmp/rounds"); got == "0" {
		t.Error("the load did nothing")
	}
}

// die kills by what, and fails the test unless vmctl, SNMP and consoles work
// again soon, for the same guests.
func die(t *testing.T, r *road, what string, kill func(), before map[string]harness.Row) {
	t.Helper()
	start := time.Now()
	kill()
	harness.WaitFor(t, "vmctl after the end of "+what, func() bool { return r.VmctlAs("alice", "status").Status == 0 })
	harness.WaitFor(t, "SNMP after the end of "+what, func() bool { return len(r.column(t, 2)) == len(before) })
	if took := time.Since(start); took > restartTime {
		t.Errorf("%s was away for %v", what, took)
	}
	for name, was := range before {
		is := r.Await(name, was.State)
		if is.ID != was.ID || is.PID != was.PID || is.TTY != was.TTY || is.UUID != was.UUID {
			t.Errorf("after the end of %s, %s is %+v, was %+v", what, name, is, was)
		}
		if got := fmt.Sprint(r.column(t, 6)[fmt.Sprint(was.ID)]); got != "4" {
			t.Errorf("after the end of %s, vmOperState of %s is %s, want running(4)", what, name, got)
		}
	}
	harness.WaitFor(t, "consoles after the end of "+what, func() bool { return r.VmctlAs("alice", "console", "web").Status == 0 })
	c := r.Console("web")
	c.Say("alive after " + what)
	c.Expect("echo: alive after " + what)
}

// guestProcessDies: the row says crashed(12), the manager still wants it
// running, and nothing of it is left.
func guestProcessDies(t *testing.T, r *road) {
	web, db := r.Row("web"), r.Row("db")
	if err := unix.Kill(db.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	row := r.Await("db", "crashed")
	if row.PID != 0 || row.TTY != "" {
		t.Errorf("after its end: %+v", row)
	}
	index := fmt.Sprint(db.ID)
	harness.WaitFor(t, "the vmMIB to say crashed(12)", func() bool { return fmt.Sprint(r.column(t, 6)[index]) == "12" })
	if got := fmt.Sprint(r.column(t, 5)[index]); got != "1" {
		t.Errorf("vmAdminState is %s, want running(1)", got)
	}
	if is := r.Row("web"); is.PID != web.PID || is.State != "running" {
		t.Errorf("web was %+v, is %+v", web, is)
	}
	want := fmt.Sprintf("/vmd/%d", web.ID)
	harness.WaitFor(t, "db's things to go", func() bool {
		for _, left := range harness.Remains(t) {
			if left != fmt.Sprintf("/run/vmd/vm/%d", web.ID) && left != "process vm/web" && !strings.HasSuffix(left, want) {
				return false
			}
		}
		return true
	})
	r.Vmctl("start", "db")
	r.ready(t, "db")
}
