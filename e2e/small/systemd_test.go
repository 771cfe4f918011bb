package small

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// A life of the service, from the boot of its host to the shutdown.
func TestSystemd(t *testing.T) {
	dir := setUp(t)
	a := define("a", harness.Tiny(t, dir, "a", "tiny a\n", harness.TinyButton), "limit { cpu 150% memory-high 64M }")
	b := define("b", harness.Tiny(t, dir, "b", "tiny b\n", harness.TinyButton))
	s := harness.NewService(t, "../..", a)
	order := filepath.Join(dir, "order")
	s.Unit("snmpd.service", standIn(order))
	s.Unit("multi-user.target.d/snmpd.conf", "[Unit]\nWants=snmpd.service\n")
	s.Boot()

	active(t, s)
	s.Vmctl("status") // at once: it said that it is ready
	row := s.Await("a", "running")
	guest, parent := harness.Role(t, "vm/a", 0), harness.Role(t, "parent", 0)
	if got, want := s.Group(guest), fmt.Sprintf("/system.slice/vmd-guests.service/vmd/%d", row.ID); got != want {
		t.Errorf("the guest is in %s, want %s", got, want)
	}
	if got, want := s.Group(parent), "/system.slice/vmd.service"; got != want {
		t.Errorf("the daemon is in %s, want %s", got, want)
	}

	t.Run("reload", func(t *testing.T) {
		s.WriteConfig(a + b)
		s.Systemctl("reload", "vmd")
		s.Await("b", "running")
		s.WriteConfig(a + b + "vm\n")
		if r := s.TrySystemctl("reload", "vmd"); r.Status == 0 {
			t.Error("a configuration that is wrong was reloaded")
		}
		active(t, s)
		s.WriteConfig(a + b)
		s.Await("a", "running")
	})
	t.Run("crash", func(t *testing.T) {
		s.Kept("a", func() { kill(t, harness.Role(t, "parent", 0)) })
	})
	t.Run("restart", func(t *testing.T) {
		s.Kept("a", func() { s.Systemctl("restart", "vmd") })
		s.TrySystemctl("daemon-reexec") // hangs up on whoever asks
		s.Up()
		s.Kept("b", func() { s.Systemctl("try-restart", "vmd") })
	})
	t.Run("hang", func(t *testing.T) { hang(t, s) })
	t.Run("stop", func(t *testing.T) {
		s.Systemctl("stop", "vmd")
		ended(t, s)
		if got := s.Property("vmd", "Result"); got != "success" {
			t.Errorf("the service ended with %s", got)
		}
	})
	t.Run("shutdown", func(t *testing.T) {
		s.Systemctl("start", "vmd")
		s.Await("a", "running")
		s.Systemctl("poweroff")
		s.Ended()
		ended(t, s)
		got, err := os.ReadFile(order)
		if want := "no vmd at its start\nno vmd at its end\n"; string(got) != want || err != nil {
			t.Errorf("snmpd saw %q, %v, want %q", got, err, want)
		}
	})
}

// The service manager hears that the parent's loop turns (sd_watchdog_enabled(3)).
func TestServiceManagerHearsSignsOfLife(t *testing.T) {
	dir := setUp(t)
	path := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "300000")
	harness.StartVMD(t, halting(t, dir, "a"))
	if err := l.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if n, err := l.Read(b); err != nil || string(b[:n]) != want {
			t.Fatalf("the manager heard %q, %v, want %s", b[:n], err, want)
		}
	}
}

// standIn is a unit for snmpd, which writes down that vmd ran neither before nor
// after it.
func standIn(order string) string {
	note := "/bin/sh -c 'test -e /run/vmd.sock || echo no vmd at its %s >>" + order + "'\n"
	return "[Service]\nType=oneshot\nRemainAfterExit=yes\n" +
		"ExecStart=" + fmt.Sprintf(note, "start") + "ExecStop=" + fmt.Sprintf(note, "end")
}

func active(t *testing.T, s *harness.Service) {
	t.Helper()
	if got := s.Property("vmd", "ActiveState"); got != "active" {
		t.Errorf("the service is %s", got)
	}
}

// hang stops the parent, which is to be killed for that. A daemon that is only
// slow may be killed too: guests do not notice.
func hang(t *testing.T, s *harness.Service) {
	s.Unit("vmd.service.d/hang.conf", "[Service]\nWatchdogSec=3\n")
	s.Systemctl("daemon-reload")
	s.Kept("a", func() { s.Systemctl("restart", "vmd") })
	s.Kept("a", func() {
		if err := unix.Kill(harness.Role(t, "parent", 0), unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	})
	if err := os.Remove(filepath.Join(s.Units, "vmd.service.d/hang.conf")); err != nil {
		t.Fatal(err)
	}
	s.Systemctl("daemon-reload")
	s.Kept("a", func() { s.Systemctl("restart", "vmd") })
}

// ended fails the test unless vmd has ended and nothing of it is left, and the
// guests have been shut down.
func ended(t *testing.T, s *harness.Service) {
	t.Helper()
	if left := append(harness.Remains(t), fmt.Sprint(harness.Processes(t))); len(left) != 1 || left[0] != "[]" {
		t.Errorf("left behind: %s", left)
	}
	log := s.Log()
	log = log[strings.LastIndex(log, "startup"):]
	for _, name := range []string{"a", "b"} {
		if !strings.Contains(log, "vm="+name) || strings.Contains(log, "force") {
			t.Errorf("guest %s was not shut down:\n%s", name, log)
		}
	}
}
