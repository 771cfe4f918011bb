package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

// testBridge is the bridge behind the switch: not one that a host has.
const testBridge = "vmdtest0"

// hostTool runs a program of the host's and returns what it printed.
func hostTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(testenv.Tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// netGuest defines a guest of the network's tests.
func netGuest(t *testing.T, name, cmdline string, lines ...string) string {
	t.Helper()
	return guestWith(t, harness.Guest(t, lab.GuestInitrd), name, cmdline, lines...)
}

func guestWith(t *testing.T, initrd, name, cmdline string, lines ...string) string {
	t.Helper()
	return fmt.Sprintf("vm %q {\n\tmemory 128M\n\tboot %q\n\tinitrd %q\n\tcmdline \"console=ttyS0 quiet name=%s %s\"\n\t%s\n}\n",
		name, harness.Guest(t, lab.GuestVMLinux), initrd, name, cmdline, strings.Join(lines, "\n\t"))
}

// withTraffic is the guests' initramfs with e2e/traffic in it.
func withTraffic(t *testing.T) string {
	t.Helper()
	initrd, err := os.ReadFile(harness.Guest(t, lab.GuestInitrd))
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(harness.Program(t, "traffic"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(harness.Dir(t), "initrd")
	if err := os.WriteFile(path, lab.AppendFile(initrd, "bin/traffic", program), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// vhostWorkers counts the kernel's threads that move guests' frames: processes
// of its own before Linux 6.4, threads of the VM's since.
func vhostWorkers() (n int) {
	names, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/comm")
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), "vhost-") {
			n++
		}
	}
	return n
}

// Two guests, one with a locked address, on a switch of large frames; the other
// has two CPUs, a local interface too, and one whose cable is pulled.
func TestNetwork(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	hostTool(t, "ip", "link", "add", testBridge, "mtu", "9000", "type", "bridge")
	t.Cleanup(func() { hostTool(t, "ip", "link", "del", testBridge) })
	initrd := withTraffic(t)
	d := harness.StartVMD(t, `
local inet6
switch "lan" {
	interface `+testBridge+`
}
`+guestWith(t, initrd, "a", "ip=10.99.0.1/24", `interface { switch "lan" locked lladdr fe:e1:bb:d1:99:01 group "dmz" }`)+
		guestWith(t, initrd, "b", "ip=10.99.0.2/24 ip1=dhcp", "cpus 2",
			`interface { switch "lan" }`, `local interface`, `interface tap { down }`))
	d.Await("a", "running")
	d.Await("b", "running")
	a, b := d.Console("a"), d.Console("b")
	b.Expect("guest ready b")
	a.Expect("guest ready a")

	t.Run("guests on a switch talk", func(t *testing.T) {
		a.Command("run ping -c 3 -W 20 10.99.0.2")
		b.Command("run ping -c 3 -W 20 10.99.0.1")
	})
	t.Run("frames of 9000 bytes", func(t *testing.T) {
		if got := a.Command("run cat /sys/class/net/eth0/mtu"); got != "9000" {
			t.Errorf("the guest's MTU is %q", got)
		}
		a.Command("run ping -c 2 -W 20 -s 8900 10.99.0.2")
	})
	t.Run("address by DHCP", func(t *testing.T) {
		row := d.Row("b")
		if len(row.Interfaces) != 3 || row.Interfaces[1].Address == "" {
			t.Fatalf("interfaces %+v", row.Interfaces)
		}
		if got := b.Command("run ip -o -4 addr show dev eth1"); !strings.Contains(got, " "+row.Interfaces[1].Address+"/31 ") {
			t.Errorf("the guest has %q, want %s", got, row.Interfaces[1].Address)
		}
		gateway := strings.Fields(b.Command("run ip route show default"))
		if len(gateway) < 3 {
			t.Fatalf("default route %q", gateway)
		}
		b.Command("run ping -c 2 -W 20 " + gateway[2])
	})
	t.Run("address by DHCP again", func(t *testing.T) { renew(t, d, b) })
	t.Run("IPv6 on a local interface", func(t *testing.T) { inet6(t, d, b) })
	t.Run("frames from a stranger", func(t *testing.T) { spoof(t, d, a, b) })
	t.Run("counters", func(t *testing.T) { count(t, d, a, b) })
	t.Run("locked address", func(t *testing.T) {
		const change = "run ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77; cat /sys/class/net/eth0/address"
		if got := a.Command(change); !strings.HasSuffix(got, "fe:e1:bb:d1:99:01") {
			t.Errorf("a locked guest changed its address: %q", got)
		}
		if got := b.Command(change); !strings.HasSuffix(got, "02:00:00:00:00:77") {
			t.Errorf("a guest could not change its address: %q", got)
		}
		for _, c := range []*harness.Console{a, b} {
			c.Command("run ip link set eth0 up")
		}
		b.Command("run ping -c 3 -W 20 10.99.0.1")
	})
	t.Run("pulled cable", func(t *testing.T) {
		b.Command("run ip link set eth2 up")
		if got := b.Command("run cat /sys/class/net/eth2/carrier /sys/class/net/eth0/carrier"); strings.Join(strings.Fields(got), " ") != "0 1" {
			t.Errorf("carriers of eth2 and eth0: %q", got)
		}
	})
	t.Run("a pair of queues for each CPU", func(t *testing.T) {
		for _, eth := range []string{"eth0", "eth1"} {
			if got := b.Command("run ls /sys/class/net/" + eth + "/queues"); strings.Join(strings.Fields(got), " ") != "rx-0 rx-1 tx-0 tx-1" {
				t.Errorf("queues of %s: %q", eth, got)
			}
		}
	})
	t.Run("groups", func(t *testing.T) {
		tapA := d.Row("a").Interfaces[0].Tap
		if got := hostTool(t, "nft", "list", "set", "inet", "vmd", "dmz"); strings.Count(got, `"`) != 2 || !strings.Contains(got, `"`+tapA+`"`) {
			t.Errorf("group dmz has not just %s: %s", tapA, got)
		}
		if got := hostTool(t, "nft", "list", "set", "inet", "vmd", "tap"); strings.Count(got, `"`) != 8 {
			t.Errorf("group tap has not four taps: %s", got)
		}
	})
	t.Run("vhost", func(t *testing.T) {
		if _, err := os.Stat("/dev/vhost-net"); err != nil {
			t.Fatal(err)
		}
		// b's interface on the switch and the pulled one, with a pair of queues
		// for each of its CPUs; the others are looked at.
		if got := vhostWorkers(); got != 4 {
			t.Errorf("the kernel moves the frames of %d pairs of queues, want 4", got)
		}
	})
	d.Vmctl("stop", "-fwa")
	for name, row := range d.Rows() {
		if row.LastExit != "stopped by force" {
			t.Errorf("%s ended: %s", name, row.LastExit)
		}
	}
	if taps, _ := filepath.Glob("/sys/class/net/" + testBridge + "/brif/*"); len(taps) != 0 {
		t.Errorf("left on the bridge: %q", taps)
	}
}
