package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmd/internal/testenv"
)

// Service is a vmd that a systemd looks after, with the units that are
// installed.
type Service struct {
	*Systemd
	*Daemon
	log string
}

// NewService prepares a systemd that will start vmd at its boot, with conf as its
// vm.conf. source is the folder of this module.
func NewService(t testing.TB, source, conf string) *Service {
	t.Helper()
	testenv.KVM(t)
	s := &Service{Systemd: NewSystemd(t), Daemon: NewVMD(t, conf)}
	s.log = filepath.Join(Dir(t), "log")
	units, err := filepath.Glob(filepath.Join(source, "etc/systemd/*.service"))
	if err != nil || len(units) == 0 {
		t.Fatalf("no units below %s: %v", source, err)
	}
	for _, path := range units {
		s.Unit(filepath.Base(path), Installed(t, path, filepath.Dir(s.Config)))
	}
	// There is no journal.
	s.Unit("vmd.service.d/log.conf", "[Service]\nStandardError=append:"+s.log+"\n")
	s.Unit("multi-user.target.d/enabled.conf", "[Unit]\nWants=vmd.service\n")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("vmd:\n%s", s.Log())
		}
	})
	return s
}

// Log is what vmd wrote so far.
func (s *Service) Log() string {
	b, _ := os.ReadFile(s.log)
	return string(b)
}

// Installed is a service file as make install writes it, for the programs of
// this run and the folder etc.
func Installed(t testing.TB, path, etc string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	programs := filepath.Dir(Program(t, "vmd"))
	return strings.NewReplacer("@SBINDIR@", programs, "@BINDIR@", programs, "@SYSCONFDIR@", etc).Replace(string(b))
}

// Kept runs what, which ends the daemon and starts another, and fails the test
// unless the VM name is the same process as before.
func (s *Service) Kept(name string, what func()) {
	s.Daemon.t.Helper()
	before, parent := s.Await(name, "running"), Role(s.Daemon.t, "parent", 0)
	what()
	Role(s.Daemon.t, "parent", parent)
	WaitFor(s.Daemon.t, "the service to be active", func() bool { return s.Property("vmd", "ActiveState") == "active" })
	if after := s.Row(name); after.State != "running" || after.PID != before.PID {
		s.Daemon.t.Errorf("VM %s was %+v, is %+v", name, before, after)
	}
}
