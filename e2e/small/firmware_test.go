package small

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vmd/e2e/harness"
)

const seabios = "/usr/share/seabios/bios-256k.bin"

// bootSector reads the block after it with INT 13h, prints it with INT 10h up
// to a NUL, and switches off. It is the same on a disk and on a CD.
func bootSector() []byte {
	b := make([]byte, 512)
	copy(b, []byte{
		0x31, 0xc0, 0x8e, 0xd8, // ds = 0
		0x8e, 0xd0, 0xbc, 0x00, 0x7c, // stack below
		0xbe, 0x00, 0x7d, // si = packet at 0x7d00
		0xb4, 0x42, 0xcd, 0x13, // extended read
		0x72, 0x0e, // jc off
		0xbe, 0x00, 0x80, // si = 0x8000
		0xac, 0x84, 0xc0, // lodsb, test al
		0x74, 0x06, // jz off
		0xb4, 0x0e, 0xcd, 0x10, // teletype
		0xeb, 0xf5, // next
		0xba, 0x04, 0x06, 0xb8, 0x00, 0x34, 0xef, // off: S5
		0xf4,
	})
	copy(b[0x100:], []byte{16, 0, 1, 0, 0x00, 0x80, 0, 0, 1}) // one block, to 0:8000, from address 1
	b[510], b[511] = 0x55, 0xaa
	return b
}

// media writes a disk and a CD that boot, and say what they are.
func media(t *testing.T, dir string) (disk, cd string) {
	t.Helper()
	const block = 2048
	hd := append(bootSector(), "booted from the disk."...)
	hd = append(hd, make([]byte, 1<<20-len(hd))...)
	iso := make([]byte, 32*block)
	copy(iso[1*block:], "booted from the CD.")
	copy(iso[16*block:], "\x01CD001\x01")
	copy(iso[17*block:], "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(iso[17*block+0x47:], 19)
	copy(iso[18*block:], "\xffCD001\x01")
	catalog := iso[19*block:]
	copy(catalog, []byte{1})
	copy(catalog[28:], []byte{0xaa, 0x55, 0x55, 0xaa}) // the sum is 0
	copy(catalog[32:], []byte{0x88, 0, 0, 0, 0, 0, 4, 0, 20})
	copy(iso[20*block:], bootSector())
	disk, cd = filepath.Join(dir, "disk.img"), filepath.Join(dir, "cd.iso")
	for name, b := range map[string][]byte{disk: hd, cd: iso} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return disk, cd
}

// firmware defines a VM without a kernel, with more lines.
func firmware(name string, lines ...string) string {
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&b, "\t%s\n", l)
	}
	return fmt.Sprintf("vm %q {\n\tdisable\n\tmemory 32M\n%s}\n", name, &b)
}

// The firmware of the host's package boots what vm.conf says, and a boot file
// that is no kernel is firmware.
func TestFirmwareBoots(t *testing.T) {
	dir := setUp(t)
	if _, err := os.Stat(seabios); err != nil {
		t.Skipf("needs the package seabios: %v", err)
	}
	disk, cd := media(t, dir)
	both := []string{fmt.Sprintf("disk %q", disk), fmt.Sprintf("cdrom %q", cd)}
	d := harness.StartVMD(t,
		firmware("any", both...)+
			firmware("cd", append(both, "boot device cdrom")...)+
			firmware("old", append(both, "virtio transitional")...)+
			firmware("own", both[0], fmt.Sprintf("boot %q", seabios)))
	for name, want := range map[string]string{
		"any": "booted from the disk", "cd": "booted from the CD", "old": "booted from the disk", "own": "booted from the disk",
	} {
		t.Run(name, func(t *testing.T) {
			defer d.Use(d.Use(t))
			d.Vmctl("start", name)
			d.Console(name).Expect(want)
			d.Await(name, "stopped")
		})
	}
}
