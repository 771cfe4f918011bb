package small

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
)

// The start script, under the shells of hosts that have no systemd.
func TestStartScript(t *testing.T) {
	for _, shell := range []string{"dash", "busybox"} {
		t.Run(shell, func(t *testing.T) { startScript(t, testenv.Tool(t, shell)) })
	}
}

func startScript(t *testing.T, shell string) {
	dir := setUp(t)
	conf := define("a", harness.Tiny(t, dir, "a", "tiny a\n", harness.TinyButton))
	d := harness.NewVMD(t, conf)
	rc := filepath.Join(dir, "vmd.rc")
	text := harness.Installed(t, "../../rc.d/vmd", dir)
	for path, text := range map[string]string{rc: text, filepath.Join(dir, "rc.conf.local"): "vmd_flags='-v -f " + d.Config + "'\n"} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(verb string, status int, want string) {
		t.Helper()
		cmd := exec.Command(shell, rc, verb)
		if strings.HasSuffix(shell, "busybox") {
			cmd.Args = []string{"busybox", "sh", rc, verb}
		}
		if r := harness.Run(t, cmd); r.Status != status || r.Stdout+r.Stderr != want {
			t.Errorf("%s: status %d, %q and %q, want %d, %q", verb, r.Status, r.Stdout, r.Stderr, status, want)
		}
	}
	run("check", 1, "vmd(failed)\n")
	run("stop", 0, "vmd(ok)\n")
	run("start", 0, "vmd(ok)\n")
	row := d.Await("a", "running")
	parent := harness.Role(t, "parent", 0)
	run("start", 0, "vmd(ok)\n") // again: nothing happens
	run("check", 0, "vmd(ok)\n")
	run("reload", 0, "vmd(ok)\n")
	if now := harness.Role(t, "parent", 0); now != parent {
		t.Errorf("the daemon was %d, is %d", parent, now)
	}
	replace(t, harness.Program(t, "vmd"))
	run("check", 0, "vmd(ok)\n")
	run("restart", 0, "vmd(ok)\nvmd(ok)\n")
	harness.Role(t, "parent", parent)
	if now := d.Await("a", "running"); now.PID != row.PID {
		t.Errorf("after a restart the guest is %+v, was %+v", now, row)
	}
	// A guest that outlived its daemon is none.
	kill(t, harness.Role(t, "parent", 0))
	harness.WaitFor(t, "the daemon to be gone", func() bool {
		for _, p := range harness.Processes(t) {
			if !strings.HasPrefix(p.Name, "vm/") {
				return false
			}
		}
		return true
	})
	run("check", 1, "vmd(failed)\n")
	run("start", 0, "vmd(ok)\n")
	if now := d.Await("a", "running"); now.PID != row.PID {
		t.Errorf("after a crash the guest is %+v, was %+v", now, row)
	}
	run("stop", 0, "vmd(ok)\n")
	noDaemon(t)
	harness.NothingRemains(t)
}

// replace puts a copy of a program in its place, as an upgrade does.
func replace(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o755)
	}
	if err == nil {
		err = unix.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}
