package privsep

import (
	"errors"
	"io"
	"sync"
	"time"

	"vmd/internal/imsg"
)

// Loop runs functions one after the other on the goroutine that calls Run, so
// that what only they touch needs no lock.
type Loop struct {
	mu    sync.Mutex
	wake  *sync.Cond
	queue []func()
	ended bool
	err   error
	done  chan struct{} // closed by Stop
}

// NewLoop returns a Loop with nothing to do.
func NewLoop() *Loop {
	l := &Loop{done: make(chan struct{})}
	l.wake = sync.NewCond(&l.mu)
	return l
}

// Post has f run on the loop. It may be called from any goroutine and does not
// block. After Stop it does nothing.
func (l *Loop) Post(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.queue = append(l.queue, f)
		l.wake.Signal()
	}
}

// Run runs what is posted until Stop, and returns what Stop was given.
func (l *Loop) Run() error {
	for {
		l.mu.Lock()
		for len(l.queue) == 0 && !l.ended {
			l.wake.Wait()
		}
		if l.ended {
			defer l.mu.Unlock()
			return l.err
		}
		f := l.queue[0]
		l.queue = l.queue[1:]
		l.mu.Unlock()
		f()
	}
}

// Stop makes Run return err once what runs now has returned. Only the first
// call counts.
func (l *Loop) Stop(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended, l.err, l.queue = true, err, nil
		close(l.done)
		l.wake.Broadcast()
	}
}

// Read receives from c and runs handle on the loop for each message, one at a
// time: a peer that sends faster than its messages are handled waits. What
// handle leaves in the message is closed, for which the loop does not wait, but
// the peer's next message does (imsg.Discard). When c ends, gone is run with the
// reason.
func (l *Loop) Read(c *imsg.Conn, handle func(imsg.Msg), gone func(error)) {
	l.read(c, func() {}, handle, gone)
}

// Serve runs the loop with handle for each message from the process that spawned
// this one, until that is gone.
func (l *Loop) Serve(parent *imsg.Conn, handle func(imsg.Msg)) error {
	l.Read(parent, handle, func(err error) {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		l.Stop(err)
	})
	return l.Run()
}

// read is Read that calls pause before each message but the first.
func (l *Loop) read(c *imsg.Conn, pause func(), handle func(imsg.Msg), gone func(error)) {
	go func() {
		next := make(chan struct{}, 1)
		for {
			m, err := c.Recv()
			if err != nil {
				c.Close()
				l.Post(func() { gone(err) })
				return
			}
			l.Post(func() {
				defer func() { next <- struct{}{} }()
				handle(m)
			})
			select {
			case <-next:
				m.Close()
				pause()
			case <-l.done: // c stays open, for the last words of who ran the loop
				return
			}
		}
	}()
}

// Timer is a function that a loop will run later.
type Timer struct{ t *time.Timer }

// After has f run on the loop when d has passed.
func (l *Loop) After(d time.Duration, f func()) *Timer {
	return &Timer{time.AfterFunc(d, func() { l.Post(f) })}
}

// Stop keeps the function from being posted. One that is posted already runs.
func (t *Timer) Stop() { t.t.Stop() }
