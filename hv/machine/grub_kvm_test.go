package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio/vioblk"
	"vmd/internal/testenv"
)

// grubDisk is a disk with GRUB's boot sector and core image, made as small as
// possible: most of its boot is unpacking.
func grubDisk(t *testing.T) []byte {
	t.Helper()
	mkimage := testenv.Tool(t, "grub-mkimage")
	const modules = "/usr/lib/grub/i386-pc"
	sector, err := os.ReadFile(filepath.Join(modules, "boot.img"))
	if err != nil {
		t.Skipf("needs the package grub-pc-bin: %v", err)
	}
	dir := t.TempDir()
	cfg, core := filepath.Join(dir, "early.cfg"), filepath.Join(dir, "core.img")
	script := "serial --unit=0 --speed=115200\nterminal_output serial\nterminal_input serial\n"
	if err := os.WriteFile(cfg, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(mkimage, "-O", "i386-pc", "-p", "/x", "-c", cfg, "-o", core, "biosdisk", "serial", "terminal").CombinedOutput()
	if err != nil {
		t.Fatalf("grub-mkimage: %v: %s", err, out)
	}
	image, err := os.ReadFile(core)
	if err != nil {
		t.Fatal(err)
	}
	b := append(sector, image...)
	return append(b, make([]byte, 4<<20-len(b))...)
}

// Somebody else's boot loader: its disk driver is SeaBIOS's, its console our
// serial port.
func TestGRUB(t *testing.T) {
	fw, disk := seabios(t), grubDisk(t)
	t.Parallel()
	ready := make(chan struct{}, 1)
	m, out := newMachine(t, func(c *Config) {
		c.Memory = 32 << 20
		c.ConsoleReady = func() {
			select {
			case ready <- struct{}{}:
			default:
			}
		}
	})
	d, err := vioblk.New(medium(t, disk), vioblk.Config{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AddVirtio(pci.SlotDisk, "vioblk0", d); err != nil {
		t.Fatal(err)
	}
	if err := m.Load(Boot{Firmware: fw, Device: BootDisk}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	out.wait(t, "rescue>")
	s := stock{Machine: m, tty: out, ready: ready}
	s.say("set\r")
	out.wait(t, "prefix=(hd0)/x")
	m.Stop()
	end(t, m, Killed)
}
