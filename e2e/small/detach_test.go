package small

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// detachedVMD runs vmd without -d, and ends the daemon with the test.
func detachedVMD(t *testing.T, conf string, env ...string) (*harness.Daemon, harness.Result) {
	t.Helper()
	d := harness.NewVMD(t, conf)
	cmd := exec.Command(harness.Program(t, "vmd"), "-f", d.Config)
	cmd.Env = append(os.Environ(), env...)
	return d, harness.Run(t, cmd)
}

// The exit status is there when vmctl works, and not before.
func TestDetachedVMDIsReady(t *testing.T) {
	dir := setUp(t)
	d, r := detachedVMD(t, halting(t, dir, "a"))
	if r.Status != 0 || r.Stderr != "" || r.Stdout != "" {
		t.Fatalf("vmd: %+v", r)
	}
	d.Vmctl("status")
	d.Await("a", "running")
	parent := harness.Role(t, "parent", 0)
	if sid, err := unix.Getsid(parent); err != nil || sid != parent {
		t.Errorf("session of the daemon is %d, %v; want %d", sid, err, parent)
	}
	if wd, err := os.Readlink("/proc/" + strconv.Itoa(parent) + "/cwd"); err != nil || wd != "/" {
		t.Errorf("the daemon's directory is %q, %v", wd, err)
	}
	for fd := range 2 {
		if f, err := os.Readlink("/proc/" + strconv.Itoa(parent) + "/fd/" + strconv.Itoa(fd)); err != nil || f != "/dev/null" {
			t.Errorf("descriptor %d of the daemon is %q, %v", fd, f, err)
		}
	}
	d.Vmctl("stop", "-fw", "a")
	if err := unix.Kill(parent, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	noDaemon(t)
}

// A relative path means the same to the daemon, whose directory is another, and
// so do the other options.
func TestDetachedVMDFindsRelativeFile(t *testing.T) {
	dir := setUp(t)
	d := harness.NewVMD(t, strings.ReplaceAll(halting(t, dir, "a"), "8M", "$size"))
	cmd := exec.Command(harness.Program(t, "vmd"), "-v", "-D", "size=8M", "-f", filepath.Base(d.Config))
	cmd.Dir = filepath.Dir(d.Config)
	if r := harness.Run(t, cmd); r.Status != 0 || r.Stderr != "" {
		t.Fatalf("vmd: %+v", r)
	}
	d.Await("a", "running")
	d.Vmctl("reload")
	d.Vmctl("stop", "-fw", "a")
	if err := unix.Kill(harness.Role(t, "parent", 0), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	noDaemon(t)
}

// What is in the place of the control socket is not removed, unless it is one.
func TestFileInPlaceOfTheSocketStays(t *testing.T) {
	dir := setUp(t)
	d := harness.NewVMD(t, halting(t, dir, "a"))
	path := filepath.Join(dir, "precious")
	if err := os.WriteFile(path, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-d"}, {}} {
		cmd := exec.Command(harness.Program(t, "vmd"), append(args, "-f", d.Config)...)
		cmd.Env = append(os.Environ(), "VMD_SOCKET="+path)
		r := harness.Run(t, cmd)
		if want := "vmd: make the control socket: " + path + " is there and is no socket: remove it\n"; r.Status != 1 || !strings.HasSuffix(r.Stderr, want) {
			t.Errorf("vmd %s: %+v, want %q", args, r, want)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "bytes" {
			t.Errorf("the file is %q, %v", b, err)
		}
		noDaemon(t)
	}
}

// The service manager hears of it when clients can connect (sd_notify(3)).
func TestServiceManagerHearsReady(t *testing.T) {
	dir := setUp(t)
	path := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	harness.StartVMD(t, halting(t, dir, "a"))
	if err := l.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := l.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), "READY=1") {
		t.Errorf("the manager heard %q, %v", b[:n], err)
	}
}

// Guests see their power button; these do not listen and are switched off.
func TestSIGTERMStopsGuests(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, halting(t, dir, "a", "b"))
	d.Await("a", "running")
	d.Await("b", "running")
	d.Stop()
	noDaemon(t)
	for _, want := range []string{`vm stopped detail="stopped by force" id=1 vm=a`, `vm stopped detail="stopped by force" id=2 vm=b`, "terminating"} {
		if !strings.Contains(d.Log(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

// A second SIGTERM does not wait for guests.
func TestSecondSIGTERMForces(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, halting(t, dir, "a"))
	d.Await("a", "running")
	d.Signal(unix.SIGTERM)
	harness.WaitFor(t, "the daemon to begin its end", func() bool { return strings.Contains(d.Log(), "shutting down") })
	d.Stop()
	noDaemon(t)
	if !strings.Contains(d.Log(), `guest switched off reason="stopped by force"`) {
		t.Error("the guest was not switched off by force")
	}
}
