package virtio

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// What the owner of a queue is to do, in Doorbell.ctl.
const (
	ctlRun = iota
	ctlPause
	ctlStop
)

// Doorbell is the eventfd that a guest's notification of a queue signals, and
// that whoever wants something of the queue's owner rings too. Rings that
// nobody has heard yet are one.
type Doorbell struct {
	ctl  atomic.Uint32
	fd   int
	file *os.File // copy of fd that waits in the runtime's poller; the waiting goroutine's
	buf  [8]byte  // likewise
}

// one is what ringing writes: an eventfd adds it up (eventfd(2)).
var one = [8]byte{1}

// NewDoorbell makes a doorbell, which must be closed.
func NewDoorbell() (*Doorbell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	return &Doorbell{fd: fd}, nil
}

// FD is the eventfd. It stays the doorbell's.
func (d *Doorbell) FD() int { return d.fd }

// Ring wakes the queue's owner. It does not block: an eventfd that is full says
// so, and its reader will wake anyway.
func (d *Doorbell) Ring() {
	for {
		if _, err := unix.Write(d.fd, one[:]); err != unix.EINTR {
			return
		}
	}
}

// wait returns once the bell has been rung since the last wait.
func (d *Doorbell) wait() error {
	if d.file == nil {
		fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		d.file = os.NewFile(uintptr(fd), "doorbell")
	}
	_, err := d.file.Read(d.buf[:])
	return err
}

// forget takes the bell out of the runtime's poller until the next wait, so
// that a ring wakes only whoever else listens. Nobody may be waiting.
func (d *Doorbell) forget() error {
	f := d.file
	if f == nil {
		return nil
	}
	d.file = nil
	return f.Close()
}

// Close gives the descriptor back. Nobody may be waiting.
func (d *Doorbell) Close() error { return errors.Join(d.forget(), unix.Close(d.fd)) }
