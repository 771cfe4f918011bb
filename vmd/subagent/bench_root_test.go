package subagent

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmd/internal/testenv"
	"vmd/internal/vmop"
)

// peerTable is where testdata/peer.c has its table.
const peerTable = ".1.3.6.1.4.1.8072.9999.9999.77"

// peerRows times 15 columns are 15000 instances.
const peerRows = 1000

// BenchmarkWalk reads a whole MIB with net-snmp's snmpbulkwalk, through a real
// snmpd: that of 100 to 10000 VMs, of which the time for each row must be the
// same, and the table of a subagent in C, of 15000 instances as ours is with
// vms=395.
func BenchmarkWalk(b *testing.B) {
	walk := testenv.Tool(b, "snmpbulkwalk")
	for _, vms := range []int{100, 395, 1000, 10000} {
		b.Run(fmt.Sprintf("vms=%d", vms), func(b *testing.B) {
			h := newHost(b, vmop.SNMPConfig{Enabled: true, CPUs: []int32{0}})
			var list []vmop.VM
			for i := range vms {
				vm := named(uint32(i+1), fmt.Sprintf("machine%05d", i+1))
				vm.CPUs = 1
				list = append(list, vm)
			}
			h.begin(list...)
			h.await(fmt.Sprintf("1.2.0=%d", vms))
			measureWalk(b, walk, h.snmpd, vmMIB, h.role.PID)
		})
	}
	b.Run("net-snmp library", func(b *testing.B) {
		m := testenv.Snmpd(b)
		pid := startPeer(b, m.Socket)
		for deadline := time.Now().Add(30 * time.Second); len(runWalk(b, walk, m, peerTable)) < peerRows; {
			if time.Now().After(deadline) {
				b.Fatal("the peer does not come")
			}
		}
		measureWalk(b, walk, m, peerTable, pid)
	})
}

func runWalk(b *testing.B, walk string, m *testenv.MasterAgent, from string) []byte {
	b.Helper()
	cmd := exec.Command(walk, "-v2c", "-c", m.ReadOnly, "-On", "-Oq", "-Cr50", "-t", "20", m.Addr, from)
	cmd.Env = append(os.Environ(), "MIBS=", "MIBDIRS="+m.Dir)
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s: %v", cmd, err)
	}
	return out
}

// measureWalk reports the time for a row, and the CPU time and the memory of the
// process that has them.
func measureWalk(b *testing.B, walk string, m *testenv.MasterAgent, from string, pid int) {
	rows := bytes.Count(runWalk(b, walk, m, from), []byte("\n"))
	before := processCPU(b, pid)
	b.ResetTimer()
	for range b.N {
		if got := bytes.Count(runWalk(b, walk, m, from), []byte("\n")); got != rows {
			b.Fatalf("%d rows, then %d", rows, got)
		}
	}
	b.StopTimer()
	n := float64(b.N) * float64(rows)
	b.ReportMetric(float64(b.Elapsed().Microseconds())/n, "µs/row")
	b.ReportMetric(float64((processCPU(b, pid)-before).Microseconds())/n, "cpu-µs/row")
	b.ReportMetric(float64(rows), "rows")
	b.ReportMetric(residentMiB(b, pid), "MiB")
}

func startPeer(b *testing.B, socket string) int {
	b.Helper()
	cc, config := testenv.Tool(b, "cc"), testenv.Tool(b, "net-snmp-config")
	flags, err := exec.Command(config, "--cflags", "--agent-libs").Output()
	if err != nil {
		b.Fatal(err)
	}
	bin := filepath.Join(b.TempDir(), "peer")
	args := append([]string{"-O2", "-o", bin, "testdata/peer.c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		b.Fatalf("cc: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "unix:"+socket, strconv.Itoa(peerRows))
	cmd.Env = append(os.Environ(), "MIBS=")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process.Pid
}

// processCPU is the CPU time of a process (proc_pid_schedstat: nanoseconds of
// its threads).
func processCPU(b *testing.B, pid int) (sum time.Duration) {
	b.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

func residentMiB(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	var total, resident float64
	if _, err := fmt.Sscan(string(text), &total, &resident); err != nil {
		b.Fatal(err)
	}
	return resident * float64(os.Getpagesize()) / (1 << 20)
}
