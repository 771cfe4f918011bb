package virtio

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the owner of a queue is to do, in Doorbell.ctl.
const (
	ctlRun = iota
	ctlPause
	ctlStop
)

// Doorbell is the eventfd that a guest's notification of a queue signals, and
// that whoever wants something of the queue's owner rings too. Nobody reads its
// count: the runtime's poller reports each ring (EPOLLET, epoll(7)), so that
// waking takes no system call of ours.
type Doorbell struct {
	ctl  atomic.Uint32
	rung atomic.Bool // by Ring, since the last wait
	fd   int

	// The rest is the waiting goroutine's.
	file  *os.File        // copy of fd that is in the poller
	conn  syscall.RawConn // of file
	hear  func(uintptr) bool
	asked bool // this wait has asked ready
	ready func() bool
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

// Ring wakes the queue's owner. It does not block.
func (d *Doorbell) Ring() {
	d.rung.Store(true)
	for {
		if _, err := unix.Write(d.fd, one[:]); err != unix.EINTR {
			return
		}
	}
}

// wait returns at once if ready says so or Ring was called since the last wait,
// else when the bell rings. What ready looks at must be rung for when it changes
// after that.
func (d *Doorbell) wait(ready func() bool) error {
	if d.file == nil {
		if err := d.listen(); err != nil {
			return err
		}
	}
	d.asked, d.ready = false, ready
	err := d.conn.Read(d.hear)
	d.rung.Store(false)
	return err
}

// heard is what the poller calls first when it has forgotten all rings so far,
// so that none is lost between ready's look and the next, and then after each.
func (d *Doorbell) heard(uintptr) bool {
	first := !d.asked
	d.asked = true
	return !first || d.rung.Load() || d.ready()
}

// listen puts the bell into the runtime's poller.
func (d *Doorbell) listen() error {
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d.file, d.hear = os.NewFile(uintptr(fd), "doorbell"), d.heard
	d.conn, err = d.file.SyscallConn()
	return err
}

// forget takes the bell out of the runtime's poller until the next wait, so
// that a ring wakes only whoever else listens. Nobody may be waiting.
func (d *Doorbell) forget() error {
	f := d.file
	if f == nil {
		return nil
	}
	d.file, d.conn = nil, nil
	return f.Close()
}

// Close gives the descriptor back. Nobody may be waiting.
func (d *Doorbell) Close() error { return errors.Join(d.forget(), unix.Close(d.fd)) }
