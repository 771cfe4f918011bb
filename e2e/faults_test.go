package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// kills is how often vmm and parent are each killed under load.
const kills = 10

// rolesDieUnderLoad kills every process of vmd but the guests', while one of
// them writes to its disk, answers pings and has somebody at its console. Nobody
// is to notice for long, and the guests not at all.
func rolesDieUnderLoad(t *testing.T, r *road) {
	load := r.ready(t, "web")
	load.Command("run touch /tmp/go; (while [ -e /tmp/go ]; do dd if=/dev/zero of=/dev/vda bs=64k count=32 conv=fsync 2>/dev/null; echo round >>/tmp/rounds; done) &")
	before := r.Rows()
	ping := harness.NewPing(t, before["web"].Interfaces[0].Address)
	away := map[string]time.Duration{}
	for _, role := range []string{"agentx", "control", "priv"} {
		away[role] = die(t, r, role, func() { killRole(t, role) }, before)
	}
	for i := range kills {
		for _, role := range []string{"vmm", "parent"} {
			answered := ping.Answered()
			took := die(t, r, role, func() {
				if role == "vmm" {
					killRole(t, role)
					return
				}
				r.Kill()
				r.Start()
			}, before)
			away[role] = max(away[role], took)
			// The console that was there before, and the network.
			said := fmt.Sprintf("alive after the end of %s %d", role, i)
			load.Say(said)
			load.Expect("echo: " + said)
			harness.WaitFor(t, "answers to pings after the end of "+role, func() bool { return ping.Answered() > answered })
		}
	}
	reloadsUnderLoad(t, r, before)
	load.Command("run rm /tmp/go; wait")
	if got := load.Command("run wc -l </tmp/rounds"); got == "0" {
		t.Error("the load did nothing")
	}
	lost, inRow, slowest := ping.End()
	t.Logf("%d pings answered, %d lost, the slowest took %v; longest absences: %v", ping.Answered(), lost, slowest, away)
	if inRow > 1 || lost > kills/2 {
		t.Errorf("%d pings were lost, %d in a row", lost, inRow)
	}
}

// reloadsUnderLoad reads the configuration again, and some that cannot be read:
// guests that run do not notice.
func reloadsUnderLoad(t *testing.T, r *road, before map[string]harness.Row) {
	t.Helper()
	r.Vmctl("reload")
	sameRows(t, r, "a reload", before)
	bad := filepath.Join(harness.Dir(t), "bad.conf")
	if err := os.WriteFile(bad, []byte("vm \"web\" {\n\tmemory\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{bad: bad + ":2: syntax error", "/nonexistent": "No such file or directory"} {
		res := r.VmctlAs("root", "load", file)
		if res.Status != 1 || !strings.Contains(res.Stderr, want) {
			t.Errorf("vmctl load %s: %+v, want %s", file, res, want)
		}
		sameRows(t, r, "a load that failed", before)
	}
	r.Vmctl("reload")
	sameRows(t, r, "another reload", before)
}

// killRole kills the process of a role and waits for the next.
func killRole(t *testing.T, role string) {
	t.Helper()
	old := harness.Role(t, role, 0)
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Role(t, role, old)
}

// die kills by what, and fails the test unless vmctl, SNMP and consoles work
// again, for the same guests. It returns how long that took.
func die(t *testing.T, r *road, what string, kill func(), before map[string]harness.Row) time.Duration {
	t.Helper()
	start := time.Now()
	kill()
	harness.WaitFor(t, "vmctl after the end of "+what, func() bool { return r.VmctlAs("alice", "status").Status == 0 })
	sameRows(t, r, "the end of "+what, before)
	var names, states map[string]any
	harness.WaitFor(t, "SNMP after the end of "+what, func() bool {
		names, states = r.column(t, 2), r.column(t, 6)
		return len(names) == len(before) && len(states) == len(before) // the last agent may have answered yet
	})
	took := time.Since(start) // to be read: an emulated machine may be slow
	for name, was := range before {
		index := fmt.Sprint(was.ID)
		if fmt.Sprint(names[index]) != name || fmt.Sprint(states[index]) != "4" {
			t.Errorf("after the end of %s, row %s is vmName %v, vmOperState %v, want %s, running(4)", what, index, names[index], states[index], name)
		}
	}
	harness.WaitFor(t, "consoles after the end of "+what, func() bool { return r.VmctlAs("alice", "console", "web").Status == 0 })
	return took
}

// sameRows fails the test unless vmctl shows every VM as it was, and with as
// long a life.
func sameRows(t *testing.T, r *road, what string, before map[string]harness.Row) {
	t.Helper()
	after := r.Rows()
	if len(after) != len(before) {
		t.Errorf("after %s there are %d VMs, there were %d", what, len(after), len(before))
	}
	for name, was := range before {
		is := after[name]
		if is.Uptime < was.Uptime {
			t.Errorf("after %s, %s is up for %v s; it was for %v s", what, name, is.Uptime, was.Uptime)
		}
		is.Uptime, was.Uptime = 0, 0
		if diff := cmp.Diff(was, is); diff != "" {
			t.Errorf("after %s, %s is another (-was +is):\n%s", what, name, diff)
		}
	}
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
	ours := []string{fmt.Sprintf("/run/vmd/vm/%d", web.ID), "process vm/web", "tap " + web.Interfaces[0].Tap}
	want := fmt.Sprintf("/vmd/%d", web.ID) // its control group
	harness.WaitFor(t, "db's things to go", func() bool {
		for _, left := range harness.Remains(t) {
			if !slices.Contains(ours, left) && !strings.HasSuffix(left, want) {
				return false
			}
		}
		return true
	})
	r.Vmctl("start", "db")
	r.ready(t, "db")
}
