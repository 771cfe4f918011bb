package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

// What a guest with a kernel does to its disk and its CPU is what managers read,
// from a manager's own snmpbulkwalk too.
func TestSNMPCounters(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	dir := harness.Dir(t)
	snmpd := testenv.Snmpd(t)
	disk := harness.NewDisk(t, dir, "disk.img", 8)
	d := harness.StartVMD(t, fmt.Sprintf("agentx path %q\n", snmpd.Socket)+fmt.Sprintf(
		"vm \"g\" {\n\tmemory 128M\n\tboot %q\n\tinitrd %q\n\tcmdline \"console=ttyS0 quiet name=g\"\n\tdisk %q\n}\n",
		harness.Guest(t, lab.GuestVMLinux), harness.Guest(t, lab.GuestInitrd), disk))
	id := d.Await("g", "running").ID
	c := d.Console("g")
	c.Expect("guest ready g")

	counter := func(object string) uint64 {
		t.Helper()
		v := harness.Get(t, snmpd, fmt.Sprintf("%s.%s.%d", harness.VMMIB, object, id))
		if strings.HasPrefix(object, "1.7") {
			v = harness.Get(t, snmpd, fmt.Sprintf("%s.%s.%d.1", harness.VMMIB, object, id))
		}
		n, ok := v.Value.(uint64)
		if !ok || v.Type != "Counter64" {
			t.Fatalf("%s is %+v", v.OID, v)
		}
		return n
	}
	const (
		cpu                       = "1.4.1.17"
		readIOs, writeIOs         = "1.7.1.13", "1.7.1.14"
		readOctets, writeOctets   = "1.7.1.15", "1.7.1.16"
		readLatency, writeLatency = "1.7.1.17", "1.7.1.18"
	)
	was := make(map[string]uint64)
	for _, o := range []string{cpu, readIOs, writeIOs, readOctets, writeOctets, readLatency, writeLatency} {
		was[o] = counter(o)
	}
	grew := func(object string) uint64 { t.Helper(); return counter(object) - was[object] }

	c.Command("run dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync")
	if got := grew(writeOctets); got != 1<<20 {
		t.Errorf("the guest wrote 1 MiB, vmStorageWriteOctets grew by %d", got)
	}
	if n := grew(writeIOs); n < 1 || n > 256 {
		t.Errorf("%d write requests for 1 MiB", n)
	}
	c.Command("run echo 3 >/proc/sys/vm/drop_caches")
	c.Command("run dd if=/dev/vda of=/dev/null bs=64k count=16")
	// The kernel may read ahead.
	if got := grew(readOctets); got < 1<<20 || got > 8<<20 {
		t.Errorf("the guest read 1 MiB, vmStorageReadOctets grew by %d", got)
	}
	if grew(readIOs) == 0 || grew(readLatency) == 0 || grew(writeLatency) == 0 {
		t.Errorf("%d reads in %d µs, writes in %d µs", grew(readIOs), grew(readLatency), grew(writeLatency))
	}
	began := time.Now()
	c.Command("run i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done")
	if used := time.Duration(grew(cpu)) * time.Microsecond; used <= 0 {
		t.Errorf("the guest counted for %v and used %v", time.Since(began), used)
	}
	vcpu := harness.Get(t, snmpd, fmt.Sprintf("%s.1.5.1.2.%d.1", harness.VMMIB, id))
	if n, _ := vcpu.Value.(uint64); n == 0 || n > counter(cpu) {
		t.Errorf("vmCpuCoreTime is %d of %d µs", n, counter(cpu))
	}

	for _, version := range []string{"-v1", "-v2c"} {
		tool := "snmpbulkwalk"
		if version == "-v1" {
			tool = "snmpwalk" // which has no Counter64 (RFC 2576, 4.1.2.1)
		}
		out := hostTool(t, tool, version, "-c", snmpd.ReadOnly, "-On", snmpd.Addr, harness.VMMIB)
		if n := strings.Count(out, harness.VMMIB); n < 8+16+4 && version == "-v1" || n < 8+16+1+16 && version == "-v2c" {
			t.Errorf("%s %s has %d variables:\n%s", tool, version, n, out)
		}
	}
	total := counter(writeOctets)
	c.Say("poweroff")
	d.Await("g", "stopped")
	if got := counter(writeOctets); got < total {
		t.Errorf("vmStorageWriteOctets went from %d to %d when the guest ended", total, got)
	}
}
