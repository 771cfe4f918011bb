package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

// road is a vmd with two stock guests and a real snmpd, that the subtests below
// share: a guest takes seconds to boot.
type road struct {
	*harness.Daemon
	snmpd *testenv.MasterAgent
	disk  string // web's
	marks int    // of ready
}

// startDelay is how far apart the configuration has the guests start. A process
// that takes long to begin makes less of it.
const (
	startDelay    = 6 * time.Second
	startDelayMin = startDelay / 4
)

// TestMainRoad goes from vm.conf to rows of the vmMIB and back, with owners who
// are not root, and ends with faults of vmd's own processes.
func TestMainRoad(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	dir := harness.Dir(t)
	r := &road{snmpd: testenv.Snmpd(t), disk: harness.NewDisk(t, dir, "web.img", 16)}
	conf := fmt.Sprintf("agentx path %q\nstaggered start parallel 1 delay %d\n", r.snmpd.Socket, startDelay/time.Second) +
		roadGuest(t, "web", lab.GuestVMLinux, "panic=1 ip=dhcp", "cpus 2", fmt.Sprintf("disk %q", r.disk), "owner alice", "local interface") +
		roadGuest(t, "db", lab.GuestBzImage, "", "owner :ops")
	r.Daemon = harness.StartVMD(t, conf)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *road)
	}{
		{"starts are staggered", startsAreStaggered},
		{"table", tableIsExact},
		{"rights", rightsAreKept},
		{"hardware", hardwareIsThere},
		{"disk", diskKeepsData},
		{"console", consoleReplays},
		{"tilde dot", tildeDotLeaves},
		{"panic", panicRestarts},
		{"wait", waitSeesTheEnd},
		{"roles die under load", rolesDieUnderLoad},
		{"a guest's process dies", guestProcessDies},
		{"end", endIsGraceful},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			defer r.Use(r.Use(t))
			step.run(t, r)
		})
		if !ok {
			return // the next ones build on it
		}
	}
}

func roadGuest(t *testing.T, name, kernel, words string, lines ...string) string {
	t.Helper()
	return fmt.Sprintf("vm %q {\n\tmemory 160M\n\tboot %q\n\tinitrd %q\n\tcmdline \"console=ttyS0 quiet name=%s %s\"\n\t%s\n}\n",
		name, harness.Guest(t, kernel), harness.Guest(t, lab.GuestInitrd), name, words, strings.Join(lines, "\n\t"))
}

// ready opens a guest's console once its init reads from it, and passes over
// what was said there before. A kernel that does not listen yet drops what is
// typed.
func (r *road) ready(t *testing.T, name string) *harness.Console {
	t.Helper()
	harness.WaitFor(t, name+" to run", func() bool { // with the process that the row names
		row := r.Row(name)
		return row.State == "running" && row.PID != 0 && unix.Kill(row.PID, 0) == nil
	})
	c := r.Console(name)
	harness.WaitFor(t, name+"'s init", func() bool {
		r.marks++
		mark := fmt.Sprintf("mark %d", r.marks)
		c.Say(mark)
		return c.Reached("echo: "+mark, 3*time.Second)
	})
	return c
}

// column is a column of vmTable (RFC 7666), by the row's index.
func (r *road) column(t *testing.T, n int) map[string]any {
	t.Helper()
	oid := fmt.Sprintf("%s.1.4.1.%d", harness.VMMIB, n)
	return harness.Column(harness.Walk(t, r.snmpd, oid), oid)
}

// The second guest comes a delay after the first, in the order of the file.
func startsAreStaggered(t *testing.T, r *road) {
	web, db := r.Await("web", "running"), r.Await("db", "running")
	web = r.Row("web")
	gap := time.Duration((web.Uptime - r.Row("db").Uptime) * float64(time.Second))
	if gap < startDelayMin || gap > 10*startDelay {
		t.Errorf("db started %v after web, want about %v", gap, startDelay)
	}
	if web.ID != 1 || db.ID != 2 {
		t.Errorf("ids %d and %d", web.ID, db.ID)
	}
	r.ready(t, "web")
	r.ready(t, "db")
}

// Scripts parse this table: each column is where it always was.
func tableIsExact(t *testing.T, r *road) {
	const line = "%5s %5s %5s %7s %7s %7s %12s %8s %s\n"
	rows := r.Rows()
	out := r.Vmctl("status")
	lines := strings.SplitAfter(out, "\n")
	if want := fmt.Sprintf(line, "ID", "PID", "VCPUS", "MAXMEM", "CURMEM", "TTY", "OWNER", "STATE", "NAME"); lines[0] != want {
		t.Errorf("header %q, want %q", lines[0], want)
	}
	for i, c := range []struct{ name, cpus, owner string }{{"web", "2", "alice"}, {"db", "1", "root:ops"}} {
		row := rows[c.name]
		memory := regexp.MustCompile(`[0-9.]+[KMG]`).FindAllString(lines[i+1], 2)
		if len(memory) != 2 {
			t.Fatalf("line %q", lines[i+1])
		}
		want := fmt.Sprintf(line, fmt.Sprint(row.ID), fmt.Sprint(row.PID), c.cpus, "160M", memory[1],
			strings.TrimPrefix(row.TTY, "/dev/"), c.owner, "running", c.name)
		if lines[i+1] != want {
			t.Errorf("line\n%s, want\n%s", lines[i+1], want)
		}
	}
}

// Who may do what: web is alice's; db is the group ops', and she is in it. bob
// may use the socket; carol not even that.
func rightsAreKept(t *testing.T, r *road) {
	for _, c := range []struct {
		user, vm string
		may      bool
	}{
		{"root", "web", true}, {"alice", "web", true}, {"bob", "web", false},
		{"root", "db", true}, {"alice", "db", true}, {"bob", "db", false},
	} {
		for _, args := range [][]string{{"pause", c.vm}, {"unpause", c.vm}, {"console", c.vm}} {
			res := r.VmctlAs(c.user, args...)
			if may := res.Status == 0; may != c.may || !may && !strings.Contains(res.Stderr, "Operation not permitted") {
				t.Errorf("%s: vmctl %s: status %d: %s", c.user, args, res.Status, res.Stderr)
			}
			r.Await(c.vm, map[bool]string{true: "paused", false: "running"}[c.may && args[0] == "pause"])
		}
		if c.may {
			continue
		}
		for _, args := range [][]string{{"stop", c.vm}, {"stop", "-f", c.vm}, {"start", c.vm}, {"wait", c.vm}} {
			res := r.VmctlAs(c.user, args...)
			if res.Status != 1 || !strings.Contains(res.Stderr, "Operation not permitted") {
				t.Errorf("%s: vmctl %s: status %d: %s", c.user, args, res.Status, res.Stderr)
			}
		}
		if row := r.Row(c.vm); row.State != "running" {
			t.Errorf("after what %s tried, %s is %s", c.user, c.vm, row.State)
		}
	}
	for _, args := range [][]string{{"reload"}, {"log", "verbose"}, {"reset"}, {"load", r.Config}} {
		if res := r.VmctlAs("alice", args...); res.Status != 1 || !strings.Contains(res.Stderr, "Operation not permitted") {
			t.Errorf("alice: vmctl %s: status %d: %s", args, res.Status, res.Stderr)
		}
	}
	if res := r.VmctlAs("bob", "status"); res.Status != 0 || !strings.Contains(res.Stdout, "running") {
		t.Errorf("bob: vmctl status: %+v", res)
	}
	if res := r.VmctlAs("carol", "status"); res.Status != 1 || !strings.Contains(res.Stderr, "Permission denied") {
		t.Errorf("carol: vmctl status: %+v", res)
	}
}

// What the guest sees, and what the manager sees of it.
func hardwareIsThere(t *testing.T, r *road) {
	c, row := r.ready(t, "web"), r.Row("web")
	if got := c.Command("run nproc"); got != "2" {
		t.Errorf("the guest has %s CPUs", got)
	}
	if got := c.Command("run cat /sys/class/dmi/id/product_uuid"); !strings.EqualFold(got, row.UUID) {
		t.Errorf("the guest's uuid is %s, want %s", got, row.UUID)
	}
	if got := c.Command("run cat /sys/class/misc/hw_random/rng_current"); !strings.Contains(got, "virtio_rng") {
		t.Errorf("the guest's random number generator is %q", got)
	}
	if got := c.Command("run dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c"); got != "64" {
		t.Errorf("%s of 64 random bytes came", got)
	}
	index := fmt.Sprint(row.ID)
	harness.WaitFor(t, "web's row in the vmMIB", func() bool { return r.column(t, 2)[index] == "web" })
	if got := fmt.Sprintf("%x", r.column(t, 3)[index]); got != strings.ReplaceAll(row.UUID, "-", "") {
		t.Errorf("vmUUID is %s, want %s", got, row.UUID)
	}
	if got := r.column(t, 9)[index]; fmt.Sprint(got) != "2" {
		t.Errorf("vmCurCpuNumber is %v", got)
	}
}

// What the guest wrote is in the file, and there after a stop and a start; both
// by the owner.
func diskKeepsData(t *testing.T, r *road) {
	c, before := r.ready(t, "web"), r.Row("web")
	c.Command("fill /dev/vda 0123456789abcdef 4")
	sum := c.Command("sum /dev/vda 4")
	image, err := os.ReadFile(r.disk)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	if !bytes.Equal(image[:4<<20], want) {
		t.Error("the file does not hold what the guest wrote")
	}
	if host := sha256.Sum256(want); sum != hex.EncodeToString(host[:]) {
		t.Errorf("the guest reads back %s", sum)
	}
	if res := r.VmctlAs("alice", "stop", "-w", "web"); res.Status != 0 {
		t.Fatalf("alice: vmctl stop -w web: %+v", res)
	}
	c.Ended()
	if row := r.Row("web"); row.State != "stopped" || row.LastExit != "shut down as it was asked to" {
		t.Errorf("after an orderly stop: %+v", row)
	}
	if res := r.VmctlAs("alice", "start", "web"); res.Status != 0 {
		t.Fatalf("alice: vmctl start web: %+v", res)
	}
	if again := r.ready(t, "web").Command("sum /dev/vda 4"); again != sum {
		t.Errorf("after a restart the guest reads %s, wrote %s", again, sum)
	}
	if row := r.Row("web"); row.ID != before.ID || row.UUID != before.UUID {
		t.Errorf("after a restart: %+v, was %+v", row, before)
	}
}

// A viewer sees the last 64 KiB first; several see the same.
func consoleReplays(t *testing.T, r *road) {
	const kept = 64 << 10
	first := r.ready(t, "web")
	first.Command("run yes 0123456789abcde | head -n 4400; echo end of flood") // 16 B, and a CR
	second, third := r.Console("web"), r.ConsoleAs("alice", "web")
	seen := second.Expect("end of flood")
	if n := strings.Count(seen, "0123456789abcde\r\n"); n < (kept-200)/17 || n > kept/17 {
		t.Errorf("a new viewer saw %d lines of the last 64 KiB", n)
	}
	third.Expect("end of flood")
	third.Say("a word for all")
	for _, c := range []*harness.Console{first, second, third} {
		c.Expect("echo: a word for all")
	}
}

// On a terminal ~. leaves, and the guest does not see it.
func tildeDotLeaves(t *testing.T, r *road) {
	p := harness.NewTerminal(t)
	cmd := exec.Command(harness.Program(t, "vmctl"), "console", "db")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Slave, p.Slave, p.Slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	c := harness.NewConsole(t, "db", p.Master)
	c.Expect("Connected to " + r.Row("db").TTY)
	c.Say("typed on a terminal")
	c.Expect("echo: typed on a terminal")
	if _, err := p.Master.WriteString("\r~."); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("vmctl console: %v", err)
		}
	case <-time.After(harness.Patience):
		t.Fatal("~. does not end vmctl console")
	}
	r.Await("db", "running")
	other := r.Console("db")
	other.Say("once more")
	if got := other.Expect("echo: once more"); strings.Contains(got, "~.") {
		t.Errorf("the guest saw ~.: %q", got)
	}
}

// A guest that panics and reboots is the same VM with another process.
func panicRestarts(t *testing.T, r *road) {
	c, before := r.ready(t, "web"), r.Row("web")
	c.Say("panic")
	pid := harness.Role(t, "vm/web", before.PID)
	r.ready(t, "web")
	if row := r.Row("web"); row.ID != before.ID || row.TTY != before.TTY || row.UUID != before.UUID || row.PID != pid {
		t.Errorf("after a panic: %+v, was %+v", row, before)
	}
}

// wait ends when the guest switches itself off, and stop -f does not ask it.
func waitSeesTheEnd(t *testing.T, r *road) {
	c := r.ready(t, "db")
	done := make(chan harness.Result, 1)
	go func() { done <- r.VmctlAs("alice", "wait", "db") }()
	harness.WaitFor(t, "vmctl wait to begin", func() bool { return running(t, "wait") })
	c.Say("poweroff")
	if res := <-done; res.Status != 0 || !strings.Contains(res.Stderr, "terminated vm 2") {
		t.Errorf("vmctl wait: %+v", res)
	}
	if row := r.Await("db", "stopped"); row.LastExit != "guest powered off" {
		t.Errorf("after poweroff: %+v", row)
	}
	index := fmt.Sprint(r.Row("db").ID)
	harness.WaitFor(t, "the vmMIB to say shutdown(11)", func() bool { return fmt.Sprint(r.column(t, 6)[index]) == "11" })
	r.Vmctl("start", "db")
	r.Await("db", "running")
	if res := r.VmctlAs("alice", "stop", "-f", "db"); res.Status != 0 {
		t.Errorf("vmctl stop -f: %+v", res)
	}
	if row := r.Row("db"); row.State != "stopped" || row.LastExit == "guest powered off" {
		t.Errorf("after a stop by force: %+v", row)
	}
	r.Vmctl("start", "db")
	r.ready(t, "db")
}

// running reports whether a vmctl with this subcommand is there.
func running(t *testing.T, subcommand string) bool {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && bytes.Contains(b, []byte("vmctl\x00"+subcommand+"\x00")) {
			return true
		}
	}
	return false
}

// endIsGraceful: SIGTERM has the guests shut down.
func endIsGraceful(t *testing.T, r *road) {
	for name := range r.Rows() {
		r.ready(t, name)
	}
	before := len(r.Log())
	r.Signal(unix.SIGTERM)
	r.Stop()
	log := r.Log()[before:]
	for _, want := range []string{"vm=web", "vm=db"} {
		if n := strings.Count(log, want); n == 0 {
			t.Errorf("the log says nothing of %s", want)
		}
	}
	if strings.Contains(log, "guest switched off") || strings.Contains(log, "by force") {
		t.Errorf("guests were switched off:\n%s", log)
	}
	harness.NothingRemains(t)
}
