package privsep

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/testenv"
)

// The user that roles of the test run as, in place of _vmd.
const testID = 64999

// Messages between the test and its role processes.
const (
	msgConfined  = iota // string: what went wrong
	msgForbidden        // make a system call that nobody promised
	msgSpawn            // spawn a VM process
	msgChild            // int: its pid
)

// TestMain is the role process, when the test has spawned itself as one.
func TestMain(m *testing.M) {
	if RoleName() == "" {
		os.Exit(m.Run())
	}
	p, err := Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	p.UID, p.GID = testID, testID
	var failed string
	if err := p.Confine(); err != nil {
		failed = err.Error()
	}
	p.Parent.Send(msgConfined, 0, failed)
	msg, err := p.Parent.Recv()
	switch {
	case err != nil:
	case msg.Type == msgForbidden:
		unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) // nobody's promise
	case msg.Type == msgSpawn:
		spawnChild(p)
	}
	p.Parent.Flush()
	os.Exit(0)
}

// needConfinement skips where processes cannot be confined, or built to be.
func needConfinement(t *testing.T) {
	t.Helper()
	testenv.Root(t)
	if usesCgo {
		t.Skip("built with cgo, for the race detector perhaps; vmd never is")
	}
}

// spawnChild does what vmm does: it starts another process in its own jail,
// from what little it sees of the file system.
func spawnChild(p *Process) {
	c, err := Spawn("vm", SpawnOptions{Program: ProgramInRoot})
	if err != nil {
		p.Parent.Send(msgConfined, 0, err.Error())
		return
	}
	m, err := c.Conn.Recv()
	if err != nil {
		p.Parent.Send(msgConfined, 0, fmt.Sprintf("%v; %v", err, <-c.Exited))
		return
	}
	if string(m.Payload) != "\x60" { // the empty string in CBOR
		p.Parent.Send(msgConfined, 0, imsg.Raw(m.Payload))
		return
	}
	p.Parent.Send(msgChild, 0, c.PID)
	p.Parent.Recv() // until the test has looked
	c.Kill()
}

func spawn(t *testing.T, role string) *Child {
	t.Helper()
	c, err := Spawn(role, SpawnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Kill(); c.Conn.Close() })
	m, err := c.Conn.Recv()
	if err != nil {
		t.Fatalf("%s: %v; %v", role, err, <-c.Exited)
	}
	var failed string
	if err := imsg.Unmarshal(m.Payload, &failed); err != nil || failed != "" {
		t.Fatalf("%s: %v %s", role, err, failed)
	}
	return c
}

// status reads a field of every thread of pid out of /proc.
func status(t *testing.T, pid int, field string) []string {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		if err != nil {
			continue // a thread that has ended
		}
		for _, l := range strings.Split(string(b), "\n") {
			if v, ok := strings.CutPrefix(l, field+":"); ok {
				seen[strings.TrimSpace(v)] = true
			}
		}
	}
	var all []string
	for v := range seen {
		all = append(all, v)
	}
	sort.Strings(all)
	return all
}

func TestConfineLeavesOnlyWhatTheTableSays(t *testing.T) {
	needConfinement(t)
	for _, role := range []string{"control", "agentx", "priv", "vmm", "vm"} {
		t.Run(role, func(t *testing.T) {
			checkConfined(t, spawn(t, role).PID, Roles[role])
		})
	}
}

// A VM process is spawned by vmm, which is no longer root.
func TestVMMJailsItsChildren(t *testing.T) {
	needConfinement(t)
	c := spawn(t, "vmm")
	c.Conn.Send(msgSpawn, 0, nil)
	m, err := c.Conn.Recv()
	if err != nil {
		t.Fatalf("%v; %v", err, <-c.Exited)
	}
	if m.Type != msgChild {
		t.Fatalf("spawn: %s", m.Payload)
	}
	var pid int
	if err := imsg.Unmarshal(m.Payload, &pid); err != nil {
		t.Fatal(err)
	}
	checkConfined(t, pid, Roles["vm"])
}

func checkConfined(t *testing.T, pid int, r Role) {
	t.Helper()
	var caps uint64
	for _, v := range r.Caps {
		caps |= 1 << uint(v)
	}
	mask := fmt.Sprintf("%016x", caps)
	want := map[string]string{
		"Uid":        fmt.Sprintf("%d\t%d\t%d\t%d", testID, testID, testID, testID),
		"Gid":        fmt.Sprintf("%d\t%d\t%d\t%d", testID, testID, testID, testID),
		"Groups":     "",
		"CapEff":     mask,
		"CapPrm":     mask,
		"CapBnd":     mask,
		"CapAmb":     "0000000000000000",
		"NoNewPrivs": "1",
		"Seccomp":    "2",
	}
	for field, w := range want {
		got := status(t, pid, field)
		if len(got) != 1 || got[0] != w {
			t.Errorf("%s: got %q, want %q in every thread", field, got, w)
		}
	}
	checkRoot(t, pid, r.Root)
	checkNamespaces(t, pid, r.Namespaces)
}

func checkRoot(t *testing.T, pid int, r Root) {
	t.Helper()
	want := map[Root]string{RootEmpty: "", RootTun: "tun", RootSelf: "proc vmd"}[r]
	ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range ents {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("root: got %q, want %q", got, want)
	}
	err = os.WriteFile(fmt.Sprintf("/proc/%d/root/x", pid), nil, 0o600)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("write to the root: got %v, want %v", err, unix.EROFS)
	}
}

func checkNamespaces(t *testing.T, pid int, flags uintptr) {
	t.Helper()
	for name, flag := range map[string]uintptr{
		"mnt": unix.CLONE_NEWNS, "net": unix.CLONE_NEWNET, "ipc": unix.CLONE_NEWIPC,
		"uts": unix.CLONE_NEWUTS, "pid": unix.CLONE_NEWPID,
	} {
		ours, err1 := os.Readlink("/proc/self/ns/" + name)
		theirs, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if own := ours != theirs; own != (flags&flag != 0) {
			t.Errorf("namespace %s: own is %v", name, own)
		}
	}
}

func TestForbiddenCallEndsTheProcess(t *testing.T) {
	needConfinement(t)
	c := spawn(t, "control")
	c.Conn.Send(msgForbidden, 0, nil)
	select {
	case st := <-c.Exited:
		if st.Signal != unix.SIGSYS {
			t.Errorf("got %v, want %v", st, unix.SIGSYS)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("process lives on")
	}
}
