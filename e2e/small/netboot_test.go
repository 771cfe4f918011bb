package small

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vmd/e2e/harness"
)

// romFolders are where distributions put boot ROMs; the file is in the first.
var romFolders = []string{"/usr/lib/ipxe/qemu", "/usr/share/ipxe", "/usr/share/qemu"}

// withROM has the host offer rom to boot from the network with, and no other; no
// ROM if it is nil.
func withROM(t *testing.T, rom []byte) (path string) {
	t.Helper()
	path = filepath.Join(romFolders[0], "pxe-virtio.rom")
	for i, to := range romFolders {
		if _, err := os.Stat(to); err != nil {
			if i == 0 {
				t.Skip("needs the package ipxe-qemu")
			}
			continue
		}
		from := harness.Dir(t)
		if i == 0 && rom != nil {
			if err := os.WriteFile(filepath.Join(from, "pxe-virtio.rom"), rom, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		over(t, from, to, 0)
	}
	return path
}

// What a ROM does behind its text: switch off, or print another character and
// send back what comes in on COM1.
var (
	romPowerOff = []byte{0xba, 0x04, 0x06, 0xb8, 0x00, 0x34, 0xef, 0xf4}
	romEcho     = []byte{
		0xfa,                              // cli: firmware reads the port at each tick, until here
		0xba, 0xf8, 0x03, 0xb0, '>', 0xee, // out
		0xba, 0xfd, 0x03, 0xec, // in al, 0x3fd
		0xa8, 0x01, 0x74, 0xf8, // test al, 1; jz
		0xba, 0xf8, 0x03, 0xec, 0xee, // in al, 0x3f8; out
		0xeb, 0xf1,
	}
)

// bootROM is a ROM for virtio interfaces. When it is booted from it prints text
// with INT 10h and goes on with code.
func bootROM(text string, code []byte) []byte {
	const pcir, pnp, start, entry, words = 0x20, 0x40, 0x60, 0x80, 0x100
	b := make([]byte, 512)
	copy(b, []byte{0x55, 0xaa, 1, 0xe9, start - 6, 0}) // jmp start
	binary.LittleEndian.PutUint16(b[0x18:], pcir)
	binary.LittleEndian.PutUint16(b[0x1a:], pnp)
	copy(b[pcir:], "PCIR\xf4\x1a\x41\x10")
	b[pcir+0x0f], b[pcir+0x10], b[pcir+0x15] = 2, 1, 0x80
	copy(b[pnp:], "$PnP\x01\x02")
	b[pnp+0x1a] = entry
	copy(b[start:], []byte{0xb8, 0x20, 0x00, 0xcb}) // it can be booted from; return far
	copy(b[entry:], append([]byte{
		0x0e, 0x1f, // ds = cs
		0xbe, 0x00, words >> 8, // si = text
		0xac, 0x84, 0xc0, // lodsb, test al
		0x74, 0x06, // jz out of here
		0xb4, 0x0e, 0xcd, 0x10, // teletype
		0xeb, 0xf5, // next
	}, code...))
	copy(b[words:], text)
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[len(b)-1] = -sum
	return b
}

// netBoot defines a VM that boots from the network.
func netBoot(name string, lines ...string) string {
	return firmware(name, append(lines, "boot device net", "interface tap")...)
}

func needSeaBIOS(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(seabios); err != nil {
		t.Skipf("needs the package seabios: %v", err)
	}
}

func TestNetBoot(t *testing.T) {
	dir := setUp(t)
	needSeaBIOS(t)
	withROM(t, bootROM("booted from the network.", romPowerOff))
	disk, _ := media(t, dir)
	onDisk := fmt.Sprintf("disk %q", disk)
	d := harness.StartVMD(t,
		netBoot("alone")+
			netBoot("old", onDisk, "virtio transitional", "interface tap")+
			netBoot("own", onDisk, fmt.Sprintf("boot %q", seabios))+
			firmware("asked", onDisk, "interface tap"))
	for _, args := range [][]string{{"alone"}, {"old"}, {"own"}, {"asked", "-B", "net"}} {
		t.Run(args[0], func(t *testing.T) {
			defer d.Use(d.Use(t))
			d.Vmctl(append([]string{"start"}, args...)...)
			d.Console(args[0]).Expect("booted from the network")
			d.Await(args[0], "stopped")
		})
	}
	t.Run("new", func(t *testing.T) {
		defer d.Use(d.Use(t))
		d.Vmctl("start", "-B", "net", "-i", "1", "-m", "32M", "new")
		d.Console("new").Expect("booted from the network")
		harness.WaitFor(t, "the VM to be gone", func() bool { _, ok := d.Rows()["new"]; return !ok })
	})
	harness.NothingRemains(t)
}

// A VM that cannot boot from the network does not start, and says why.
func TestNetBootWithoutROM(t *testing.T) {
	setUp(t)
	needSeaBIOS(t)
	const words = "vmctl: start vm command failed: Cannot boot from the network: "
	for _, c := range []struct {
		name, want string
		rom        []byte
	}{
		{"none", words + "boot device net needs a network boot ROM: there is none at /usr/lib/ipxe/qemu/pxe-virtio.rom: install the package ipxe-qemu", nil},
		{"garbage", words + `network boot ROM "/usr/lib/ipxe/qemu/pxe-virtio.rom": image at offset 0: it begins with 0000`, make([]byte, 512)},
		{"empty", words + `network boot ROM "/usr/lib/ipxe/qemu/pxe-virtio.rom": 0 bytes`, []byte{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			withROM(t, c.rom)
			d := harness.StartVMD(t, netBoot("a"))
			startFails(t, d, "a", c.want)
			harness.NothingRemains(t)
		})
	}
}

// A guest that was booted from the network moves, to a host that has neither the
// VM nor the ROM, and is again one that boots from there.
func TestNetBootMoves(t *testing.T) {
	setUp(t)
	needSeaBIOS(t)
	rom := withROM(t, bootROM("booted from the network.", romEcho))
	a, b := harness.StartVMD(t, netBoot("a")), harness.StartBeside(t, "")
	a.Vmctl("start", "a")
	c := a.Console("a")
	c.Expect("booted from the network")
	c.Expect(">")
	c.Type("1")
	c.Expect("1")
	over(t, "/dev/null", rom, 0)
	m := a.MoveTo(b, harness.MoveOptions{VM: "a"})
	if m.Sent.Status != 0 || m.Received.Status != 0 {
		t.Fatalf("send: status %d, %sreceive: status %d, %s", m.Sent.Status, m.Sent.Stderr, m.Received.Status, m.Received.Stderr)
	}
	c = b.Console("a")
	c.Expect("booted from the network")
	c.Expect(">")
	c.Type("2")
	c.Expect("2")
	b.Vmctl("stop", "-fw", "a")
}
