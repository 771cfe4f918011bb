package small

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// Every start below fails. Each says why, by name, and leaves nothing.
func TestStartsThatFail(t *testing.T) {
	dir := setUp(t)
	kernel := harness.Tiny(t, dir, "kernel", "x", harness.TinyHalt)
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("\x7fELF, and no more of it"), 0o644); err != nil {
		t.Fatal(err)
	}
	disk := harness.NewDisk(t, dir, "disk.img", 1)
	// vmd looks at what the file names; these go later.
	missing, folder := filepath.Join(dir, "missing"), filepath.Join(dir, "folder")
	for _, name := range []string{missing, folder} {
		if err := os.WriteFile(name, make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	conf := define("nokernel", missing, "disable") +
		define("garbage", garbage, "disable") +
		define("folder", folder, "disable") +
		define("nodisk", kernel, "disable", fmt.Sprintf("disk %q", missing)) +
		define("holder", kernel, "disable", fmt.Sprintf("disk %q", disk)) +
		define("locked", kernel, "disable", fmt.Sprintf("disk %q", disk)) +
		define("notqcow2", kernel, "disable", fmt.Sprintf("disk %q format qcow2", disk)) +
		define("nobridge", kernel, "disable", "interface { switch \"lan\" }") +
		fmt.Sprintf("vm \"huge\" {\n\tdisable\n\tmemory 64G\n\tboot %q\n}\n", kernel) +
		"switch \"lan\" {\n\tinterface nobridge0\n}\n"
	d := harness.StartVMD(t, conf)
	if err := errors.Join(os.Remove(missing), os.Remove(folder), os.Mkdir(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ vm, want string }{
		{"nokernel", `vmctl: start vm command failed: Cannot use the kernel: open kernel "` + missing + `": no such file or directory`},
		{"garbage", `vmctl: start vm command failed: Cannot use the kernel: `},
		{"folder", `vmctl: start vm command failed: Cannot use the kernel: kernel "` + folder + `": it is not a regular file`},
		{"nodisk", `vmctl: could not open disk image(s): open disk "` + missing + `": no such file or directory`},
		{"notqcow2", `vmctl: could not open disk image(s): disk "` + disk + `": it is no qcow2 image`},
		{"nobridge", `vmctl: start vm command failed: Cannot make a network interface: interface 0: `},
		{"huge", `vmctl: start vm command failed: Cannot allocate memory: `},
	} {
		t.Run(c.vm, func(t *testing.T) {
			startFails(t, d, c.vm, c.want)
			harness.NothingRemains(t)
		})
	}
	t.Run("locked", func(t *testing.T) {
		d.Vmctl("start", "holder")
		startFails(t, d, "locked", `vmctl: could not open disk image(s): disk "`+disk+`": it is in use by another VM or program`)
		d.Await("holder", "running")
		d.Vmctl("stop", "-fw", "holder")
		harness.NothingRemains(t)
		d.Vmctl("start", "locked")
		d.Vmctl("stop", "-fw", "locked")
	})
}

// startFails fails the test unless a start does, with a message that begins
// with want.
func startFails(t *testing.T, d *harness.Daemon, vm, want string) {
	t.Helper()
	r := d.VmctlAs("root", "start", vm)
	got := strings.TrimSpace(r.Stderr)
	t.Logf("start %s: %s", vm, got)
	if r.Status != 1 || !strings.HasPrefix(got, want) {
		t.Errorf("start %s: status %d and\n%s\nwant status 1 and\n%s", vm, r.Status, got, want)
	}
	if row := d.Row(vm); row.State != "stopped" || row.PID != 0 || row.TTY != "" {
		t.Errorf("after a start that failed: %+v", row)
	}
}

// A guest that is to be encrypted never runs in plain.
func TestEncryptionThatIsNone(t *testing.T) {
	if _, err := os.Stat("/dev/sev"); err == nil {
		t.Skip("this host has SEV")
	}
	dir := setUp(t)
	kernel := harness.Tiny(t, dir, "kernel", "x", harness.TinyHalt)
	d := harness.StartVMD(t, define("memory", kernel, "disable", "sev")+define("registers", kernel, "disable", "seves"))
	for vm, kind := range map[string]string{"memory": "SEV", "registers": "SEV-ES"} {
		startFails(t, d, vm, "vmctl: start vm command failed: SEV is not available: this host has no "+kind+
			", or it is switched off (BIOS, ccp, kvm_amd): open /dev/sev: no such file or directory")
		harness.NothingRemains(t)
	}
}

func TestKVMThatIsNone(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, define("a", harness.Tiny(t, dir, "k", "x", harness.TinyHalt), "disable"))
	const words = "vmctl: start vm command failed: Input/output error: "
	for _, c := range []struct {
		name, want string
		prepare    func(t *testing.T)
	}{
		{"missing", words + "KVM is not to be had: open /dev/kvm: no such file or directory: is kvm_amd or kvm_intel loaded, and ", withoutKVM},
		{"forbidden", words + "KVM is not to be had: open /dev/kvm: permission denied", func(t *testing.T) {
			over(t, "/dev/kvm", "/dev/kvm", unix.MS_NODEV)
		}},
		{"another device", words, func(t *testing.T) { over(t, "/dev/null", "/dev/kvm", 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.prepare(t)
			startFails(t, d, "a", c.want)
			harness.NothingRemains(t)
		})
	}
	// It was only for then.
	d.Vmctl("start", "a")
	d.Await("a", "running")
}

// withoutKVM gives the daemon a /dev that has all but kvm.
func withoutKVM(t *testing.T) {
	t.Helper()
	dir := harness.Dir(t)
	entries, err := os.ReadDir("/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "kvm" {
			continue
		}
		from, to := filepath.Join("/dev", e.Name()), filepath.Join(dir, e.Name())
		if target, err := os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		if e.IsDir() {
			err = os.Mkdir(to, 0o755)
		} else {
			err = os.WriteFile(to, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		over(t, from, to, 0)
	}
	over(t, dir, "/dev", 0)
}

// What is wrong with the file is said before vmd detaches, and by vmd -n.
func TestConfigurationsThatAreWrong(t *testing.T) {
	setUp(t)
	for _, c := range []struct{ name, conf, want string }{
		{"syntax", "vm \"a\" {\n\tmemory\n}\n", "FILE:2: syntax error"},
		{"unknown word", "vmm \"a\" {}\n", "FILE:1: syntax error"},
		{"two of one name", "vm \"a\" { disk \"/etc/passwd\" }\nvm \"a\" { disk \"/etc/passwd\" }\n", "FILE:2: vm \"a\" "},
		{"owner", "vm \"a\" {\n\tdisk \"/etc/passwd\"\n\towner nobodyknows\n}\n", "FILE:3: "},
		{"group", "vm \"a\" {\n\tdisk \"/etc/passwd\"\n\towner :nobodyknows\n}\n", "FILE:3: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, args := range [][]string{{"-n"}, {"-d"}, {}} {
				file := filepath.Join(harness.Dir(t), "vm.conf")
				if err := os.WriteFile(file, []byte(c.conf), 0o644); err != nil {
					t.Fatal(err)
				}
				r := vmd(t, nil, append(args, "-f", file)...)
				want := strings.Replace(c.want, "FILE", file, 1)
				t.Logf("%s", r.Stderr)
				if r.Status != 1 || !strings.HasPrefix(r.Stderr, want) {
					t.Errorf("vmd %s: status %d and\n%s\nwant status 1 and\n%s", args, r.Status, r.Stderr, want)
				}
				noDaemon(t)
			}
		})
	}
}

func TestArgumentsThatAreWrong(t *testing.T) {
	const usage = "usage: vmd [-dnv] [-D macro=value] [-f file]"
	for arg, want := range map[string]string{
		"-nx": "vmd: unknown option -- x\n" + usage, "--version": "vmd: unknown option -- version\n" + usage,
		"-nf": "vmd: option requires an argument -- f\n" + usage, "start": "vmd: unexpected argument \"start\"\n" + usage,
		"-h": usage,
	} {
		refused(t, vmd(t, nil, arg), want)
	}
}

func TestMissingFileGivenByName(t *testing.T) {
	setUp(t)
	r := vmd(t, nil, "-f", "/nonexistent/vm.conf")
	refused(t, r, "/nonexistent/vm.conf: open configuration: no such file or directory")
	noDaemon(t)
}

func TestUserThatIsMissing(t *testing.T) {
	dir := setUp(t)
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "_vmd:") {
			kept = append(kept, line)
		}
	}
	file, conf := filepath.Join(dir, "passwd"), filepath.Join(dir, "vm.conf")
	for name, text := range map[string]string{file: strings.Join(kept, ""), conf: ""} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	over(t, file, "/etc/passwd", 0)
	for _, args := range [][]string{{"-d"}, {}} {
		r := vmd(t, nil, append(args, "-f", conf)...)
		refused(t, r, "vmd: user _vmd does not exist: make install, or the package, creates it: user: unknown user _vmd")
		noDaemon(t)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, halting(t, dir, "a"))
	before := map[string]harness.Row{"a": d.Await("a", "running")}
	for _, args := range [][]string{{"-d"}, {}} {
		refused(t, vmd(t, nil, append(args, "-f", d.Config)...), "vmd: lock /run/vmd: another vmd is running")
		sameRuns(t, d, before)
	}
}

// Without taps there is no network, and no process to make them.
func TestTUNThatIsMissing(t *testing.T) {
	dir := setUp(t)
	conf := filepath.Join(dir, "vm.conf")
	if err := os.WriteFile(conf, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	over(t, harness.Dir(t), "/dev/net", 0)
	for _, args := range [][]string{{"-d"}, {}} {
		refused(t, vmd(t, nil, append(args, "-f", conf)...), "vmd: stat /dev/net/tun: no such file or directory: is the module tun loaded?")
		noDaemon(t)
	}
}

// A daemon is root's.
func TestDaemonNeedsRoot(t *testing.T) {
	setUp(t)
	for _, args := range [][]string{{"-d"}, {}} {
		r := vmd(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1001}}, append(args, "-f", "/dev/null")...)
		refused(t, r, "vmd: need root privileges")
	}
}

// vmd runs the daemon's program until it ends or has detached.
func vmd(t *testing.T, attr *syscall.SysProcAttr, args ...string) harness.Result {
	t.Helper()
	cmd := exec.Command(harness.Program(t, "vmd"), args...)
	cmd.SysProcAttr = attr
	return harness.Run(t, cmd)
}

// noDaemon fails the test if a process of vmd is there, or what one makes.
func noDaemon(t *testing.T) {
	t.Helper()
	harness.WaitFor(t, "all processes to end", func() bool { return len(harness.Processes(t)) == 0 })
	if exists("/run/vmd.sock") {
		t.Error("/run/vmd.sock is there")
	}
	harness.NothingRemains(t)
}
