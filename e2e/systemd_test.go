package e2e

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// TestSystemdLimits: guests have their limits, and keep them and their lives
// while their daemon is started again, on a kernel with all controllers of
// control groups. What else the service does, e2e/small tests everywhere.
func TestSystemdLimits(t *testing.T) {
	dir := harness.Dir(t)
	define := func(name string) string {
		kernel := harness.Tiny(t, dir, name, "tiny "+name+"\n", harness.TinyButton)
		return fmt.Sprintf("vm %q {\n\tmemory 8M\n\tboot %q\n\tlimit { cpu 150%% memory-high 64M }\n}\n", name, kernel)
	}
	a, b := define("a"), define("b")
	s := harness.NewService(t, "..", a)
	s.Boot()
	limited(t, s, "a")
	s.Kept("a", func() {
		if err := unix.Kill(harness.Role(t, "parent", 0), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	})
	s.Kept("a", func() { s.Systemctl("restart", "vmd") })
	s.WriteConfig(a + b)
	s.Systemctl("reload", "vmd")
	for _, name := range []string{"a", "b"} {
		limited(t, s, name)
	}
	s.Systemctl("poweroff")
	s.Ended()
	if left := harness.Remains(t); len(left) > 0 || len(harness.Processes(t)) > 0 {
		t.Errorf("left behind: %s, %v", left, harness.Processes(t))
	}
}

// limited fails the test unless a guest has the control group of its own that
// its definition asks for.
func limited(t *testing.T, s *harness.Service, name string) {
	t.Helper()
	row := s.Await(name, "running")
	group := s.Group(harness.Role(t, "vm/"+name, 0))
	if want := fmt.Sprintf("/system.slice/vmd-guests.service/vmd/%d", row.ID); group != want {
		t.Errorf("VM %s is in %s, want %s", name, group, want)
	}
	for file, want := range map[string]string{"cpu.max": "150000 100000", "memory.high": "67108864"} {
		if got := s.Setting(group, file); got != want {
			t.Errorf("%s of VM %s is %q, want %q", file, name, got, want)
		}
	}
}
