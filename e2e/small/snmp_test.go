package small

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
)

// snmpTypes are the objects of VM-MIB and their types (RFC 7666); those of
// tables without their index.
var snmpTypes = map[string]string{
	"1.1.1": "OctetString", "1.1.2": "OctetString", "1.1.3": "ObjectIdentifier", "1.1.4": "TimeTicks",
	"1.2": "Integer", "1.3": "TimeTicks", "1.9": "Integer", "1.10": "Integer",
	"1.4.1.2": "OctetString", "1.4.1.3": "OctetString", "1.4.1.4": "OctetString", "1.4.1.5": "Integer",
	"1.4.1.6": "Integer", "1.4.1.7": "Integer", "1.4.1.8": "Integer", "1.4.1.9": "Integer",
	"1.4.1.10": "Integer", "1.4.1.11": "Integer", "1.4.1.12": "Integer", "1.4.1.13": "Integer",
	"1.4.1.14": "Integer", "1.4.1.15": "Integer", "1.4.1.16": "TimeTicks", "1.4.1.17": "Counter64",
	"1.5.1.2": "Counter64", "1.6.1.3": "Integer",
	"1.7.1.3": "Integer", "1.7.1.4": "Integer", "1.7.1.5": "OctetString", "1.7.1.6": "OctetString",
	"1.7.1.7": "Integer", "1.7.1.8": "Integer", "1.7.1.9": "OctetString", "1.7.1.10": "Integer",
	"1.7.1.11": "Integer", "1.7.1.12": "Integer", "1.7.1.13": "Counter64", "1.7.1.14": "Counter64",
	"1.7.1.15": "Counter64", "1.7.1.16": "Counter64", "1.7.1.17": "Counter64", "1.7.1.18": "Counter64",
	"1.8.1.2": "Integer", "1.8.1.3": "Integer", "1.8.1.4": "OctetString", "1.8.1.5": "OctetString",
}

// snmpHost is a vmd with a real snmpd, and a snmptrapd where its notifications
// end up.
type snmpHost struct {
	t     *testing.T
	snmpd *testenv.MasterAgent
	vmd   *harness.Daemon
	traps *testenv.TrapReceiver
}

// newSNMPHost starts all three, with conf behind the agentx statement.
func newSNMPHost(t *testing.T, options, conf string) *snmpHost {
	h := &snmpHost{t: t, traps: testenv.Snmptrapd(t)}
	h.snmpd = testenv.Snmpd(t, "trap2sink "+h.traps.Addr+" public")
	if !strings.Contains(conf, "staggered start") {
		conf = "staggered start parallel 9 delay 0\n" + conf
	}
	h.vmd = harness.StartVMD(t, fmt.Sprintf("agentx path %q %s\n%s", h.snmpd.Socket, options, conf))
	return h
}

// await waits until an object has a value. Objects that are not there are nil.
func (h *snmpHost) await(object string, want any) {
	h.t.Helper()
	harness.WaitFor(h.t, fmt.Sprintf("%s to be %v", object, want), func() bool { return h.get(object) == want })
}

func (h *snmpHost) get(object string) any {
	h.t.Helper()
	return harness.Get(h.t, h.snmpd, harness.VMMIB+"."+object).Value
}

// object parts a name below vmMIB into the object and the index.
func object(name string) (object, index string) {
	parts := strings.Split(strings.TrimPrefix(name, harness.VMMIB+"."), ".")
	n := 4
	if len(parts) < 4 || len(parts) == 4 && parts[0]+parts[1] == "11" {
		n = len(parts) - 1
	}
	return strings.Join(parts[:n], "."), strings.Join(parts[n:], ".")
}

// walk reads everything, and fails unless each object is there with its type.
func (h *snmpHost) walk() map[string]any {
	h.t.Helper()
	values, seen := make(map[string]any), make(map[string]bool)
	for _, v := range harness.Walk(h.t, h.snmpd, harness.VMMIB) {
		name, index := object(v.OID)
		if snmpTypes[name] != v.Type {
			h.t.Errorf("%s is a %s, want %q", v.OID, v.Type, snmpTypes[name])
		}
		values[name+"."+index], seen[name] = v.Value, true
	}
	for name := range snmpTypes {
		if !seen[name] {
			h.t.Errorf("there is no instance of %s", name)
		}
	}
	return values
}

// want compares a walk with ground truth.
func want(t *testing.T, got map[string]any, truth map[string]any) {
	t.Helper()
	for name, value := range truth {
		if got[name] != value {
			t.Errorf("%s = %v (%T), want %v (%T)", name, got[name], got[name], value, value)
		}
	}
}

// number reads a number from a file of sysfs.
func number(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// cpuTime is what the kernel says that a process has used (proc_pid_stat(5)).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

const snmpBridge = "vmdsnmp0"

// Every object of the MIB, through a real snmpd, against what the kernel and the
// files say, for VMs in every state that vmd has.
func TestSNMPTellsTheTruth(t *testing.T) {
	dir := setUp(t)
	ip := testenv.Tool(t, "ip")
	if out, err := exec.Command(ip, "link", "add", snmpBridge, "type", "bridge").CombinedOutput(); err != nil {
		t.Fatalf("make a bridge: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command(ip, "link", "del", snmpBridge).Run() })
	raw := harness.NewDisk(t, dir, "raw.img", 5)
	qcow := filepath.Join(dir, "q.qcow2")
	if out, err := exec.Command(harness.Program(t, "vmctl"), "create", "-s", "3G", qcow).CombinedOutput(); err != nil {
		t.Fatalf("vmctl create: %v: %s", err, out)
	}
	halt := harness.Tiny(t, dir, "halt", "x", harness.TinyHalt)
	fault := harness.Tiny(t, dir, "fault", "x", harness.TinyFault)
	h := newSNMPHost(t, `notifications both object-id 1.3.6.1.4.1.99999.7`,
		fmt.Sprintf("switch \"lan\" { interface %s }\n", snmpBridge)+
			define("run", halt, "cpus 2", fmt.Sprintf("disk %q", raw), fmt.Sprintf("disk %q", qcow),
				`interface { switch "lan" lladdr fe:e1:bb:d1:77:01 }`, `os "none"`, `uuid "01234567-89ab-cdef-0123-456789abcdef"`)+
			define("off", halt, "disable", `interface tap`)+
			define("held", halt)+
			define("bad", fault, "restart never"))
	run := h.vmd.Await("run", "running")
	h.vmd.Await("held", "running")
	h.vmd.Vmctl("pause", "held")
	held, off := h.vmd.Await("held", "paused"), h.vmd.Row("off")
	bad := h.vmd.Await("bad", "crashed")
	h.await(fmt.Sprintf("1.4.1.6.%d", held.ID), int64(8))
	before := cpuTime(t, run.PID)
	got := h.walk()
	after := cpuTime(t, run.PID)

	at := func(object string, vm harness.Row, more ...int) string {
		name := fmt.Sprintf("%s.%d", object, vm.ID)
		for _, n := range more {
			name += "." + strconv.Itoa(n)
		}
		return name
	}
	q := statOf(t, qcow)
	want(t, got, map[string]any{
		"1.1.1.0": "vmd", "1.1.3.0": ".1.3.6.1.4.1.99999.7", "1.2.0": int64(4), "1.3.0": uint64(0),
		"1.9.0": int64(1), "1.10.0": int64(1),

		at("1.4.1.2", run): "run", at("1.4.1.2", off): "off", at("1.4.1.2", held): "held", at("1.4.1.2", bad): "bad",
		at("1.4.1.3", run): "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef",
		at("1.4.1.3", off): rawUUID(t, off.UUID), at("1.4.1.4", run): "none", at("1.4.1.4", off): "",
		at("1.4.1.5", run): int64(1), at("1.4.1.5", off): int64(4), at("1.4.1.5", held): int64(3), at("1.4.1.5", bad): int64(1),
		at("1.4.1.6", run): int64(4), at("1.4.1.6", off): int64(11), at("1.4.1.6", held): int64(8), at("1.4.1.6", bad): int64(12),
		at("1.4.1.7", run): int64(2), at("1.4.1.7", off): int64(3), at("1.4.1.8", run): int64(2),
		at("1.4.1.9", run): int64(2), at("1.4.1.10", run): int64(2), at("1.4.1.11", run): int64(2), at("1.4.1.9", off): int64(1),
		at("1.4.1.12", run): int64(1 << 20), at("1.4.1.14", run): int64(-1), at("1.4.1.15", run): int64(8),
		at("1.4.1.13", run): int64(8), at("1.4.1.13", held): int64(8), at("1.4.1.13", off): int64(0), at("1.4.1.13", bad): int64(0),
		at("1.4.1.16", off): uint64(0), at("1.4.1.17", off): uint64(0), at("1.5.1.2", off, 1): uint64(0),

		at("1.7.1.3", run, 1): int64(0), at("1.7.1.4", run, 1): int64(4), at("1.7.1.4", run, 2): int64(5),
		at("1.7.1.5", run, 1): "raw", at("1.7.1.5", run, 2): "qcow2",
		at("1.7.1.6", run, 1): raw, at("1.7.1.6", run, 2): qcow,
		at("1.7.1.7", run, 1): int64(2), at("1.7.1.8", run, 1): int64(3),
		at("1.7.1.13", run, 1): uint64(0), at("1.7.1.15", run, 1): uint64(0), at("1.7.1.18", run, 2): uint64(0),

		at("1.8.1.2", run, 1): number(t, "/sys/class/net/"+run.Interfaces[0].Tap+"/ifindex"),
		at("1.8.1.3", run, 1): number(t, "/sys/class/net/"+snmpBridge+"/ifindex"),
		at("1.8.1.4", run, 1): "virtio", at("1.8.1.5", run, 1): "\xfe\xe1\xbb\xd1\x77\x01",
		at("1.8.1.2", off, 1): int64(0), at("1.8.1.3", off, 1): int64(0),
	})
	size := func(object string, disk int) int64 {
		n, _ := got[at(object, run, disk)].(int64)
		unit, _ := got[at("1.7.1.10", run, disk)].(int64)
		return n * unit
	}
	for _, tt := range []struct {
		what      string
		got, want int64
		slop      int64
	}{
		{"defined raw", size("1.7.1.11", 1), 5 << 20, 0},
		{"allocated raw", size("1.7.1.12", 1), 5 << 20, 0}, // RFC 7666: holes or not
		{"defined qcow2", size("1.7.1.11", 2), 3 << 30, 0},
		{"allocated qcow2", size("1.7.1.12", 2), q.Blocks * 512, 4096},
	} {
		if d := tt.got - tt.want; d < -tt.slop || d > tt.slop {
			t.Errorf("%s is %d, want %d", tt.what, tt.got, tt.want)
		}
	}
	used, _ := got[at("1.4.1.17", run)].(uint64)
	const tick = 20 * time.Millisecond // two fields of /proc, each rounded
	if cpu := time.Duration(used) * time.Microsecond; cpu < before-tick || cpu > after+tick || cpu == 0 {
		t.Errorf("vmCpuTime is %v, the kernel's is from %v to %v", cpu, before, after)
	}
	var vcpus uint64
	for i := range 2 {
		n, _ := got[at("1.5.1.2", run, i+1)].(uint64)
		vcpus += n
	}
	if vcpus > used {
		t.Errorf("vCPUs used %d of %d microseconds", vcpus, used)
	}
	affinity(t, got, at("1.6.1.3", run, 1), run.PID)
	const processor = ".1.3.6.1.2.1.25.3.1.3" // hrDeviceProcessor
	if typ := harness.Get(t, h.snmpd, fmt.Sprintf(".1.3.6.1.2.1.25.3.2.1.2.%d", firstProcessor)).Value; typ != processor {
		t.Errorf("vmCpuPhysIndex %d is a device of type %v", firstProcessor, typ)
	}
	if up, _ := got[at("1.4.1.16", run)].(uint64); float64(up)/100 > h.vmd.Row("run").Uptime {
		t.Errorf("vmUpTime is %d, vmctl says %v later", up, h.vmd.Row("run").Uptime)
	}

	// A VM that has crashed has no tap; stopped, it keeps its rows and counters.
	h.vmd.Vmctl("stop", "-fw", "run")
	h.await(at("1.4.1.6", run), int64(11))
	again := h.walk()
	want(t, again, map[string]any{
		at("1.4.1.5", run): int64(4), at("1.4.1.13", run): int64(0), at("1.4.1.16", run): uint64(0),
		at("1.8.1.2", run, 1): int64(0), at("1.7.1.6", run, 1): raw, at("1.4.1.9", run): int64(2),
		at("1.6.1.3", run, 1, firstProcessor): int64(0),
	})
	if n, _ := again[at("1.4.1.17", run)].(uint64); n < used {
		t.Errorf("vmCpuTime went from %d to %d", used, n)
	}
	if before, now := got["1.1.4.0"].(uint64), again["1.1.4.0"].(uint64); now < before {
		t.Errorf("vmHvUpTime went from %d to %d", before, now)
	}
}

func statOf(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t)
}

func rawUUID(t *testing.T, text string) string {
	t.Helper()
	var b []byte
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, "-", ""), "%x", &b); err != nil || len(b) != 16 {
		t.Fatalf("uuid %q: %v", text, err)
	}
	return string(b)
}

// firstProcessor is net-snmp's hrDeviceIndex of CPU 0.
const firstProcessor = 196608

// affinity compares the rows of one vCPU with the kernel's mask, and their
// number with the CPUs that are on line.
func affinity(t *testing.T, got map[string]any, vcpu string, pid int) {
	t.Helper()
	var mask unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &mask); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for name, value := range got {
		index, ok := strings.CutPrefix(name, vcpu+".")
		if !ok {
			continue
		}
		rows++
		n, err := strconv.Atoi(index)
		want := int64(2)
		if mask.IsSet(n - firstProcessor) {
			want = 1
		}
		if err != nil || value != want {
			t.Errorf("%s = %v, want %d", name, value, want)
		}
	}
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	online := 0
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		var from, to int
		if n, _ := fmt.Sscanf(part, "%d-%d", &from, &to); n == 1 {
			to = from
		}
		online += to - from + 1
	}
	if rows != online {
		t.Errorf("%d rows for %s, want one for each of CPUs %s", rows, vcpu, b)
	}
}
