package small

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// TestScripts runs vmctl against a real vmd: the scripts of testdata/script, and
// those of vmctl that its own tests run against a fake one. What a script can do
// besides, the commands below say.
func TestScripts(t *testing.T) {
	setUp(t)
	var scripts []string
	for _, pattern := range []string{"testdata/script/*.txtar", "../../vmctl/testdata/common/*.txtar"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("no scripts in %s: %v", pattern, err)
		}
		scripts = append(scripts, names...)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) { runScript(t, script) })
	}
}

// scriptHost is a vmd of a script's own, and the kernels for its guests.
type scriptHost struct {
	t       *testing.T
	vmd     *harness.Daemon
	conf    strings.Builder
	kernels map[string]string
}

// newScriptHost starts a vmd without VMs.
func newScriptHost(t *testing.T) *scriptHost {
	t.Helper()
	return &scriptHost{t: t, kernels: tinyKernels(t), vmd: harness.StartVMD(t, "")}
}

// tinyKernels writes what scripts have guests of, by name.
func tinyKernels(t *testing.T) map[string]string {
	t.Helper()
	dir, kernels := harness.Dir(t), map[string]string{}
	for name, code := range map[string][]byte{
		"obey": harness.TinyObey, "patient": harness.TinyPatient, "fault": harness.TinyFault,
	} {
		kernels[name] = harness.Tiny(t, dir, name, "tiny\n", code)
	}
	return kernels
}

func runScript(t *testing.T, script string) {
	h := newScriptHost(t)
	public := harness.Dir(t) // users cannot search a script's own folder
	testscript.RunT(inOrder{t}, testscript.Params{
		Files: []string{script},
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(harness.Program(t, "vmctl"))+":"+os.Getenv("PATH"))
			e.Setenv("VMD_SOCKET", "/run/vmd.sock")
			e.Setenv("PUBLIC", public)
			for name, path := range h.kernels {
				e.Setenv("KERNEL_"+name, path)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"vmd": h.vmdCommand, "as": h.asCommand, "await": h.awaitCommand,
		},
	})
}

// inOrder is a test that runs its scripts one after the other: there is room
// for one vmd.
type inOrder struct{ *testing.T }

func (inOrder) Parallel()                            {}
func (t inOrder) Run(_ string, f func(testscript.T)) { f(t) }
func (inOrder) Verbose() bool                        { return testing.Verbose() }

// vmdCommand is "vmd" in scripts:
//
//	vmd vm ID NAME STATE [FIELD=VALUE …]   there is such a VM
//	vmd conf LINE …                        more lines of vm.conf
//	vmd gone                               vmd is killed, and its guests
//	vmd stale                              … and a socket without a listener is there
func (h *scriptHost) vmdCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: vmd vm|conf|gone|stale …")
	}
	switch op, args := args[0], args[1:]; op {
	case "vm":
		h.define(ts, args)
	case "conf":
		for _, line := range args {
			fmt.Fprintln(&h.conf, line)
		}
	case "gone":
		h.vmd.Kill()
		ts.Check(os.RemoveAll("/run/vmd.sock"))
	case "stale":
		h.vmd.Kill()
		ts.Check(os.RemoveAll("/run/vmd.sock"))
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: "/run/vmd.sock", Net: "unixpacket"})
		ts.Check(err)
		l.SetUnlinkOnClose(false)
		ts.Check(l.Close())
	default:
		ts.Fatalf("vmd %s: no such operation", op)
	}
}

// define adds a VM to vm.conf and brings it into a state. Fields of the fake
// vmd that only the real one can tell are left alone.
func (h *scriptHost) define(ts *testscript.TestScript, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: vmd vm id name state [field=value …]")
	}
	id, name, state := args[0], args[1], args[2]
	kernel := map[string]string{"stopping": "patient", "crashed": "fault"}[state]
	if kernel == "" {
		kernel = "obey"
	}
	var lines []string
	for _, arg := range args[3:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "kernel":
			kernel = value
		case "mem":
			lines = append(lines, "memory "+value)
		case "uid", "owner":
			lines = append(lines, "owner "+value)
		case "cpus":
			lines = append(lines, "cpus "+value)
		case "nic":
			lines = append(lines, "local interface")
		case "disk":
			lines = append(lines, fmt.Sprintf("disk %q", ts.MkAbs(value)))
		case "allow":
			lines = append(lines, "allow instance { "+strings.ReplaceAll(value, ":", " ")+" }")
		}
	}
	fmt.Fprintf(&h.conf, "vm %q {\n\tdisable\n\tboot %q\n\t%s\n}\n", name, h.kernels[kernel], strings.Join(lines, "\n\t"))
	h.vmd.WriteConfig(h.conf.String())
	h.vmd.Vmctl("reload")
	switch state {
	case "stopped":
	case "crashed":
		h.vmd.VmctlAs("root", "start", name) // which may be gone before the answer
	default:
		h.vmd.Vmctl("start", name)
	}
	switch state {
	case "paused":
		h.vmd.Vmctl("pause", name)
	case "stopping":
		h.listens(name, kernel)
		h.vmd.Vmctl("stop", name)
	}
	row := h.vmd.Await(name, state)
	if got := fmt.Sprint(row.ID); got != id {
		ts.Fatalf("vm %s has id %s, want %s: define them in order", name, got, id)
	}
	if state == "running" {
		h.listens(name, kernel)
	}
}

// listens waits until a guest that listens to its console and its power button
// does.
func (h *scriptHost) listens(name, kernel string) {
	if kernel == "obey" || kernel == "patient" {
		h.vmd.Console(name).Expect("tiny\n")
	}
}

// asCommand is "as USER PROGRAM ARG …" in scripts: exec as another user.
func (h *scriptHost) asCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: as user program [arg …]")
	}
	cred, err := harness.Credential(args[0])
	ts.Check(err)
	cmd := exec.Command(harness.Program(h.t, args[1]), args[2:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	r := harness.Run(h.t, cmd)
	io.WriteString(ts.Stdout(), r.Stdout)
	io.WriteString(ts.Stderr(), r.Stderr)
	if r.Stdout != "" {
		ts.Logf("[stdout]\n%s", r.Stdout)
	}
	if r.Stderr != "" {
		ts.Logf("[stderr]\n%s", r.Stderr)
	}
	if (r.Status == 0) == neg {
		ts.Fatalf("exit status %d", r.Status)
	}
}

// awaitCommand is "await NAME STATE" in scripts: until a VM is in a state.
// "await NAME none" is until there is no such VM.
func (h *scriptHost) awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await name state")
	}
	if args[1] == "none" {
		harness.WaitFor(h.t, "VM "+args[0]+" to go", func() bool { _, ok := h.vmd.Rows()[args[0]]; return !ok })
		return
	}
	h.vmd.Await(args[0], args[1])
}

// Several may look at a console; each comes to its end when the VM does.
func TestConsolesEndWithTheVM(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, echoing(t, dir, "a"))
	d.Await("a", "running")
	first, second := d.Console("a"), d.Console("a")
	first.Say("for both")
	first.Expect("for both")
	second.Expect("for both")
	d.Vmctl("stop", "-f", "a")
	for _, c := range []*harness.Console{first, second} {
		c.Expect("[EOT]\n")
		c.Ended()
	}
}

// The request of a wait may come after what it waits for, and is then refused;
// no more than that may go wrong.
func TestWaitSeesStop(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, define("a", harness.Tiny(t, dir, "a", "x", harness.TinyHalt), "disable"))
	const late = "waiting for vm a: cannot stop vm that is not running\n"
	for range 20 {
		d.Vmctl("start", "a")
		done := make(chan harness.Result, 1)
		go func() { done <- d.VmctlAs("root", "wait", "a") }()
		harness.WaitFor(t, "vmctl wait to begin", func() bool { return vmctlRuns(t, "wait") || len(done) > 0 })
		d.Vmctl("status") // and some time to ask
		d.Vmctl("stop", "-f", "a")
		switch r := <-done; {
		case r.Status == 0 && r.Stderr == "waiting for vm a: terminated vm 1\n":
			return
		case r.Status != 1 || r.Stderr != late:
			t.Fatalf("vmctl wait: %+v", r)
		}
	}
	t.Error("vmctl wait came late every time")
}

// vmctlRuns reports whether there is a vmctl with this subcommand.
func vmctlRuns(t *testing.T, subcommand string) bool {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), "vmctl\x00"+subcommand+"\x00") {
			return true
		}
	}
	return false
}

// gone is what vmctl says when vmd does not answer any more.
const gone = "vmctl: vmd has ended or is being restarted: see vmctl status for what came of it\n"

// A vmd that is killed while it waits with a client ends the connection.
func TestKilledInTheMiddle(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, define("a", harness.Tiny(t, dir, "a", "tiny\n", harness.TinyPatient)))
	d.Await("a", "running")
	c := d.Console("a")
	c.Expect("tiny\n")
	done := make(chan harness.Result, 1)
	go func() { done <- d.VmctlAs("root", "stop", "-w", "a") }()
	d.Await("a", "stopping") // it has been asked
	d.Signal(unix.SIGKILL)
	if r := <-done; r.Status != 1 || r.Stderr != "stopping vm a: \nvmctl: pipe closed\n"+gone {
		t.Errorf("vmctl stop -w: %+v", r)
	}
	d.Kill()
}
