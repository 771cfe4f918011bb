package small

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
)

// thousand starts a vmd with as many VMs, none of which runs.
func thousand(t testing.TB) *harness.Daemon {
	t.Helper()
	testenv.Root(t)
	testenv.KVM(t)
	var conf strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&conf, "vm \"vm%d\" {\n\tdisable\n\tcdrom \"/not/there\"\n\tlocal interface\n\towner alice:ops\n}\n", i)
	}
	return harness.StartVMD(t, conf.String())
}

// resident is the resident memory of a process in KiB.
func resident(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nVmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Those who only look cost nothing that stays: each list is half a megabyte.
func TestStatusLeavesNothing(t *testing.T) {
	d := thousand(t)
	pids := map[string]int{"parent": d.PID(), "control": harness.Role(t, "control", 0)}
	look := func(times int) {
		for range times {
			if lines := strings.Count(d.Vmctl("status"), "\n"); lines != 1001 {
				t.Fatalf("%d lines, want 1001", lines)
			}
		}
	}
	look(20)
	before := map[string]int{}
	for role, pid := range pids {
		before[role] = resident(t, pid)
	}
	look(100)
	for role, pid := range pids {
		after := resident(t, pid)
		t.Logf("%s: %d KiB, then %d KiB", role, before[role], after)
		if after > before[role]+32<<10 {
			t.Errorf("%s grew from %d to %d KiB", role, before[role], after)
		}
	}
}

// benchmarkVmctl measures whole processes of vmctl against a vmd with a thousand
// VMs. The aim is 50 ms.
func benchmarkVmctl(b *testing.B, args ...string) {
	thousand(b)
	var peak int64
	for b.Loop() {
		cmd := exec.Command(harness.Program(b, "vmctl"), args...)
		if out, err := cmd.Output(); err != nil || len(out) < 1000 {
			b.Fatalf("vmctl %s: %v: %d bytes", args, err, len(out))
		}
		peak = max(peak, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	b.ReportMetric(float64(peak), "KiB-of-vmctl")
}

func BenchmarkStatus1000(b *testing.B)   { benchmarkVmctl(b, "status") }
func BenchmarkComplete1000(b *testing.B) { benchmarkVmctl(b, "__complete", "start", "vm") }
