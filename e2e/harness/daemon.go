// Package harness helps tests of the whole program: start a vmd, speak to it
// as several users, talk to its guests, walk its MIB. A test fails where a
// helper cannot do its work.
//
//	d := harness.StartVMD(t, `vm "web" { ... }`)
//	d.Vmctl("start", "web")
//	c := d.Console("web")
//	c.Expect("guest ready web")
//
// The tests run in the machine of e2e/lab, or in a private mount namespace of
// a host with a real KVM: a vmd uses its real paths there.
package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/lab"
)

// Patience bounds every wait of this package: nothing that works takes as long,
// even on an emulated machine of which others have the most.
const Patience = 3 * time.Minute

// Daemon is a vmd in the foreground.
type Daemon struct {
	Config string // path of its vm.conf

	t    testing.TB
	args []string
	env  []string              // for it and for vmctl, beside our own
	attr func(*exec.Cmd) error // what else its process is to have; may be nil
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// statePaths are what a vmd leaves behind; no test begins with them.
var statePaths = []string{"/run/vmd", "/run/vmd.sock", "/var/lib/vmd"}

// StartVMD starts vmd with conf as its vm.conf and waits until it answers.
// When the test ends, it and its guests are ended and its state removed; a
// failed test shows its log. Only one runs at a time.
func StartVMD(t testing.TB, conf string, args ...string) *Daemon {
	t.Helper()
	d := NewVMD(t, conf, args...)
	d.Start()
	return d
}

// NewVMD is StartVMD without the start, for a test that has its own way.
func NewVMD(t testing.TB, conf string, args ...string) *Daemon {
	t.Helper()
	d := &Daemon{t: t, Config: filepath.Join(Dir(t), "vm.conf"), args: args}
	d.WriteConfig(conf)
	t.Cleanup(func() {
		d.hurry()
		d.Stop()
		endGuests(t)
		endGroups(t)
		for _, p := range statePaths {
			os.RemoveAll(p)
		}
		if t.Failed() {
			t.Logf("vmd:\n%s", d.Log())
		}
	})
	return d
}

// Dir returns a folder for files of the test that vmd may use: all above it
// is searchable by everybody. It goes when the test ends.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// WriteConfig replaces vm.conf; vmd reads it when told so.
func (d *Daemon) WriteConfig(conf string) {
	d.t.Helper()
	if err := os.WriteFile(d.Config, []byte(conf), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// Start starts vmd after Stop or Kill and waits until it answers.
func (d *Daemon) Start() {
	d.t.Helper()
	cmd := exec.Command(Program(d.t, "vmd"), append([]string{"-d", "-vv", "-f", d.Config}, d.args...)...)
	cmd.Stdout, cmd.Stderr = (*logWriter)(d), (*logWriter)(d)
	cmd.Env = append(os.Environ(), d.env...)
	if d.attr != nil {
		if err := d.attr(cmd); err != nil {
			d.t.Fatal(err)
		}
	}
	// A guest outlives a vmd that was killed, with the pipe of its log.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		d.t.Fatalf("start vmd: %v", err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	d.cmd, d.done = cmd, done
	WaitFor(d.t, "vmd to answer", func() bool {
		select {
		case <-done:
			d.t.Fatalf("vmd ended at once: %v\n%s", cmd.ProcessState, d.Log())
		default:
		}
		r := d.VmctlAs("root", "status")
		return r.Status == 0 || r.Stdout != "" // without VMs it is 1
	})
}

// Use has the daemon's methods fail t, a subtest, and close their consoles with
// it. It returns the test before.
func (d *Daemon) Use(t testing.TB) testing.TB {
	before := d.t
	d.t = t
	return before
}

// PID is the number of the parent process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Signal sends a signal to the parent process.
func (d *Daemon) Signal(sig unix.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatalf("send %v to vmd: %v", sig, err)
	}
}

// Stop ends vmd in good order, guests included, and waits for it.
func (d *Daemon) Stop() { d.end(unix.SIGTERM) }

// hurry has vmd end, and not wait for guests that do not listen to their power
// button: Stop, which follows, is the second signal.
func (d *Daemon) hurry() {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(unix.SIGTERM)
	for end := time.Now().Add(time.Second); time.Now().Before(end) && !strings.Contains(d.Log(), "shutting down"); {
		time.Sleep(5 * time.Millisecond)
	}
}

// Kill ends the parent process as a crash would; guests go on.
func (d *Daemon) Kill() { d.end(unix.SIGKILL) }

func (d *Daemon) end(sig unix.Signal) {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(sig)
	select {
	case <-d.done:
	case <-time.After(Patience):
		d.t.Errorf("vmd did not end %v after %v", Patience, sig)
		d.cmd.Process.Kill()
		<-d.done
	}
	d.cmd = nil
}

// endGuests kills what a killed vmd left: every process of its program.
func endGuests(t testing.TB) {
	for _, p := range Processes(t) {
		unix.Kill(p.PID, unix.SIGKILL)
	}
}

// endGroups removes the control groups that a killed vmd left, once the guests
// in them have ended.
func endGroups(t testing.TB) {
	for _, group := range leaves() {
		WaitFor(t, group+" to be empty", func() bool {
			err := unix.Rmdir(group)
			return err == nil || errors.Is(err, unix.ENOENT)
		})
	}
}

// Log returns what vmd wrote so far.
func (d *Daemon) Log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

type logWriter Daemon

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

// Program returns the path of vmd or vmctl as built for this run.
func Program(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv(lab.ProgramsVar)
	if dir == "" {
		t.Fatalf("%s is not set: run by TestMain of package e2e", lab.ProgramsVar)
	}
	return filepath.Join(dir, name)
}

// Result is what a command printed and its exit status.
type Result struct {
	Stdout, Stderr string
	Status         int
}

// Vmctl runs vmctl as root, and fails the test if it fails. It returns its
// standard output.
func (d *Daemon) Vmctl(args ...string) string {
	d.t.Helper()
	r := d.VmctlAs("root", args...)
	if r.Status != 0 {
		d.t.Fatalf("vmctl %s: status %d: %s", strings.Join(args, " "), r.Status, r.Stderr)
	}
	return r.Stdout
}

// VmctlAs runs vmctl with the uid and the groups of a user.
func (d *Daemon) VmctlAs(name string, args ...string) Result {
	d.t.Helper()
	cmd := d.Command(args...)
	if name != "root" {
		cred, err := Credential(name)
		if err != nil {
			d.t.Fatal(err)
		}
		cmd.SysProcAttr = sysProcAttr(cred)
	}
	return Run(d.t, cmd)
}

// Command is vmctl with arguments, as root, for the test to run as it likes.
func (d *Daemon) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(Program(d.t, "vmctl"), args...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), d.env...)
	return cmd
}

// Run runs a command for as long as Patience allows.
func Run(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("run %s: %v", cmd, err)
	}
	limit := time.AfterFunc(Patience, func() { cmd.Process.Kill() })
	defer limit.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", cmd, err)
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Status: cmd.ProcessState.ExitCode()}
}

// Credential returns the ids of a user, for a process that is to be his.
func Credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of %s: %w", name, err)
	}
	cred := new(syscall.Credential)
	number := func(s string) (n uint32) {
		v, e := strconv.ParseUint(s, 10, 32)
		err = errors.Join(err, e)
		return uint32(v)
	}
	cred.Uid, cred.Gid = number(u.Uid), number(u.Gid)
	for _, id := range ids {
		cred.Groups = append(cred.Groups, number(id))
	}
	return cred, err
}

// WaitFor fails the test if cond does not become true.
func WaitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", Patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func sysProcAttr(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred}
}
