package parent

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// coded is an error that a client has a code for.
type coded struct {
	code vmop.Code
	err  error
}

func (c *coded) Error() string { return c.err.Error() }

func (c *coded) Unwrap() error { return c.err }

func code(c vmop.Code, format string, args ...any) error {
	return &coded{c, fmt.Errorf(format, args...)}
}

// codeOf is the code for err; ErrInternal if it has none.
func codeOf(err error) vmop.Code {
	var c *coded
	if errors.As(err, &c) {
		return c.code
	}
	return vmop.ErrInternal
}

// firmware is where distributions put SeaBIOS.
var firmware = []string{
	"/usr/share/seabios/bios-256k.bin",
	"/usr/share/qemu/bios-256k.bin",
	"/usr/share/qemu/seabios/bios-256k.bin",
	"/usr/share/seabios/bios.bin",
}

// netROMs is where distributions put iPXE's ROM for virtio interfaces.
var netROMs = []string{
	"/usr/lib/ipxe/qemu/pxe-virtio.rom",   // Debian
	"/usr/share/ipxe/qemu/pxe-virtio.rom", // Fedora
	"/usr/share/ipxe/1af41000.rom",        // before it
	"/usr/share/qemu/pxe-virtio.rom",      // with QEMU itself
}

// kind is what a file is for, and so what it must be.
type kind struct {
	what  string    // as vm.conf calls it
	code  vmop.Code // if it is not to be had
	write bool      // and nobody else may use it
	share bool      // nobody may write to it
	block bool      // a block device will do
	links bool      // its path may still have symbolic links in it

	unlocked bool // though it is to be written to: somebody else takes the lock
}

var (
	kernelFile = kind{what: "kernel", code: vmop.ErrKernel}
	initrdFile = kind{what: "initrd", code: vmop.ErrKernel}
	cdromFile  = kind{what: "cdrom", code: vmop.ErrCDROM, block: true, links: true}
	diskFile   = kind{what: "disk", code: vmop.ErrDisk, write: true, block: true}
	netROMFile = kind{what: "network boot ROM", code: vmop.ErrNoBootROM, links: true}
)

// open opens a file that the configuration names: root wrote it, so it is
// opened with root's rights. Links in its path were resolved when that was read:
// one that is there now was put there by whoever owns the directory. Nothing
// that waits for somebody is opened.
func (k *kind) open(path string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK, Resolve: unix.RESOLVE_NO_SYMLINKS}
	if k.write {
		how.Flags = how.Flags&^unix.O_ACCMODE | unix.O_RDWR
	}
	real, err := path, error(nil)
	if k.links {
		real, err = config.Realpath(path)
	}
	fd := -1
	if err == nil {
		fd, err = unix.Openat2(unix.AT_FDCWD, real, &how)
	}
	if err != nil {
		return nil, &coded{k.code, fmt.Errorf("open %s %q: %w", k.what, path, err)}
	}
	f := os.NewFile(uintptr(fd), path)
	if err := k.check(f, path, k.block); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// take checks a file that a client opened with its own rights. Those the kernel
// has checked; what the client may have done besides is checked here.
func (k *kind) take(f *os.File, path string, root bool) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return &coded{k.code, fmt.Errorf("%s %q: %w", k.what, path, err)}
	}
	switch {
	case flags&unix.O_PATH != 0 || flags&unix.O_ACCMODE == unix.O_WRONLY:
		return &coded{k.code, fmt.Errorf("%s %q: the descriptor is not open for reading", k.what, path)}
	case k.write && flags&unix.O_ACCMODE != unix.O_RDWR:
		return &coded{k.code, fmt.Errorf("%s %q: the descriptor is not open for writing", k.what, path)}
	case k.write && flags&(unix.O_APPEND|unix.O_DIRECT) != 0:
		// With O_APPEND a write goes to the end, whatever its offset (pwrite(2)).
		return &coded{k.code, fmt.Errorf("%s %q: the descriptor has O_APPEND or O_DIRECT", k.what, path)}
	}
	return k.check(f, path, k.block && root)
}

// check is what both have in common: the type, and the lock. A descriptor that
// was passed does not know its path.
func (k *kind) check(f *os.File, path string, block bool) error {
	st, err := f.Stat()
	if err != nil {
		return &coded{k.code, fmt.Errorf("%s: %w", k.what, err)}
	}
	mode := st.Mode()
	isBlock := mode.Type() == fs.ModeDevice
	if !mode.IsRegular() && !(block && isBlock) {
		return code(k.code, "%s %q: it is not a regular file", k.what, path)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, 0); err != nil { // no O_NONBLOCK from here on
		return &coded{k.code, fmt.Errorf("%s: %w", k.what, err)}
	}
	return k.lock(f, path)
}

// lock locks f for as long as any copy of the descriptor is open.
func (k *kind) lock(f *os.File, path string) error {
	how := unix.LOCK_NB | unix.LOCK_EX
	switch {
	case k.share:
		how = unix.LOCK_NB | unix.LOCK_SH
	case !k.write || k.unlocked:
		return nil
	}
	err := unix.Flock(int(f.Fd()), how)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return code(vmop.ErrDiskLocked, "%s %q: it is in use by another VM or program", k.what, path)
	}
	if err != nil {
		return &coded{k.code, fmt.Errorf("lock %s %q: %w", k.what, path, err)}
	}
	return nil
}

// openFirmware opens the host's firmware, which is at one of the paths.
func openFirmware(paths []string) (*os.File, error) {
	for _, path := range paths {
		if f, err := os.Open(path); err == nil {
			return f, nil
		}
	}
	return nil, code(vmop.ErrNoFirmware, "there is no firmware at %s: install the package seabios", paths[0])
}

// openNetROM opens the host's ROM to boot from the network with, which is at one
// of the paths.
func openNetROM(paths []string) (*os.File, error) {
	for _, path := range paths {
		f, err := netROMFile.open(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, code(vmop.ErrNoBootROM, "boot device net needs a network boot ROM: there is none at %s: "+
		"install the package ipxe-qemu (Debian) or ipxe-roms-qemu (Fedora)", paths[0])
}

// hostMemory is the memory of the host in bytes.
func hostMemory() uint64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return math.MaxUint64
	}
	return si.Totalram * uint64(si.Unit)
}

// checkMemory refuses a VM that can never have the memory it is defined with.
func checkMemory(want, have uint64) error {
	if want > have {
		return code(vmop.ErrMemory, "%d MiB of memory are defined, the host has %d MiB", want>>20, have>>20)
	}
	return nil
}
