package e2e

import (
	"fmt"
	"strconv"
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

// What a guest's own kernel says of its machine is what managers read of it, and
// what its kernel has counted of its disk is what they see counted.
func TestSNMPAgainstTheGuest(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	dir := harness.Dir(t)
	snmpd := testenv.Snmpd(t)
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	d := harness.StartVMD(t, fmt.Sprintf("agentx path %q\n", snmpd.Socket)+fmt.Sprintf(
		"vm \"g\" {\n\tmemory 192M\n\tcpus 2\n\tuuid %q\n\tboot %q\n\tinitrd %q\n\tcmdline \"console=ttyS0 quiet name=g ip=dhcp\"\n"+
			"\tdisk %q\n\tlocal interface\n}\n",
		uuid, harness.Guest(t, lab.GuestVMLinux), harness.Guest(t, lab.GuestInitrd), harness.NewDisk(t, dir, "disk.img", 7)))
	id := d.Await("g", "running").ID
	c := d.Console("g")
	c.Expect("guest ready g")
	get := func(format string, args ...any) any {
		t.Helper()
		return harness.Get(t, snmpd, harness.VMMIB+"."+fmt.Sprintf(format, args...)).Value
	}
	read := func(command string) string { t.Helper(); return c.Command("run " + command) }
	numbers := func(text string) (list []int64) {
		t.Helper()
		for _, f := range strings.Fields(text) {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			list = append(list, n)
		}
		return list
	}
	text, _ := get("1.4.1.3.%d", id).(string)
	if got := fmt.Sprintf("%x", text); got != strings.ReplaceAll(uuid, "-", "") || read("cat /sys/class/dmi/id/product_uuid") != uuid {
		t.Errorf("the guest's UUID is %s, vmUUID %s", read("cat /sys/class/dmi/id/product_uuid"), got)
	}
	if n := numbers(read("nproc"))[0]; get("1.4.1.9.%d", id) != n || n != 2 {
		t.Errorf("the guest has %d CPUs, vmCurCpuNumber is %v", n, get("1.4.1.9.%d", id))
	}
	memory, _ := get("1.4.1.13.%d", id).(int64)
	if kib := numbers(read("awk '/^MemTotal/{print$2}' /proc/meminfo"))[0]; memory != 192 || kib/1024 > memory || kib/1024 < memory/2 {
		t.Errorf("the guest has %d KiB, vmCurMem is %d MiB", kib, memory)
	}
	if n := numbers(read("cat /sys/block/vda/size"))[0]; get("1.7.1.11.%d.1", id) != n {
		t.Errorf("the guest's disk has %d sectors, vmStorageDefinedSize is %v", n, get("1.7.1.11.%d.1", id))
	}
	mac, _ := get("1.8.1.5.%d.1", id).(string)
	if got := read("cat /sys/class/net/eth0/address | tr -d :"); got != fmt.Sprintf("%x", mac) {
		t.Errorf("the guest's address is %s, vmNetworkPhysAddress %x", got, mac)
	}

	// Block layer statistics (Documentation/block/stat.rst): reads, merged,
	// sectors, ms, the same of writes. It would count a flush as a write of
	// nothing, so there is none.
	read("dd if=/dev/zero of=/dev/vda bs=4k count=100 oflag=direct")
	read("dd if=/dev/vda of=/dev/null bs=8k count=50 iflag=direct")
	stat := numbers(read("cat /sys/block/vda/stat"))
	for column, want := range map[int]int64{13: stat[0], 14: stat[4], 15: stat[2] * 512, 16: stat[6] * 512} {
		if n := get("1.7.1.%d.%d.1", column, id); n != uint64(want) || want == 0 {
			t.Errorf("column %d of vmStorageTable is %v, the guest has counted %d", column, n, want)
		}
	}

	// The host's end of the interface is in IF-MIB, under its name; what the
	// guest has sent came in there.
	index, _ := get("1.8.1.2.%d.1", id).(int64)
	tap := d.Row("g").Interfaces[0].Tap
	ifMIB := func(object string) any {
		t.Helper()
		return harness.Get(t, snmpd, fmt.Sprintf(".1.3.6.1.2.1.%s.%d", object, index)).Value
	}
	harness.WaitFor(t, "ifDescr to be "+tap, func() bool { return ifMIB("2.2.1.2") == tap })
	sent := numbers(read("cat /sys/class/net/eth0/statistics/tx_packets"))[0]
	harness.WaitFor(t, "the guest's packets to come in", func() bool {
		n, _ := ifMIB("31.1.1.1.7").(uint64) // ifHCInUcastPkts; snmpd looks every few seconds
		return int64(n) >= sent
	})

	var vcpus uint64
	for i := range 2 {
		n, _ := get("1.5.1.2.%d.%d", id, i+1).(uint64)
		vcpus += n
	}
	if n, _ := get("1.4.1.17.%d", id).(uint64); vcpus == 0 || n < vcpus {
		t.Errorf("vmCpuTime is %d, that of the vCPUs %d", n, vcpus)
	}
}
