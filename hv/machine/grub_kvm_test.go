package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/vioscsi"
	"vmd/internal/testenv"
)

// grubScript makes GRUB use the serial port and nothing else.
const grubScript = "serial --unit=0 --speed=115200\nterminal_output serial\nterminal_input serial\n"

// grubDisk is a disk with GRUB's boot sector and core image, which runs script.
// The fewer modules it has the better: most of its boot is unpacking.
func grubDisk(t *testing.T, script string, modules ...string) []byte {
	t.Helper()
	mkimage := testenv.Tool(t, "grub-mkimage")
	sector, err := os.ReadFile("/usr/lib/grub/i386-pc/boot.img")
	if err != nil {
		t.Skipf("needs the package grub-pc-bin: %v", err)
	}
	dir := t.TempDir()
	cfg, core := filepath.Join(dir, "early.cfg"), filepath.Join(dir, "core.img")
	if err := os.WriteFile(cfg, []byte(grubScript+script), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-O", "i386-pc", "-p", "/x", "-c", cfg, "-o", core, "biosdisk", "serial", "terminal"}, modules...)
	if out, err := exec.Command(mkimage, args...).CombinedOutput(); err != nil {
		t.Fatalf("grub-mkimage: %v: %s", err, out)
	}
	image, err := os.ReadFile(core)
	if err != nil {
		t.Fatal(err)
	}
	b := append(sector, image...)
	return append(b, make([]byte, grubSpace-len(b))...)
}

// grubSpace is room for GRUB at the start of a disk.
const grubSpace = 1 << 20

// Somebody else's boot loader: its disk driver is SeaBIOS's, its console our
// serial port.
func TestGRUB(t *testing.T) {
	fw, disk := seabios(t), grubDisk(t, "")
	t.Parallel()
	s := newStock(t, 1)
	d, err := vioblk.New(medium(t, disk), vioblk.Config{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddVirtio(pci.SlotDisk, "vioblk0", d); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(Boot{Firmware: fw, Device: BootDisk}); err != nil {
		t.Fatal(err)
	}
	start(t, s.Machine)
	s.wait(t, "rescue>")
	s.say("set\r")
	s.wait(t, "prefix=(hd0)/x")
	s.Stop()
	end(t, s.Machine, Killed)
}

// newStock is a machine for somebody else's software, not loaded yet.
func newStock(t *testing.T, cpus int) *stock {
	t.Helper()
	s := &stock{ready: make(chan struct{}, 1)}
	s.Machine, s.tty = newMachine(t, func(c *Config) {
		c.Memory, c.CPUs, c.UUID = 256<<20, cpus, [16]byte{1, 2, 3}
		c.ConsoleReady = func() {
			select {
			case s.ready <- struct{}{}:
			default:
			}
		}
	})
	return s
}

// All of the way: firmware, GRUB, and a distribution's kernel that finds its
// devices by the tables that firmware has put in place. It has a CD too.
func TestStockKernelByFirmware(t *testing.T) {
	testenv.NeedRealKVM(t)
	fw := seabios(t)
	kernel, initrd := sectors(t, "bzImage"), sectors(t, "initrd")
	const first = grubSpace / 512
	disk := grubDisk(t, fmt.Sprintf("linux (hd0)%d+%d console=ttyS0 quiet name=it\ninitrd (hd0)%d+%d\nboot\n",
		first, len(kernel)/512, first+len(kernel)/512, len(initrd)/512), "linux", "boot")
	s := newStock(t, 2)
	d, err := vioblk.New(medium(t, append(append(disk, kernel...), initrd...)), vioblk.Config{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		s.AddVirtio(pci.SlotDisk, "vioblk0", d),
		s.AddVirtio(pci.SlotCD, "cd0", vioscsi.New(medium(t, cdROM("hello from the CD")))),
		s.Load(Boot{Firmware: fw, Device: BootDisk}),
	); err != nil {
		t.Fatal(err)
	}
	start(t, s.Machine)
	s.wait(t, "guest ready it")
	for line, want := range map[string]string{
		"run echo cpus: $(nproc)":                                                  "cpus: 2",
		"run cat /sys/class/dmi/id/product_uuid":                                   "01020300-0000-0000-0000-000000000000",
		"run cat /sys/class/dmi/id/product_name":                                   "VMM",
		"run dd if=/dev/sr0 bs=2048 skip=1 count=1 2>/dev/null | strings":          "hello from the CD",
		"run cat /sys/block/sr0/device/model":                                      "VMM CD-ROM",
		"run cat /sys/devices/system/clocksource/clocksource0/current_clocksource": "kvm-clock",
	} {
		s.say(line)
		s.wait(t, want)
	}
	s.say("poweroff")
	end(t, s.Machine, PowerOff)
}

// sectors is a file for guests, in whole sectors.
func sectors(t *testing.T, name string) []byte {
	t.Helper()
	i := image(t, name)
	b := make([]byte, (i.Size+511)&^511)
	if _, err := i.R.ReadAt(b[:i.Size], 0); err != nil {
		t.Fatal(err)
	}
	return b
}
