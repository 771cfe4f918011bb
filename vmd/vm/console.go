package vm

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxViewers is how many connections a console serves beside its pty.
const maxViewers = 16

// console joins a guest's serial port with those who look at it: the pty, and
// any number of viewers that came through the control socket. Each has a
// goroutine for either direction, so that none waits for another and the guest
// waits for nobody.
type console struct {
	out *ring

	// type_ hands bytes to the guest and says how many it took; room is
	// signalled when it is ready for more.
	type_ func([]byte) int
	input sync.Mutex // one sender at a time, so that pastes do not mix
	room  chan struct{}

	mu      sync.Mutex
	viewers map[*os.File]struct{}
	closed  bool
	writers sync.WaitGroup
}

func newConsole() *console {
	return &console{out: newRing(), room: make(chan struct{}, 1), viewers: map[*os.File]struct{}{}}
}

// ready is called on a vCPU's thread when the guest has read its input.
func (c *console) ready() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// attach serves f, until its peer closes it or the console ends. A viewer that
// does not fit is closed.
func (c *console) attach(f *os.File, readOnly, replay bool) {
	f, err := pollable(f)
	if err != nil {
		return
	}
	c.mu.Lock()
	c.prune()
	if c.closed || len(c.viewers) >= maxViewers {
		c.mu.Unlock()
		f.Close()
		return
	}
	c.viewers[f] = struct{}{}
	c.writers.Add(1)
	c.mu.Unlock()
	go c.show(f, c.out.start(replay))
	go c.read(f, readOnly)
}

// show copies the guest's output to f.
func (c *console) show(f *os.File, pos uint64) {
	defer c.writers.Done()
	defer c.detach(f)
	p := make([]byte, 4096)
	for {
		n, next, err := c.out.next(p, pos)
		if err != nil {
			return
		}
		if _, err := f.Write(p[:n]); err != nil {
			return
		}
		pos = next
	}
}

// read copies f to the guest.
func (c *console) read(f *os.File, readOnly bool) {
	p := make([]byte, 512)
	for {
		n, err := f.Read(p)
		if err != nil {
			// The end of a viewer's input is not the end of its interest:
			// a script may still wait for the guest's answer.
			if err != io.EOF || hungUp(f) {
				c.detach(f)
			}
			return
		}
		if !readOnly {
			c.send(p[:n])
		}
	}
}

// send types p, as fast as the guest reads.
func (c *console) send(p []byte) {
	c.input.Lock()
	defer c.input.Unlock()
	for {
		n := c.type_(p)
		if p = p[n:]; len(p) == 0 {
			return
		}
		if _, ok := <-c.room; !ok {
			return
		}
	}
}

// prune closes viewers that have gone since their input ended: a guest that is
// silent would never find out by writing to them. c.mu is held.
func (c *console) prune() {
	for f := range c.viewers {
		if hungUp(f) {
			delete(c.viewers, f)
			f.Close()
		}
	}
}

// hungUp reports whether nobody is at the other end of f any more. For a
// socket that is more than the end of its input; a pty always has somebody.
func hungUp(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return true
	}
	hup := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, perr := unix.Ppoll(p, &unix.Timespec{}, nil)
		hup = perr == nil && p[0].Revents&unix.POLLHUP != 0
	})
	return err != nil || hup
}

func (c *console) detach(f *os.File) {
	c.mu.Lock()
	_, ok := c.viewers[f]
	delete(c.viewers, f)
	c.mu.Unlock()
	if ok {
		f.Close()
	}
}

// finish lets viewers read what is left, but waits for no one that does not:
// done is closed when all have.
func (c *console) finish() (done <-chan struct{}) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.out.close()
	ch := make(chan struct{})
	go func() {
		c.writers.Wait()
		close(ch)
	}()
	return ch
}
