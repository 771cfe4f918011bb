// Package small holds tests of the whole program with guests of a few bytes,
// which run on every KVM: faults of its own processes, wrong configurations,
// hostile clients, and how it starts. What needs a guest with a kernel is in
// package e2e.
package small

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(lab.MainHere(m)) }

// setUp needs a KVM and returns a folder for the test's files.
func setUp(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	testenv.KVM(t)
	return harness.Dir(t)
}

// define is the configuration of a VM that boots kernel, with more lines.
func define(name, kernel string, lines ...string) string {
	return fmt.Sprintf("vm %q {\n\tmemory 8M\n\tboot %q\n\t%s\n}\n", name, kernel, strings.Join(lines, "\n\t"))
}

// halting defines VMs that run until they are stopped.
func halting(t *testing.T, dir string, names ...string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range names {
		b.WriteString(define(name, harness.Tiny(t, dir, name, "tiny "+name+"\n", harness.TinyHalt)))
	}
	return b.String()
}

// kill ends a process as a crash would.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// over puts source in target's place until the test ends: we are in a mount
// namespace of our own.
func over(t *testing.T, source, target string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatalf("mount %s over %s: %v", source, target, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
	if flags == 0 {
		return
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		t.Fatalf("mount %s again: %v", target, err)
	}
}

// refused fails the test unless r is a failure whose message is want and
// nothing else.
func refused(t *testing.T, r harness.Result, want string) {
	t.Helper()
	if r.Status != 1 || strings.TrimSpace(r.Stderr) != want {
		t.Errorf("status %d and\n%swant status 1 and\n%s", r.Status, r.Stderr, want)
	}
}
