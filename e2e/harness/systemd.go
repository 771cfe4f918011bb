package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
)

// Systemd is a real systemd as process 1 of namespaces of its own: it sees its
// own processes and control groups, and units of the test's choice. Of the file
// system it has what the test has, so vmctl and all of this package work.
type Systemd struct {
	Units string // folder of its units

	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	dir  string
	root string // its part of the control groups

	master *os.File // of the terminal for its messages
	said   transcript
}

// stockUnits are units of the host's systemd that a boot and a shutdown take.
// No others: a systemd in a container still sees this host's devices.
var stockUnits = []string{"basic.target", "sysinit.target", "multi-user.target", "network.target",
	"network-pre.target", "local-fs.target", "paths.target", "slices.target", "sockets.target", "timers.target",
	"shutdown.target", "umount.target", "final.target", "poweroff.target", "systemd-poweroff.service"}

// systemdPlaces are where distributions keep what is not in PATH.
var systemdPlaces = []string{"/usr/lib/systemd", "/lib/systemd"}

// bootSystemd is the last that the shell does before it becomes systemd. $1 is
// the test's folder, $2 systemd, $3 a terminal for its messages.
const bootSystemd = `set -e
mount -t proc proc /proc
umount -l /sys/fs/cgroup || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$3" /dev/console
[ -e /etc/machine-id ] || : >/etc/machine-id
mount --bind "$1/machine-id" /etc/machine-id
hostname systemd-test
exec "$2" --system --unit=multi-user.target --log-target=console --show-status=no
`

// NewSystemd prepares a systemd: the test puts its units into Units, and then
// calls Boot. When the test ends it goes, with all its processes.
func NewSystemd(t testing.TB) *Systemd {
	t.Helper()
	testenv.Root(t)
	testenv.Tool(t, "systemctl")
	s := &Systemd{t: t, dir: Dir(t)}
	s.Units = filepath.Join(s.dir, "units")
	for _, dir := range []string{s.Units, filepath.Join(s.dir, "none")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range stockUnits {
		s.Unit(name, s.stock("system/"+name))
	}
	return s
}

// stock reads a file of the host's systemd.
func (s *Systemd) stock(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.place(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

func (s *Systemd) place(name string) string {
	for _, dir := range systemdPlaces {
		if path := filepath.Join(dir, name); unix.Access(path, unix.R_OK) == nil {
			return path
		}
	}
	s.t.Fatalf("systemd has no %s in %s", name, systemdPlaces)
	return ""
}

// Unit writes a unit, or a drop-in of one.
func (s *Systemd) Unit(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.Units, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// Boot starts systemd and waits until it is up.
func (s *Systemd) Boot() {
	s.t.Helper()
	group := s.makeGroup()
	id := []byte("0123456789abcdef0123456789abcdef\n")
	if err := os.WriteFile(filepath.Join(s.dir, "machine-id"), id, 0o644); err != nil {
		s.t.Fatal(err)
	}
	master, tty, err := pty.Open()
	if err != nil {
		s.t.Fatal(err)
	}
	defer tty.Close()
	s.master = master
	go io.Copy(&s.said, master)
	none := filepath.Join(s.dir, "none")
	// unshare and not another clone flag: the namespace's root is the control
	// group that its maker is in (cgroup_namespaces(7)).
	s.cmd = exec.Command(testenv.Tool(s.t, "unshare"), "--cgroup", "--mount", "sh", "-c", bootSystemd, "sh", s.dir, s.place("systemd"), tty.Name())
	s.cmd.Env = append(os.Environ(), "container=test", "SYSTEMD_UNIT_PATH="+s.Units,
		"SYSTEMD_GENERATOR_PATH="+none, "SYSTEMD_ENVIRONMENT_GENERATOR_PATH="+none)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		UseCgroupFD: true, CgroupFD: int(group.Fd()),
	}
	s.cmd.Stdout, s.cmd.Stderr = tty, tty
	err = s.cmd.Start()
	group.Close()
	if err != nil {
		s.t.Fatalf("start systemd: %v", err)
	}
	s.done = make(chan struct{})
	go func() { s.cmd.Wait(); close(s.done) }()
	s.t.Cleanup(s.end)
	s.Up()
}

// Up waits until systemd has reached multi-user.target.
func (s *Systemd) Up() {
	s.t.Helper()
	WaitFor(s.t, "systemd to be up", func() bool {
		select {
		case <-s.done:
			s.t.Fatalf("systemd ended: %v", s.cmd.ProcessState)
		default:
		}
		return s.TrySystemctl("is-active", "multi-user.target").Status == 0
	})
}

// end kills process 1, and with it all that is in its namespace.
func (s *Systemd) end() {
	s.cmd.Process.Kill()
	<-s.done
	if s.t.Failed() {
		s.t.Logf("systemd:\n%s", s.said.text())
	}
	s.master.Close()
	WaitFor(s.t, "systemd's control groups to go", func() bool { return removeGroups(s.root) == nil })
}

// transcript keeps what is written to it.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *transcript) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Ended waits until process 1 has ended of itself.
func (s *Systemd) Ended() {
	s.t.Helper()
	WaitFor(s.t, "systemd to end", func() bool {
		select {
		case <-s.done:
			return true
		default:
			return false
		}
	})
}

// makeGroup makes a control group for all that systemd will run.
func (s *Systemd) makeGroup() *os.File {
	s.t.Helper()
	mount := cgroup2(s.t)
	for _, c := range []string{"cpu", "memory", "io", "pids"} {
		// What is missing, or another's, is missing in the test.
		_ = os.WriteFile(filepath.Join(mount, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
	s.root = filepath.Join(mount, "vmd-test-systemd-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(s.root, 0o755); err != nil {
		s.t.Fatal(err)
	}
	f, err := os.Open(s.root)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// cgroup2 is where version 2 of control groups is mounted, last if more than
// once: that one is in sight.
func cgroup2(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mount := ""
	for l := bufio.NewScanner(f); l.Scan(); {
		if f := strings.Fields(l.Text()); len(f) > 2 && f[2] == "cgroup2" {
			mount = f[1]
		}
	}
	if mount == "" {
		t.Fatal("no cgroup2 is mounted")
	}
	return mount
}

// removeGroups removes a tree of control groups that has no process.
func removeGroups(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Group is the control group of process pid, as systemd names it.
func (s *Systemd) Group(pid int) string {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, group, _ := strings.Cut(string(b), "0::")
	group, _, _ = strings.Cut(group, "\n")
	_, group, _ = strings.Cut(group, filepath.Base(s.root))
	return group
}

// Setting is a file of a control group; "" if the kernel has no such file.
func (s *Systemd) Setting(group, file string) string {
	b, err := os.ReadFile(filepath.Join(s.root, group, file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Systemctl runs systemctl, and fails the test if it fails. It returns what it
// printed.
func (s *Systemd) Systemctl(args ...string) string {
	s.t.Helper()
	r := s.TrySystemctl(args...)
	if r.Status != 0 {
		s.t.Fatalf("systemctl %s: status %d: %s%s", strings.Join(args, " "), r.Status, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// TrySystemctl runs systemctl.
func (s *Systemd) TrySystemctl(args ...string) Result {
	s.t.Helper()
	in := []string{"--target", strconv.Itoa(s.cmd.Process.Pid), "--mount", "--uts", "--ipc", "--pid", "--cgroup", "systemctl"}
	cmd := exec.Command(testenv.Tool(s.t, "nsenter"), append(in, args...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+s.Units, "SYSTEMD_PAGER=")
	return Run(s.t, cmd)
}

// Property is one of what systemctl show has of a unit.
func (s *Systemd) Property(unit, name string) string {
	s.t.Helper()
	return s.Systemctl("show", "--property="+name, "--value", unit)
}
