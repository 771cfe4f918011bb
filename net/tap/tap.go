package tap

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// headerLen is the virtio_net_hdr with num_buffers that a Tap has in front of
// each frame (linux/virtio_net.h, struct virtio_net_hdr_mrg_rxbuf).
const headerLen = 12

// maxSegments is how many buffers a frame may be spread over.
const maxSegments = 256

// offloads are the TUNSETOFFLOAD bits that every kernel in scope has.
const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6

// ErrNotTap says that a descriptor is not that of a tap with virtio headers.
var ErrNotTap = errors.New("not a tap with IFF_VNET_HDR and IFF_NO_PI")

// Tap is an open tap: frames go in and out by its descriptor, each with a
// virtio_net_hdr of 12 bytes before it, little-endian. One goroutine may read
// while another writes.
type Tap struct {
	fd   int
	file *os.File // copy of fd that waits in the runtime's poller
	raw  syscall.RawConn
	many bool // one of several queues, or of one that could have them

	rd    transfer // of the goroutine that reads
	wait  bool
	tryRd func(uintptr) bool // rd, as the poller wants it; made once

	wr transfer // of the goroutine that writes
}

// New makes a Tap of fd, on which TUNSETIFF has been done with IFF_TAP,
// IFF_NO_PI and IFF_VNET_HDR. It owns fd from then on, also if it fails.
func New(fd int) (*Tap, error) {
	flags, err := setup(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tap: %w", err), unix.Close(fd))
	}
	t := &Tap{fd: fd, many: flags&unix.IFF_MULTI_QUEUE != 0}
	t.tryRd = t.tryRead
	if err := t.Return(); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return t, nil
}

// Lend returns the descriptor for the kernel's own data path (vhost) to move the
// frames, and takes the tap out of the poller, which would wake for each. Until
// Return nobody may read, write or wake.
func (t *Tap) Lend() (int, error) { return t.fd, t.file.Close() }

// Return takes the tap back that was lent.
func (t *Tap) Return() error {
	fd, err := unix.FcntlInt(uintptr(t.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("tap: %w", err)
	}
	t.file = os.NewFile(uintptr(fd), "tap")
	if t.raw, err = t.file.SyscallConn(); err == nil {
		err = t.file.SetReadDeadline(time.Time{}) // fails if the poller has no part in it
	}
	if err != nil {
		return errors.Join(fmt.Errorf("tap: %w", err), t.file.Close())
	}
	return nil
}

// setup makes the descriptor what the rest of the package relies on, and returns
// the tap's flags.
func setup(fd int) (flags uint16, err error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return 0, fmt.Errorf("ask for its kind: %w", err)
	}
	const want = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if ifr.Uint16()&want != want {
		return 0, ErrNotTap
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, headerLen); err != nil {
		return 0, fmt.Errorf("set the header's size: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
		return 0, fmt.Errorf("set the header's byte order: %w", err)
	}
	return ifr.Uint16(), unix.SetNonblock(fd, true)
}

// Offloads are the TUN_F_ bits that SetOffload takes.
func (t *Tap) Offloads() uint32 { return offloads }

// SetOffload says which kinds of unfinished frames the reader can take: TUN_F_
// bits of linux/if_tun.h. Others are finished by the kernel.
func (t *Tap) SetOffload(bits uint32) error {
	if err := unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, int(bits)); err != nil {
		return fmt.Errorf("set offloads %#x of a tap: %w", bits, err)
	}
	return nil
}

// SetActive says whether the kernel may choose this queue of a tap with several
// for a frame. Every queue is active at first; a tap of one queue stays so.
func (t *Tap) SetActive(on bool) error {
	if !t.many {
		return nil
	}
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	word, flag := "detach", uint16(unix.IFF_DETACH_QUEUE)
	if on {
		word, flag = "attach", unix.IFF_ATTACH_QUEUE
	}
	ifr.SetUint16(flag)
	// A queue that is what it shall be already is EINVAL (tun_set_queue).
	if err := unix.IoctlIfreq(t.fd, unix.TUNSETQUEUE, ifr); err != nil && err != unix.EINVAL {
		return fmt.Errorf("%s a queue of a tap: %w", word, err)
	}
	return nil
}

// ReadFrame scatters the next frame over bufs and returns its length with the
// header. A frame that is longer than bufs fills them; the rest is lost. Where
// there is none it returns 0: at once, or if wait is set, after Wake. It does
// not allocate.
func (t *Tap) ReadFrame(bufs [][]byte, wait bool) (int, error) {
	if err := t.rd.set(bufs); err != nil {
		return 0, err
	}
	t.wait = wait
	err := t.raw.Read(t.tryRd)
	if errors.Is(err, os.ErrDeadlineExceeded) { // Wake
		return 0, t.file.SetReadDeadline(time.Time{})
	}
	if err == nil {
		err = t.rd.err()
	}
	return t.rd.done, err
}

// tryRead is one attempt; it returns false to be called again when the tap
// becomes readable.
func (t *Tap) tryRead(fd uintptr) bool {
	t.rd.run(unix.SYS_READV, fd)
	return !t.wait || t.rd.errno != unix.EAGAIN
}

// WriteFrame sends the frame gathered from bufs. It neither blocks nor
// allocates; a frame that the kernel does not take is lost.
func (t *Tap) WriteFrame(bufs [][]byte) error {
	if err := t.wr.set(bufs); err != nil {
		return err
	}
	t.wr.run(unix.SYS_WRITEV, uintptr(t.fd))
	if t.wr.errno != 0 {
		return t.wr.errno
	}
	return nil
}

// past is a deadline that has come.
var past = time.Unix(1, 0)

// Wake makes the ReadFrame that waits, or the next one, return 0. It may be
// called from any goroutine.
func (t *Tap) Wake() { _ = t.file.SetReadDeadline(past) } // fails only once closed

// Close gives the descriptor up. Nobody may be writing.
func (t *Tap) Close() error {
	err := t.file.Close()
	if errors.Is(err, os.ErrClosed) { // lent
		err = nil
	}
	return errors.Join(err, unix.Close(t.fd))
}

// transfer is one readv(2) or writev(2), kept so that it need not be made anew.
type transfer struct {
	v     [maxSegments]unix.Iovec
	n     int
	done  int
	errno unix.Errno
}

// set makes bufs what the next run moves.
func (x *transfer) set(bufs [][]byte) error {
	x.n, x.done, x.errno = 0, 0, 0
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		if x.n == len(x.v) {
			return unix.EMSGSIZE
		}
		x.v[x.n].Base = &b[0]
		x.v[x.n].SetLen(len(b))
		x.n++
	}
	return nil
}

func (x *transfer) run(op, fd uintptr) {
	for {
		if x.done, x.errno = vectored(op, fd, x.v[:x.n]); x.errno != unix.EINTR {
			return
		}
	}
}

// err is what became of a read; that there is no frame is none.
func (x *transfer) err() error {
	switch x.errno {
	case 0:
		return nil
	case unix.EAGAIN:
		x.done = 0
		return nil
	}
	x.done = 0
	return x.errno
}
