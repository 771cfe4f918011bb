package small

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
)

// systemd has nothing to say about the units that make install writes, and
// enables them.
func TestInstalledUnits(t *testing.T) {
	testenv.Root(t)
	dir := install(t)
	units := filepath.Join(dir, "usr/lib/systemd/system")
	for _, name := range []string{"vmd.service", "vmd-guests.service"} {
		// Pages are found by man(1), which has not heard of them here.
		cmd := exec.Command(testenv.Tool(t, "systemd-analyze"), "verify", "--man=no", filepath.Join(units, name))
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+units+":/usr/lib/systemd/system:/lib/systemd/system")
		r := harness.Run(t, cmd)
		for line := range strings.Lines(r.Stdout + r.Stderr) {
			if strings.Contains(line, "vmd") { // and not a unit of this host's
				t.Errorf("systemd-analyze verify %s: %s", name, line)
			}
		}
	}
	cmd := exec.Command(testenv.Tool(t, "systemctl"), "--root="+dir, "enable", "vmd.service")
	if r := harness.Run(t, cmd); r.Status != 0 {
		t.Errorf("systemctl enable vmd: %+v", r)
	}
	if _, err := os.Lstat(filepath.Join(dir, "etc/systemd/system/multi-user.target.wants/vmd.service")); err != nil {
		t.Error(err)
	}
}

// install runs make install into a folder, as if that were the root, and
// returns it.
func install(t *testing.T) string {
	t.Helper()
	dir := harness.Dir(t)
	// Not DESTDIR alone: verify looks for the programs where the units say.
	cmd := exec.Command(testenv.Tool(t, "make"), "-s", "install", "OUT="+filepath.Join(dir, "out"),
		"DESTDIR=/", "PREFIX="+filepath.Join(dir, "usr"), "SYSCONFDIR="+filepath.Join(dir, "etc"))
	cmd.Dir = "../.."
	if r := harness.Run(t, cmd); r.Status != 0 {
		t.Fatalf("make install: %+v", r)
	}
	return dir
}

// What install puts there goes, and nothing else; without Go, what was built
// before is installed.
func TestUninstall(t *testing.T) {
	dir := install(t)
	run := func(target string, vars ...string) harness.Result {
		cmd := exec.Command(testenv.Tool(t, "make"), append([]string{"-s", target, "OUT=" + filepath.Join(dir, "out"), "GO=/nonexistent/go",
			"DESTDIR=" + dir, "PREFIX=/usr", "SYSCONFDIR=/etc"}, vars...)...)
		cmd.Dir = "../.."
		return harness.Run(t, cmd)
	}
	conf, own := filepath.Join(dir, "etc/vm.conf"), filepath.Join(dir, "usr/bin/other")
	for _, name := range []string{conf, own} {
		if err := os.WriteFile(name, []byte("# mine\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if r := run("install"); r.Status != 0 {
		t.Fatalf("make install without Go: %+v", r)
	}
	if r := run("uninstall"); r.Status != 0 || r.Stdout != "left: "+conf+"\n" {
		t.Errorf("make uninstall: %+v", r)
	}
	left := map[string]bool{}
	filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasPrefix(name, filepath.Join(dir, "out")) {
			left[name] = true
		}
		return err
	})
	if len(left) != 2 || !left[conf] || !left[own] {
		t.Errorf("what is left is %v", left)
	}
	if err := os.Remove(filepath.Join(dir, "out/vmd")); err != nil {
		t.Fatal(err)
	}
	if r := run("install"); r.Status == 0 || !strings.Contains(r.Stderr, "run make as a user who has Go") {
		t.Errorf("make install without Go and programs: %+v", r)
	}
}

// Every file that the manuals and the service files speak of is installed, with
// the places filled in.
func TestInstall(t *testing.T) {
	dir := install(t)
	for _, name := range []string{"usr/sbin/vmd", "usr/bin/vmctl", "usr/share/man/man8/vmd.8", "usr/share/man/man8/vmctl.8",
		"usr/share/man/man5/vm.conf.5", "etc/vm.conf", "etc/rc.d/vmd", "usr/lib/sysusers.d/vmd.conf",
		"usr/lib/systemd/system/vmd.service", "usr/lib/systemd/system/vmd-guests.service",
		"usr/share/doc/vmd/monitoring/snmpd.conf"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(b), "@SBINDIR@") || strings.Contains(string(b), "@BINDIR@") || strings.Contains(string(b), "@SYSCONFDIR@") {
			t.Errorf("%s has places that are not filled in", name)
		}
	}
}
