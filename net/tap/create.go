// Package tap opens taps and moves frames through them. It is the only package
// that speaks to the kernel's tun driver (networking/tuntap.rst).
//
// Create makes a tap and takes CAP_NET_ADMIN; New needs a descriptor only, in
// whichever process and network namespace.
package tap

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Device is where the kernel's tun driver is found (networking/tuntap.rst).
const Device = "/dev/net/tun"

// MaxQueues is the most queues that Create opens.
const MaxQueues = 16

// nextFree makes the kernel put in the lowest number that is free (dev_alloc_name).
const nextFree = "tap%d"

// tunSetCarrier is TUNSETCARRIER, _IOW('T', 226, int) (linux/if_tun.h).
const tunSetCarrier = 0x400454e2

// Options say which tap Create opens. The zero value is the next free one.
type Options struct {
	Device string // path of the tun driver's node; "" is Device
	Name   string // "" is the next free tap and a number
	Queues int    // descriptors; 0 is 1
	// Existing attaches to a tap that somebody made persistent under Name.
	// Without it the name must be free. MultiQueue says of what kind it is.
	Existing   bool
	MultiQueue bool
	Down       bool // without a carrier
}

// Create opens a tap as New wants it: no offloads, a header of 12 bytes in
// little-endian byte order. It takes CAP_NET_ADMIN. The tap is down and, unless
// it existed, vanishes with the last copy of its descriptors. A name that is
// taken is unix.EBUSY.
func Create(o Options) (name string, queues []*os.File, err error) {
	n := max(o.Queues, 1)
	if n > MaxQueues {
		return "", nil, fmt.Errorf("open a tap with %d queues: at most %d can be", n, MaxQueues)
	}
	defer func() {
		if err != nil {
			for _, f := range queues {
				f.Close()
			}
			name, queues = "", nil
		}
	}()
	first := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if n > 1 || o.MultiQueue {
		first |= unix.IFF_MULTI_QUEUE
	}
	more := first
	if !o.Existing {
		first |= unix.IFF_TUN_EXCL
	}
	name = o.Name
	if name == "" {
		name = nextFree
	}
	for i, flags := 0, first; i < n; i, flags = i+1, more {
		var f *os.File
		if f, name, err = openQueue(o.Device, name, flags); err != nil {
			return "", queues, err
		}
		queues = append(queues, f)
	}
	return name, queues, prepare(int(queues[0].Fd()), o.Down)
}

// openQueue opens the driver and binds the descriptor to the tap called name,
// which may be nextFree. It returns the tap's real name.
func openQueue(device, name string, flags uint16) (*os.File, string, error) {
	if device == "" {
		device = Device
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, "", fmt.Errorf("open tap %q: name: %w", name, err)
	}
	fd, err := open(device)
	if err != nil {
		return nil, "", fmt.Errorf("open tap %s: %s: %w", name, device, err)
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, "", errors.Join(fmt.Errorf("open tap %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), ifr.Name()), ifr.Name(), nil
}

// open is not os.OpenFile, which would hand the descriptor to the runtime's
// poller before it is a tap.
func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// prepare sets what belongs to the whole tap.
func prepare(fd int, down bool) error {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, headerLen); err != nil {
		return fmt.Errorf("set up a tap: header size: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
		return fmt.Errorf("set up a tap: byte order: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0); err != nil {
		return fmt.Errorf("set up a tap: offloads: %w", err)
	}
	carrier := 1
	if down {
		carrier = 0
	}
	if err := unix.IoctlSetPointerInt(fd, tunSetCarrier, carrier); err != nil {
		return fmt.Errorf("set up a tap: carrier: %w", err)
	}
	return nil
}
