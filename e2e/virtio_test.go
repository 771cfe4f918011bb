package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

// oldDrivers loads Linux's drivers such that they use virtio 0.9.
const oldDrivers = "run for m in $(cat /modules); do case $m in virtio_pci.*) insmod /$m force_legacy=1 ;; *) insmod /$m ;; esac; done; echo loaded"

// A stock Linux drives everything that it has as virtio 0.9 has it, before and
// after it was written to a file and read again.
func TestTransitionalLinux(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	dir := harness.Dir(t)
	disk, cd := filepath.Join(dir, "disk.img"), filepath.Join(dir, "cd.iso")
	for path, text := range map[string]string{disk: "what the disk says\n", cd: "what the CD says\n"} {
		b := make([]byte, 1<<20)
		copy(b, text)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := harness.StartVMD(t, fmt.Sprintf(`vm "old" {
	virtio transitional
	memory 128M
	boot %q
	initrd %q
	cmdline "console=ttyS0 quiet modules=no name=old"
	disk %q
	cdrom %q
	local interface
	interface tap
}
`, harness.Guest(t, lab.GuestVMLinux), harness.Guest(t, lab.GuestInitrd), disk, cd))
	row := d.Await("old", "running")
	hostTool(t, "ip", "addr", "add", "10.98.0.1/24", "dev", row.Interfaces[1].Tap)
	c := d.Console("old")
	c.Expect("guest ready old")
	c.Command(oldDrivers)

	ids := strings.Fields(c.Command("run cd /sys/bus/pci/devices; for d in *; do [ $(cat $d/vendor) = 0x1af4 ] && cat $d/device; done | sort; cd /"))
	if want := []string{"0x1000", "0x1000", "0x1001", "0x1002", "0x1004", "0x1005"}; !slices.Equal(ids, want) {
		t.Errorf("devices %q, want %q", ids, want)
	}
	// VIRTIO_F_VERSION_1 is bit 32.
	if got := strings.Fields(c.Command("run cut -c33 /sys/bus/virtio/devices/*/features")); !slices.Equal(got, slices.Repeat([]string{"0"}, 6)) {
		t.Errorf("features of virtio 1: %q", got)
	}
	c.Command("run udhcpc -q -n -t 10 -T 1 -i eth0 -s /etc/udhcpc.sh >/dev/null 2>&1")
	if got := c.Command("run ip -o -4 addr show dev eth0"); !strings.Contains(got, " "+row.Interfaces[0].Address+"/31 ") {
		t.Errorf("the guest has %q, want %s", got, row.Interfaces[0].Address)
	}
	c.Command("run ip addr add 10.98.0.2/24 dev eth1; ip link set eth1 up")
	works := func(round string) {
		t.Helper()
		if _, err := os.Stat("/dev/vhost-net"); err != nil || vhostWorkers() != 1 {
			t.Errorf("the kernel moves the frames of %d pairs of queues, want 1 (%v)", vhostWorkers(), err)
		}
		c.Command("run ping -c 2 -W 20 $(ip route | grep ^default | cut -d' ' -f3)")
		c.Command("run ping -c 2 -W 20 10.98.0.1")
		for _, k := range []struct{ line, want string }{
			{"run head -n1 /dev/vda", "what the disk says"},
			{"run head -n1 /dev/sr0", "what the CD says"},
			{"run dd if=/dev/hwrng bs=48 count=1 2>/dev/null | wc -c", "48"},
			{"run echo " + round + " | dd of=/dev/vda bs=512 seek=1 conv=sync,fsync 2>/dev/null; dd if=/dev/vda bs=512 skip=1 count=1 iflag=direct 2>/dev/null | head -n1", round},
		} {
			if got := c.Command(k.line); got != k.want {
				t.Errorf("%s: %q: %q, want %q", round, k.line, got, k.want)
			}
		}
	}
	works("before")

	stream, err := os.Create(filepath.Join(dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var said bytes.Buffer
	send := d.Command("send", "old")
	send.Stdout, send.Stderr = stream, &said
	if err := send.Run(); err != nil {
		t.Fatalf("send: %v: %s", err, &said)
	}
	if _, err := stream.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	receive := d.Command("receive", "old")
	receive.Stdin = stream
	if out, err := receive.CombinedOutput(); err != nil {
		t.Fatalf("receive: %v: %s", err, out)
	}
	hostTool(t, "ip", "addr", "replace", "10.98.0.1/24", "dev", d.Await("old", "running").Interfaces[1].Tap)
	c = d.Console("old")
	c.Say("mark moved")
	c.Expect("echo: mark moved") // what it said before came along
	works("after")
	c.Say("poweroff")
	d.Await("old", "stopped")
}
