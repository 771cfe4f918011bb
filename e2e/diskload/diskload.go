// Package diskload is what guests do to their disks in tests and measurements,
// and what the host knows about it. Guests have its program in their initrd:
//
//	diskload time DEVICE             jobs of fixed size, with how long each took
//	diskload fill DEVICE MIB FIRST   records up to MIB, synced
//	diskload verify DEVICE MIB FIRST that they are there; both say "done N" of MiB
//	diskload records DEVICE FIRST    records without end, "synced N" after each batch
package diskload

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Program is the path of the program in the lab machine.
const Program = "/usr/sbin/diskload"

var errUsage = errors.New("usage: diskload time|fill|verify|records DEVICE [MIB] [FIRST]")

// Main is the program. It returns its exit status.
func Main() int {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Println("diskload:", err)
		return 1
	}
	return 0
}

func run(args []string, out io.Writer) error {
	if len(args) < 2 {
		return errUsage
	}
	var n []int64
	for _, a := range args[2:] {
		v, err := strconv.ParseInt(a, 10, 64)
		if err != nil {
			return err
		}
		n = append(n, v)
	}
	d, err := openDevice(args[1])
	if err != nil {
		return err
	}
	switch cmd := args[0]; {
	case cmd == "time" && len(n) == 0:
		return d.timeJobs(out)
	case cmd == "fill" && len(n) == 2:
		return d.fill(out, n[0], uint32(n[1]))
	case cmd == "verify" && len(n) == 2:
		return d.verify(out, n[0], uint32(n[1]))
	case cmd == "records" && len(n) == 1:
		return d.records(out, uint32(n[0]))
	}
	return errUsage
}

// device is a disk, used past the guest's own cache: what is measured and
// verified is the disk.
type device struct {
	fd   int
	size int64
	buf  []byte // bufSize, aligned to pages
}

const (
	mib     = 1 << 20
	bufSize = mib
)

func openDevice(name string) (*device, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	size, err := unix.Seek(fd, 0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", name, err)
	}
	buf, err := unix.Mmap(-1, 0, bufSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("buffer: %w", err)
	}
	return &device{fd, size, buf}, nil
}

func (d *device) read(b []byte, off int64) error {
	if n, err := unix.Pread(d.fd, b, off); err != nil || n != len(b) {
		return fmt.Errorf("read %d bytes at %d: %d, %w", len(b), off, n, err)
	}
	return nil
}

func (d *device) write(b []byte, off int64) error {
	if n, err := unix.Pwrite(d.fd, b, off); err != nil || n != len(b) {
		return fmt.Errorf("write %d bytes at %d: %d, %w", len(b), off, n, err)
	}
	return nil
}

func (d *device) sync() error {
	if err := unix.Fdatasync(d.fd); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}
