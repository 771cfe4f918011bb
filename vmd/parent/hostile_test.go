package parent

import (
	"os"
	"os/exec"
	"testing"

	"vmd/internal/privsep"
)

// The number of a VM's process may be another's when somebody else answers on
// the VM's socket. vmm would get leave to kill it.
func TestPidOfAnotherIsNoVMs(t *testing.T) {
	for _, tt := range []struct {
		title, name string
		ok          bool
	}{
		{"vmd: vm/web", "web", true},
		{"vmd: vm/web", "", true}, // found by its socket alone
		{"vmd: vm/web", "we", false},
		{"vmd: vm/db", "web", false},
		{"vmd: control", "", false},
		{"sleep", "web", false},
		{"sleep", "", false},
	} {
		c := exec.Command("/proc/self/exe", "-test.run=^TestSleeper$")
		c.Args[0], c.Env = tt.title, []string{"PARENT_TEST_SLEEPER=1"}
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		f, err := openVM(c.Process.Pid, tt.name)
		if (err == nil) != tt.ok {
			t.Errorf("process %q for VM %q: %v", tt.title, tt.name, err)
		}
		if f != nil {
			f.Close()
		}
		in.Close()
		c.Wait()
	}
	if f, err := openVM(0, ""); err == nil {
		f.Close()
		t.Error("process 0 is a VM's")
	}
	if privsep.Title("vm/web") != "vmd: vm/web" {
		t.Error("titles are others by now")
	}
}

// TestSleeper is a process for others to look at.
func TestSleeper(t *testing.T) {
	if os.Getenv("PARENT_TEST_SLEEPER") == "" {
		return
	}
	os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}
