package cmd

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

// line is the connection to a guest's console. A guest that resets gets another
// process, and with it another stream (vmd(8)): line connects again, and who
// reads and writes it notices nothing. It ends when the VM does.
type line struct {
	reopen func() net.Conn // nil: the VM has stopped
	drop   bool            // writes between two streams are lost, rather than wait

	mu    sync.Mutex
	moved *sync.Cond // stream is another one, or over is set
	guest net.Conn
	over  bool
}

func newLine(guest net.Conn, drop bool, reopen func() net.Conn) *line {
	l := &line{guest: guest, drop: drop, reopen: reopen}
	l.moved = sync.NewCond(&l.mu)
	return l
}

func (l *line) current() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.guest
}

// Read is called from one goroutine.
func (l *line) Read(b []byte) (int, error) {
	for {
		c := l.current()
		n, err := c.Read(b)
		if n > 0 || !ended(err) {
			return n, err
		}
		next := l.reopen()
		if !l.move(next) {
			return 0, io.EOF
		}
		c.Close()
	}
}

// move goes on with another stream; nil is the end.
func (l *line) move(next net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.moved.Broadcast()
	if l.over || next == nil {
		l.over = true
		if next != nil {
			next.Close()
		}
		return false
	}
	l.guest = next
	return true
}

func (l *line) Write(b []byte) (int, error) {
	for done := 0; ; {
		c := l.current()
		n, err := c.Write(b[done:])
		done += n
		switch {
		case err == nil || !ended(err):
			return done, err
		case l.drop:
			return len(b), nil
		case !l.await(c):
			return done, err
		}
	}
}

// await returns when there is another stream than c, or false when there will
// be none.
func (l *line) await(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.guest == c && !l.over {
		l.moved.Wait()
	}
	return !l.over
}

// SetWriteDeadline is that of the present stream.
func (l *line) SetWriteDeadline(t time.Time) error { return l.current().SetWriteDeadline(t) }

// Close ends the line.
func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.moved.Broadcast()
	return l.guest.Close()
}

// ended reports whether err says that the other side of a stream is gone.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// How long to look for a VM whose console has ended: for vmd, which may be
// restarting; and for news of the end, which may reach vmd after us.
const (
	daemonPatience = 10 * time.Second
	newsPatience   = 2 * time.Second
	reopenPause    = 50 * time.Millisecond
)

// reopening finds the console of a VM again.
type reopening struct {
	t     *tool
	o     consoleOptions
	pid   int // the process whose console has ended
	vm    vmop.Ref
	begun time.Time
}

// reopen returns the VM's next console, or nil when it has none.
func (r *reopening) reopen(ctx context.Context) net.Conn {
	r.begun = time.Now()
	for {
		conn, again := r.try(ctx)
		if !again || sleep(ctx, reopenPause) != nil {
			return conn
		}
	}
}

// try looks once. again says that it is too early to tell.
func (r *reopening) try(ctx context.Context) (conn net.Conn, again bool) {
	ctx, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	waited := time.Since(r.begun)
	c, err := r.t.dial(ctx)
	if err != nil {
		return nil, waited < daemonPatience
	}
	defer c.Close()
	vms, err := c.List(ctx, vmop.ListRequest{VM: r.vm})
	switch {
	case err != nil && code(err) == vmop.OK:
		return nil, waited < daemonPatience // vmd ended meanwhile
	case err != nil || len(vms) != 1:
		return nil, false
	}
	switch v := &vms[0]; {
	case v.State == vmop.Stopped || v.State == vmop.Crashed || v.State == vmop.Waiting:
		return nil, false
	case v.PID == 0: // between two processes: vmd will say how that ends
		r.begun = time.Now()
		return nil, true
	case v.PID == r.pid:
		return nil, waited < newsPatience
	default:
		return r.connect(ctx, c, v.PID)
	}
}

// connect opens the console of the VM, which has process pid now.
func (r *reopening) connect(ctx context.Context, c *client.Client, pid int) (conn net.Conn, again bool) {
	conn, _, err := c.Console(ctx, vmop.ConsoleRequest{VM: r.vm, ReadOnly: r.o.readOnly})
	switch {
	case err == nil:
		r.pid = pid
		return conn, false
	case code(err) == vmop.ErrBusy || code(err) == vmop.ErrUnavailable || code(err) == vmop.OK:
		return nil, time.Since(r.begun) < daemonPatience
	}
	return nil, false
}
