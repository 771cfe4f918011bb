package lab

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Software that is not Linux and not ours, below the folder that GuestsVar
// names. What the host has no package of is not there.
const (
	GuestXen         = "xen.gz"
	GuestMach        = "mach.gz"
	GuestMemtest     = "memtest.bin"
	GuestMemtestCD   = "memtest.iso"
	GuestIPXECD      = "ipxe.iso"
	GuestInstaller   = "installer" // Debian's kernel, which can be Xen's domain 0
	GuestInstallerRD = "installer.gz"

	GuestCD   = "grub.iso" // made by grub-mkrescue; the keys of its menu are those of cdMenu
	GuestDisk = "grub.img" // GRUB in the first sectors, a file system with its menu behind
)

// others are where packages put what is copied for guests; of several the last
// by name is taken.
var others = map[string]string{
	GuestXen:         "/boot/xen-*-amd64.gz",
	GuestMach:        "/boot/gnumach-*-?86.gz",
	GuestMemtest:     "/boot/memtest86+x64.bin",
	GuestMemtestCD:   "/usr/lib/memtest86+/memtest86+x64.iso",
	GuestIPXECD:      "/usr/lib/ipxe/ipxe.iso",
	GuestInstaller:   "/usr/lib/debian-installer/images/*/amd64/text/debian-installer/amd64/linux",
	GuestInstallerRD: "/usr/lib/debian-installer/images/*/amd64/text/debian-installer/amd64/initrd.gz",
}

// grubFiles are where Debian keeps GRUB for a PC.
const grubFiles = "/usr/lib/grub/i386-pc"

// grubHead makes GRUB use the serial port and wait for a key.
const grubHead = `serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=-1
`

// cdMenu is the menu of the CD. Xen does without SMAP: QEMU's TCG reads the
// stack of an IRET in user mode as the supervisor would (until 9.1), and a
// paravirtual kernel does that.
const cdMenu = grubHead + `
menuentry "Linux" --hotkey=l {
	linux /boot/` + GuestBzImage + ` console=ttyS0 quiet modules=no name=cd
	initrd /boot/` + GuestInitrd + `
}
menuentry "Xen" --hotkey=x {
	multiboot2 /boot/` + GuestXen + ` com1=115200,8n1 console=com1 smap=0 dom0_mem=192M
	module2 /boot/` + GuestInstaller + ` console=hvc0 quiet modules=no name=dom0
	module2 /boot/` + GuestInitrd + `
}
`

// diskMenu is the menu of the disk.
const diskMenu = grubHead + `
menuentry "Mach" --hotkey=g {
	multiboot /` + GuestMach + ` console=com0
}
menuentry "Memtest" --hotkey=m {
	linux /` + GuestMemtest + ` console=ttyS0,115200
}
`

// lookOther returns the path of a file of others, or "".
func lookOther(pattern string) string {
	found, _ := filepath.Glob(pattern)
	slices.Sort(found)
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// mediaForm names how media are made: another form, another name, or the cache
// would go on with the old ones.
const mediaForm = "media 2"

// mediaInputs are what buildMedia depends on.
func mediaInputs() []string {
	in := []string{mediaForm, cdMenu, diskMenu, stamp(grubFiles)}
	for _, name := range []string{"grub-mkrescue", "grub-mkimage", "xorriso", "mke2fs"} {
		path, err := lookTool(name)
		in = append(in, fmt.Sprint(path, err))
	}
	for _, pattern := range others {
		in = append(in, stamp(lookOther(pattern)))
	}
	slices.Sort(in) // a map has no order
	return in
}

// buildMedia copies what others there are to dir, and makes the CD and the
// disk, which may lack them, if the host has the tools.
func buildMedia(dir string) error {
	for name, pattern := range others {
		if from := lookOther(pattern); from != "" {
			if err := copyFile(from, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	if err := buildCD(dir); err != nil {
		return fmt.Errorf("%s: %w", GuestCD, err)
	}
	if err := buildDisk(dir); err != nil {
		return fmt.Errorf("%s: %w", GuestDisk, err)
	}
	return nil
}

// put copies files of dir that there are to a folder below it, with a menu.
func put(dir, to, menu, menuAt string, names ...string) error {
	for _, name := range names {
		from := filepath.Join(dir, name)
		if _, err := os.Stat(from); os.IsNotExist(err) {
			continue
		}
		if err := copyFile(from, filepath.Join(to, name)); err != nil {
			return err
		}
	}
	menuAt = filepath.Join(menuAt, "boot/grub")
	if err := os.MkdirAll(menuAt, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(menuAt, "grub.cfg"), []byte(menu), 0o644)
}

func haveTools(names ...string) bool {
	for _, name := range names {
		if _, err := lookTool(name); err != nil {
			return false
		}
	}
	_, err := os.Stat(grubFiles)
	return err == nil
}

func buildCD(dir string) error {
	if !haveTools("grub-mkrescue", "xorriso") {
		return nil
	}
	tree := filepath.Join(dir, "tree")
	defer os.RemoveAll(tree)
	if err := put(dir, filepath.Join(tree, "boot"), cdMenu, tree, GuestBzImage, GuestInitrd, GuestXen, GuestInstaller); err != nil {
		return err
	}
	_, err := output("grub-mkrescue", "-d", grubFiles, "--fonts=", "--locales=", "--themes=",
		"--install-modules=normal linux multiboot2 serial gzio", "-o", filepath.Join(dir, GuestCD), tree)
	return err
}

// The disk: 2048 sectors for GRUB, then one partition.
const (
	diskFirst   = 2048
	diskSectors = 32 << 10
)

func buildDisk(dir string) error {
	if !haveTools("grub-mkimage", "mke2fs") {
		return nil
	}
	tree, core := filepath.Join(dir, "tree"), filepath.Join(dir, "core.img")
	defer os.RemoveAll(tree)
	defer os.Remove(core)
	if err := put(dir, tree, diskMenu, tree, GuestMach, GuestMemtest); err != nil {
		return err
	}
	if _, err := output("grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", core,
		"biosdisk", "part_msdos", "ext2", "serial", "terminal", "normal", "linux", "multiboot", "gzio"); err != nil {
		return err
	}
	head, err := bootSectors(core)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, GuestDisk)
	if err := os.WriteFile(path, head, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(path, diskSectors*512); err != nil {
		return err
	}
	mke2fs, err := lookTool("mke2fs")
	if err != nil {
		return err
	}
	_, err = output(mke2fs, "-q", "-F", "-t", "ext2", "-d", tree,
		"-E", fmt.Sprintf("offset=%d,root_owner=0:0", diskFirst*512), path, fmt.Sprintf("%dk", (diskSectors-diskFirst)/2))
	return err
}

// bootSectors is what stands before the partition: GRUB's boot sector with a
// partition table, and its core image, which it looks for in the next sector.
func bootSectors(core string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(grubFiles, "boot.img"))
	if err != nil {
		return nil, err
	}
	if len(b) != 512 {
		return nil, fmt.Errorf("boot.img has %d bytes: %w", len(b), io.ErrUnexpectedEOF)
	}
	image, err := os.ReadFile(core)
	if err != nil {
		return nil, err
	}
	if len(image) > (diskFirst-1)*512 {
		return nil, fmt.Errorf("a core image of %d bytes does not fit", len(image))
	}
	clear(b[446:510]) // code for floppies is in the table's place
	entry := b[446:]  // bootable, of Linux, by sectors
	entry[0], entry[4] = 0x80, 0x83
	binary.LittleEndian.PutUint32(entry[8:], diskFirst)
	binary.LittleEndian.PutUint32(entry[12:], diskSectors-diskFirst)
	return append(b, image...), nil
}
