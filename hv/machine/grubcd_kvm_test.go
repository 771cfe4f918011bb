package machine

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio/vioscsi"
	"vmd/internal/testenv"
)

// grubCD is a CD that boots GRUB and nothing else, by El Torito without
// emulation. cdboot.img, the core image's first block, finds the rest by the boot
// information table (mkisofs(8), EL TORITO BOOT INFORMATION TABLE).
func grubCD(t *testing.T) []byte {
	t.Helper()
	mkimage := testenv.Tool(t, "grub-mkimage")
	if _, err := os.Stat("/usr/lib/grub/i386-pc/cdboot.img"); err != nil {
		t.Skipf("needs the package grub-pc-bin: %v", err)
	}
	dir := t.TempDir()
	cfg, core := filepath.Join(dir, "early.cfg"), filepath.Join(dir, "core.img")
	if err := os.WriteFile(cfg, []byte(grubScript), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(mkimage, "-O", "i386-pc-eltorito", "-p", "/x", "-c", cfg, "-o", core,
		"biosdisk", "serial", "terminal").CombinedOutput()
	if err != nil {
		t.Fatalf("grub-mkimage: %v: %s", err, out)
	}
	image, err := os.ReadFile(core)
	if err != nil {
		t.Fatal(err)
	}
	const block, at = 2048, 20
	le := binary.LittleEndian
	le.PutUint32(image[8:], 16)
	le.PutUint32(image[12:], at)
	le.PutUint32(image[16:], uint32(len(image)))
	cd := append(cdROM("")[:at*block], image...)
	return append(cd, make([]byte, 64*block-len(cd)%block)...)
}

// GRUB's way to a CD: SeaBIOS's driver for our SCSI, in blocks of 2 KiB.
func TestGRUBFromCD(t *testing.T) {
	fw, cd := seabios(t), grubCD(t)
	t.Parallel()
	s := newStock(t, 1)
	if err := s.AddVirtio(pci.SlotCD, "cd0", vioscsi.New(medium(t, cd))); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(Boot{Firmware: fw, Device: BootCD}); err != nil {
		t.Fatal(err)
	}
	start(t, s.Machine)

	s.wait(t, "rescue>")
	s.say("set\r")
	s.wait(t, "prefix=(hd96)/x")
	s.Stop()
	end(t, s.Machine, Killed)
}
