package small

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
)

// output runs a program of the host, which has to succeed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(testenv.Tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// imageInfo is what qemu-img says of an image: sizes in bytes.
func imageInfo(t *testing.T, path string) (virtual, actual int64) {
	t.Helper()
	var info struct {
		Virtual int64 `json:"virtual-size"`
		Actual  int64 `json:"actual-size"`
	}
	if err := json.Unmarshal([]byte(output(t, "qemu-img", "info", "--output=json", "-U", path)), &info); err != nil {
		t.Fatal(err)
	}
	return info.Virtual, info.Actual
}

// link is what ip says of an interface.
type link struct {
	Index  int64  `json:"ifindex"`
	Name   string `json:"ifname"`
	Master string `json:"master"`
}

func linkOf(t *testing.T, name string) link {
	t.Helper()
	var links []link
	if err := json.Unmarshal([]byte(output(t, "ip", "-json", "link", "show", name)), &links); err != nil || len(links) != 1 {
		t.Fatalf("ip link show %s: %v, %+v", name, err, links)
	}
	return links[0]
}

// Every sort of storage that a VM can have, against qemu-img and blockdev, and
// both ends of a network interface against ip.
func TestSNMPStorage(t *testing.T) {
	dir := setUp(t)
	raw, cd := harness.NewDisk(t, dir, "raw.img", 3), harness.NewDisk(t, dir, "cd.iso", 1)
	if err := os.Truncate(raw, 3<<20+512); err != nil {
		t.Fatal(err)
	}
	base, over := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "over.qcow2")
	output(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "40M")
	output(t, "qemu-io", "-f", "qcow2", "-c", "write 0 9M", base)
	output(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over)
	output(t, "qemu-io", "-f", "qcow2", "-c", "write 1M 3M", over)
	device := strings.TrimSpace(output(t, "losetup", "--show", "-f", harness.NewDisk(t, dir, "block.img", 6)))
	t.Cleanup(func() { output(t, "losetup", "-d", device) })
	output(t, "ip", "link", "add", snmpBridge, "type", "bridge")
	t.Cleanup(func() { exec.Command("ip", "link", "del", snmpBridge).Run() })

	h := newSNMPHost(t, "", fmt.Sprintf("switch \"lan\" { interface %s }\n", snmpBridge)+
		define("s", harness.Tiny(t, dir, "halt", "x", harness.TinyHalt),
			fmt.Sprintf("disk %q", raw), fmt.Sprintf("disk %q", over), fmt.Sprintf("disk %q", device), fmt.Sprintf("cdrom %q", cd),
			`interface { switch "lan" }`, "interface tap"))
	row := h.vmd.Await("s", "running")
	h.await(fmt.Sprintf("1.4.1.6.%d", row.ID), int64(4))
	got := h.walk()
	at := func(object string, index int) any { return got[fmt.Sprintf("%s.%d.%d", object, row.ID, index)] }
	blocks, err := strconv.ParseInt(strings.TrimSpace(output(t, "blockdev", "--getsize64", device)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for i, disk := range []struct {
		path, format, driver  string
		source, access, media int64
		defined, allocated    int64
	}{
		{raw, "raw", "virtio-blk", 4, 2, 3, 3<<20 + 512, 3<<20 + 512},
		{over, "qcow2", "virtio-blk", 5, 2, 3, -1, -1},
		{device, "block", "virtio-blk", 3, 2, 3, blocks, blocks},
		{cd, "raw", "virtio-scsi", 4, 3, 4, 1 << 20, 1 << 20},
	} {
		n := i + 1
		if disk.defined < 0 {
			// Its base is not allocated to it: others may have it, too.
			disk.defined, disk.allocated = imageInfo(t, disk.path)
		}
		for object, want := range map[string]any{
			"1.7.1.3": int64(0), "1.7.1.4": disk.source, "1.7.1.5": disk.format, "1.7.1.6": disk.path,
			"1.7.1.7": disk.access, "1.7.1.8": disk.media, "1.7.1.9": disk.driver,
		} {
			if at(object, n) != want {
				t.Errorf("%s of disk %d is %v, want %v", object, n, at(object, n), want)
			}
		}
		unit, _ := at("1.7.1.10", n).(int64)
		defined, _ := at("1.7.1.11", n).(int64)
		allocated, _ := at("1.7.1.12", n).(int64)
		if unit*defined != disk.defined || unit*allocated < disk.allocated || unit*allocated >= disk.allocated+unit {
			t.Errorf("%s: sizes %d and %d of %d octets, want %d and %d", disk.path, defined, allocated, unit, disk.defined, disk.allocated)
		}
	}
	for i, n := range row.Interfaces {
		l := linkOf(t, n.Tap)
		master := int64(0)
		if l.Master != "" {
			master = linkOf(t, l.Master).Index
		}
		if (l.Master == snmpBridge) != (i == 0) || at("1.8.1.2", i+1) != l.Index || at("1.8.1.3", i+1) != master {
			t.Errorf("interface %d has ifIndex %v and parent %v, ip says %+v and %d", i+1, at("1.8.1.2", i+1), at("1.8.1.3", i+1), l, master)
		}
		harness.WaitFor(t, "ifDescr to be "+n.Tap, func() bool { // snmpd looks every few seconds
			return harness.Get(t, h.snmpd, fmt.Sprintf(".1.3.6.1.2.1.2.2.1.2.%v", at("1.8.1.2", i+1))).Value == n.Tap
		})
		mac := strings.ReplaceAll(n.MAC, ":", "")
		if text, _ := at("1.8.1.5", i+1).(string); fmt.Sprintf("%x", text) != mac {
			t.Errorf("interface %d has address %x, want %s", i+1, text, mac)
		}
	}
}

// A VM that waits for its turn, one that is made by vmctl start and gone with its
// stop, and what that does to the scalars.
func TestSNMPComingAndGoing(t *testing.T) {
	dir := setUp(t)
	kernel := harness.Tiny(t, dir, "halt", "x", harness.TinyHalt)
	h := newSNMPHost(t, "", "staggered start parallel 1 delay 3600\n"+
		define("first", kernel, fmt.Sprintf("disk %q", harness.NewDisk(t, dir, "disk.img", 1)), "interface tap")+define("second", kernel))
	h.vmd.Await("first", "running")
	second := h.vmd.Await("second", "waiting")
	h.await("1.2.0", int64(2))
	want(t, h.walk(), map[string]any{
		fmt.Sprintf("1.4.1.5.%d", second.ID): int64(1), fmt.Sprintf("1.4.1.6.%d", second.ID): int64(11),
		fmt.Sprintf("1.4.1.13.%d", second.ID): int64(0), fmt.Sprintf("1.4.1.16.%d", second.ID): uint64(0),
		"1.3.0": uint64(0),
	})
	h.vmd.VmctlAs("root", "start", "-b", kernel, "-m", "8M", "guest")
	guest := h.vmd.Await("guest", "running")
	h.await(fmt.Sprintf("1.4.1.6.%d", guest.ID), int64(4))
	got := h.walk()
	want(t, got, map[string]any{
		"1.2.0": int64(3), fmt.Sprintf("1.4.1.2.%d", guest.ID): "guest",
		fmt.Sprintf("1.4.1.7.%d", guest.ID): int64(3), fmt.Sprintf("1.4.1.8.%d", guest.ID): int64(3),
		fmt.Sprintf("1.4.1.3.%d", guest.ID): rawUUID(t, guest.UUID),
	})
	created, _ := got["1.3.0"].(uint64)
	if up, _ := got["1.1.4.0"].(uint64); created == 0 || created > up {
		t.Errorf("vmTableLastChange is %d, vmHvUpTime %d", created, up)
	}
	h.vmd.Vmctl("stop", "-fw", "guest")
	h.await("1.2.0", int64(2))
	if deleted, _ := h.get("1.3.0").(uint64); deleted < created {
		t.Errorf("vmTableLastChange went from %d to %d", created, deleted)
	}
	if v := h.get(fmt.Sprintf("1.4.1.2.%d", guest.ID)); v != nil {
		t.Errorf("a VM that is gone has name %v", v)
	}
}

// What snmpset sets outlives the agentx process and vmd, guests or no guests, and
// not snmpd.
func TestSNMPSwitchesOutliveVMD(t *testing.T) {
	dir := setUp(t)
	h := newSNMPHost(t, "", halting(t, dir, "a"))
	h.await("1.2.0", int64(1))
	a := h.vmd.Await("a", "running")
	set := func(perVM, bulk int) {
		t.Helper()
		output(t, "snmpset", "-v2c", "-c", h.snmpd.ReadWrite, "-On", "-t", "10", h.snmpd.Addr,
			harness.VMMIB+".1.9.0", "i", strconv.Itoa(perVM), harness.VMMIB+".1.10.0", "i", strconv.Itoa(bulk))
		text := fmt.Sprintf(`"PerVM": %v,`+"\n"+`  "Bulk": %v,`, perVM == 1, bulk == 1)
		harness.WaitFor(t, "the state to be saved", func() bool {
			b, _ := os.ReadFile("/var/lib/vmd/state")
			return strings.Contains(string(b), text)
		})
	}
	still := func(when string) {
		t.Helper()
		h.await("1.2.0", int64(1))
		if perVM, bulk := h.get("1.9.0"), h.get("1.10.0"); perVM != int64(2) || bulk != int64(1) {
			t.Errorf("%s the switches are %v and %v", when, perVM, bulk)
		}
	}
	set(2, 1)
	still("at first")
	agent := harness.Role(t, "agentx", 0)
	kill(t, agent)
	harness.Role(t, "agentx", agent)
	still("after a death of agentx")
	h.vmd.Kill()
	h.vmd.Start()
	still("after a death of vmd")
	if now := h.vmd.Row("a"); now.PID != a.PID {
		t.Errorf("the guest was %+v, is %+v", a, now)
	}
	h.vmd.Vmctl("stop", "-fw", "a")
	h.vmd.Signal(unix.SIGTERM)
	h.vmd.Stop()
	h.vmd.Start()
	still("after a restart")
	harness.WaitFor(t, "this run of snmpd to be told from the next", func() bool {
		up, _ := harness.Get(t, h.snmpd, ".1.3.6.1.2.1.1.3.0").Value.(uint64)
		return up > 200 // hundredths of a second
	})
	h.snmpd.Restart()
	h.await("1.9.0", int64(1))
	h.await("1.10.0", int64(2))
}
