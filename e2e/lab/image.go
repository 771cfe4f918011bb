package lab

import (
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

//go:embed files/stage1.sh
var stage1 string

//go:embed files/stage2.sh
var stage2 string

//go:embed files/passwd
var passwd string

//go:embed files/group
var group string

//go:embed files/nsswitch.conf
var nsswitch string

// Files of a base folder.
const (
	baseImage  = "root.img"
	baseInitrd = "initrd"
)

// stage1Modules are what the machine needs to find its root.
var stage1Modules = []string{"virtio_pci", "virtio_blk", "virtio_console", "overlay"}

// tools are the programs of the host that the machine has beside busybox.
// Those that a host lacks are left out: the tests that need them say so.
var tools = []string{"snmpd", "snmptrapd", "snmpget", "snmpgetnext", "snmpwalk",
	"snmpbulkwalk", "snmpset", "snmptrap", "ip", "bridge", "tc", "nft", "ethtool",
	"qemu-img", "qemu-io", "mke2fs", "kmod", "setpriv", "nsenter", "unshare", "grub-mkimage",
	"dnsmasq",
	"systemctl", "/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-shutdown"}

// toolLinks are names by which kmod's programs are called.
var toolLinks = []string{"modprobe", "insmod", "rmmod", "lsmod", "depmod", "modinfo"}

// trees are folders and files of the host that are copied whole; with QEMU, also
// qemuTrees.
var (
	trees     = []string{"/usr/share/seabios", "/usr/lib/ipxe/qemu/pxe-virtio.rom", "/usr/lib/grub/i386-pc", "/usr/lib/systemd/system"}
	qemuTrees = []string{"/usr/share/qemu"}
)

// base returns the folder with the root image and the initramfs.
func (h *host) base(withQEMU bool) (string, error) {
	guests, err := h.guests()
	if err != nil {
		return "", err
	}
	bb, _, err := busybox()
	if err != nil {
		return "", err
	}
	t := &tree{programs: []string{}}
	inputs := []string{stage1, stage2, passwd, group, nsswitch, guests, stamp(bb),
		stamp(filepath.Join(h.kernel.modules, "modules.dep"))}
	for _, name := range tools {
		if path, err := lookTool(name); err == nil {
			t.programs = append(t.programs, path)
		}
	}
	t.copies = trees
	if withQEMU {
		t.programs = append(t.programs, h.qemu)
		t.copies = append(append([]string{}, trees...), qemuTrees...)
	}
	for _, p := range append(t.programs, t.copies...) {
		inputs = append(inputs, stamp(p))
	}
	return cached("base", inputs, func(dir string) error {
		return h.buildBase(dir, t, guests)
	})
}

// guests returns the folder with the files for guests.
func (h *host) guests() (string, error) {
	bb, _, err := busybox()
	if err != nil {
		return "", err
	}
	inputs := append([]string{guestInit, guestDHCP, stamp(bb), stamp(h.kernel.image)}, guestModules...)
	inputs = append(inputs, mediaInputs()...)
	return cached("guests", inputs, func(dir string) error { return buildGuests(h.kernel, dir) })
}

func (h *host) buildBase(dir string, t *tree, guests string) error {
	t.dir = filepath.Join(dir, "tree")
	if err := h.fillTree(t, guests); err != nil {
		return err
	}
	kib, err := t.sizeKiB()
	if err != nil {
		return err
	}
	// One folder of the host becomes a file system without root
	// (mke2fs(8), -d); nothing writes to it, so it has no journal.
	_, err = output(h.mke2fs, "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0",
		"-E", "root_owner=0:0", "-d", t.dir, filepath.Join(dir, baseImage), fmt.Sprintf("%dk", kib))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(t.dir); err != nil {
		return err
	}
	initrd, err := h.initrd()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, baseInitrd), initrd, 0o644)
}

func (h *host) initrd() ([]byte, error) {
	var c cpio
	for _, dir := range []string{"bin", "dev", "lower", "over", "root"} {
		c.dir(dir)
	}
	c.char("dev/console", 5, 1)
	bb, _, err := busybox()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(bb)
	if err != nil {
		return nil, err
	}
	c.file("bin/busybox", b)
	c.file("init", []byte(stage1))
	if err := h.kernel.addModules(&c, stage1Modules...); err != nil {
		return nil, err
	}
	return c.finish(), nil
}

// fillTree lays out the root of the machine as Debian does, with /bin, /sbin
// and /lib as links into /usr.
func (h *host) fillTree(t *tree, guests string) error {
	t.dirs("boot", "dev", "etc", "guest", "home/alice", "home/bob", "lab", "proc", "root", "run",
		"src", "sys", "tmp", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var/lib", "var/empty", "var/log")
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		t.link(name, "usr/"+name)
	}
	t.link("var/run", "../run")
	for _, p := range t.programs {
		t.program(p)
	}
	for _, name := range toolLinks {
		t.link("usr/sbin/"+name, "../bin/kmod")
	}
	for _, p := range t.copies {
		t.copyTree(p, p)
	}
	t.busybox()
	t.copyTree(h.kernel.modules, filepath.Join("/usr/lib/modules", h.kernel.version))
	t.copyTree(guests, "/guest")
	for name, text := range userFiles() {
		t.text(name, text, 0o644)
	}
	t.text("etc/nsswitch.conf", nsswitch, 0o644)
	t.text("etc/hosts", "127.0.0.1 localhost lab\n::1 localhost\n", 0o644)
	t.text("lab/init", stage2, 0o755)
	return t.err
}

// userFiles are the files that say who there is.
func userFiles() map[string]string {
	return map[string]string{
		"etc/passwd": passwd, "etc/group": group,
		"etc/subuid": subids, "etc/subgid": subids,
	}
}

// subids is the range of ids for guests, see vmd(8).
const subids = "_vmd:200000:65536\n"

// tree is a root folder being filled. The first error stays.
type tree struct {
	dir      string
	programs []string // files of the host to have, with their libraries
	copies   []string // folders of the host to have
	err      error
}

func (t *tree) path(name string) string { return filepath.Join(t.dir, name) }

func (t *tree) do(f func() error) {
	if t.err == nil {
		t.err = f()
	}
}

func (t *tree) dirs(names ...string) {
	for _, name := range names {
		t.do(func() error { return os.MkdirAll(t.path(name), 0o755) })
	}
}

func (t *tree) link(name, target string) {
	t.do(func() error { return os.Symlink(target, t.path(name)) })
}

func (t *tree) text(name, text string, mode fs.FileMode) {
	t.do(func() error { return os.WriteFile(t.path(name), []byte(text), mode) })
}

// program copies a program and the libraries it is linked with.
func (t *tree) program(path string) {
	t.copyFile(path, path)
	for _, lib := range libraries(path) {
		t.copyFile(lib, lib)
	}
}

// libraries returns the files that ldd(1) lists; none for a static program.
func libraries(path string) []string {
	out, err := output("ldd", path)
	if err != nil {
		return nil
	}
	var libs []string
	for word := range strings.FieldsSeq(out) {
		if strings.HasPrefix(word, "/") {
			libs = append(libs, strings.TrimSuffix(word, ":"))
		}
	}
	return libs
}

// busybox copies busybox, and links its applets where no better program is.
func (t *tree) busybox() {
	path, applets, err := busybox()
	if err != nil {
		t.do(func() error { return err })
		return
	}
	t.copyFile(path, "/usr/bin/busybox")
	for _, name := range applets {
		_, inBin := os.Lstat(t.path("usr/bin/" + name))
		_, inSbin := os.Lstat(t.path("usr/sbin/" + name))
		if inBin != nil && inSbin != nil {
			t.link("usr/bin/"+name, "busybox")
		}
	}
}
