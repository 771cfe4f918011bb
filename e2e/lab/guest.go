package lab

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Names of the files for guests, below the folder that GuestsVar names.
const (
	GuestBzImage = "bzImage" // the distribution's kernel as it is
	GuestVMLinux = "vmlinux" // the ELF file in it, with a PVH entry
	GuestInitrd  = "initrd"  // files/guest.sh as process 1
)

//go:embed files/guest.sh
var guestInit string

//go:embed files/udhcpc.sh
var guestDHCP string

// guestModules are what a guest loads: disks, networks, entropy, and the
// power button with the events of /dev/input that acpid reads.
var guestModules = []string{"virtio_pci", "virtio_blk", "virtio_net", "virtio_rng",
	"virtio_balloon", "virtio_scsi", "sr_mod", "isofs", "evdev", "button"}

// buildGuests writes the files for guests to dir.
func buildGuests(k *kernel, dir string) error {
	bz, err := os.ReadFile(k.image)
	if err != nil {
		return err
	}
	elf, err := extractVMLinux(bz)
	if err != nil {
		return fmt.Errorf("%s: %w", k.image, err)
	}
	initrd, err := guestInitrd(k)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{GuestBzImage: bz, GuestVMLinux: elf, GuestInitrd: initrd} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return buildMedia(dir)
}

// guestInitrd is not compressed: unpacking would cost a guest more time than
// reading.
func guestInitrd(k *kernel) ([]byte, error) {
	var c cpio
	for _, dir := range []string{"bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF",
		"proc", "root", "run", "sys", "tmp", "var", "var/run"} {
		c.dir(dir)
	}
	c.char("dev/console", 5, 1)
	if err := addBusybox(&c); err != nil {
		return nil, err
	}
	c.link("sbin", "bin")
	c.file("init", []byte(guestInit))
	c.file("etc/udhcpc.sh", []byte(guestDHCP))
	// acpid's name for the power button (busybox acpid, its action table).
	c.file("etc/acpi/PWRF/00000080", []byte("#!/bin/sh\necho guest: power button >/dev/console\npoweroff -f\n"))
	if err := k.addModules(&c, guestModules...); err != nil {
		return nil, err
	}
	return c.finish(), nil
}

// addBusybox puts busybox and links for its applets into an initramfs.
func addBusybox(c *cpio) error {
	path, applets, err := busybox()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	c.file("bin/busybox", b)
	for _, name := range applets {
		c.link("bin/"+name, "busybox")
	}
	return nil
}

// busybox returns the path of a static busybox and what it can do.
func busybox() (string, []string, error) {
	path, err := lookTool("busybox")
	if err != nil {
		return "", nil, err
	}
	out, err := output(path, "--list")
	if err != nil {
		return "", nil, err
	}
	var applets []string
	for name := range strings.FieldsSeq(out) {
		if name != "busybox" {
			applets = append(applets, name)
		}
	}
	return path, applets, nil
}
