// Package lab runs programs in an emulated AMD-V machine, where a stock Linux
// kernel has a real kvm_amd, VRF, VLANs and vhost, on hosts that have none of
// these. It needs QEMU's TCG and Debian's cloud kernel, but neither /dev/kvm
// nor root.
//
// The machine (L1) is built of three files: a small initramfs; a root image
// with busybox, snmpd, the kernel's modules and the files for guests (L2),
// made once and kept by the hash of what is in it; and a tar archive with the
// files of this run. Its root is an overlay in memory, so everything in it
// can be written to and is gone afterwards. The command's output, a folder of
// results and the exit status come back over virtio ports.
//
// Main makes a test binary run itself there.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"vmd/internal/testenv"
)

// GuestsVar is the environment variable with the folder of the files for
// guests, in the lab and beside it.
const GuestsVar = "VMD_TEST_GUESTS"

// Options say what to run in the lab machine. The zero value of each but
// Command will do.
type Options struct {
	Command []string // as root; its standard input is empty
	Dir     string   // where to run it, as named in the machine
	Env     []string // more environment, as "NAME=value"
	Files   []File   // put into the machine, over what is there

	Results string    // folder of the host that receives /results
	Stdout  io.Writer // receives the command's output and errors
	Console string    // file of the host for the kernel's messages

	Timeout time.Duration // of the machine, once no other runs; 0 is 10 minutes
	Virtual bool          // count time in instructions: measurements repeat
	QEMU    bool          // have QEMU in the machine, to compare with
	Shell   bool          // no Command: a shell on the terminal
}

// File is a file for the lab machine.
type File struct {
	Name string      // absolute, in the machine
	Path string      // of the host; Data is used if it is empty
	Data []byte      // contents
	Mode fs.FileMode // permissions; 0 is 0644
}

// ErrUnavailable is wrapped by errors that say why this host has no lab.
var ErrUnavailable = errors.New("no lab on this host")

// Available returns nil if this host can run the lab, else why not.
func Available() error {
	_, err := findHost()
	return err
}

// host is what a lab is made of.
type host struct {
	qemu, mke2fs string
	kernel       *kernel
}

// needMiB is the memory that a host must have free: the machine and QEMU.
const needMiB = machineMiB + 512

func findHost() (*host, error) {
	var h host
	var err error
	for name, path := range map[string]*string{"qemu-system-x86_64": &h.qemu, "mke2fs": &h.mke2fs} {
		if *path, err = lookTool(name); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if _, _, err := busybox(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if h.kernel, err = findKernel(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if free := memAvailableMiB(); free < needMiB {
		return nil, fmt.Errorf("%w: %d MiB of memory are free, it needs %d", ErrUnavailable, free, needMiB)
	}
	return &h, nil
}

func memAvailableMiB() int {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range bytesLines(b) {
		var kib int
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			return kib >> 10
		}
	}
	return 0
}

// Run runs a command in the lab machine and returns its exit status. An error
// means that the machine itself did not work, or took too long.
func Run(ctx context.Context, o Options) (int, error) {
	h, err := findHost()
	if err != nil {
		return 0, err
	}
	base, err := h.base(o.QEMU)
	if err != nil {
		return 0, fmt.Errorf("build the lab's image: %w", err)
	}
	work, err := os.MkdirTemp("", "vmdlab")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(work)
	if err := writePayload(filepath.Join(work, "payload.tar"), o); err != nil {
		return 0, fmt.Errorf("pack the lab's files: %w", err)
	}
	unlock, err := oneAtATime(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	return h.boot(ctx, base, work, o)
}

// Guests returns a folder with the files for guests, for hosts whose own KVM
// runs them.
func Guests() (string, error) {
	h := new(host)
	var err error
	if h.kernel, err = findKernel(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return h.guests()
}

func lookTool(name string) (string, error) {
	path, err := testenv.LookTool(name)
	if err != nil {
		return "", fmt.Errorf("program %s: %w", name, err)
	}
	return path, nil
}

// output returns what a program of the host prints.
func output(name string, args ...string) (string, error) {
	b, err := exec.Command(name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(b), fmt.Errorf("%s: %w: %s", filepath.Base(name), err, exit.Stderr)
	}
	return string(b), err
}
