package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// When input that is not a terminal has ended, the session goes on until the
// guest has been quiet for lingerQuiet, so that an answer to the last line is
// seen, but not for longer than lingerMost.
const (
	lingerQuiet = 500 * time.Millisecond
	lingerMost  = 10 * time.Second
)

// typingPatience is how long a guest may take to receive what was typed; then
// that is dropped.
const typingPatience = time.Second

// session connects a person, or a pipe, to a guest's console.
type session struct {
	guest     guestLine
	in        io.Reader
	out       io.Writer
	readOnly  bool
	linger    time.Duration
	sendBreak func() error

	tty    *terminal // nil: in is not a terminal
	output chan struct{}
	events chan event
}

// guestLine is what a session needs of a connection to a guest.
type guestLine interface {
	io.ReadWriter
	SetWriteDeadline(time.Time) error
}

// event is what a goroutine of the session tells run.
type event struct {
	act  action
	end  bool  // the guest's side has ended
	eof  bool  // the input has ended
	err  error // why, if for a failure
	cont chan struct{}
}

// run greets and returns when the guest's side or the input ends or somebody
// disconnects. The terminal is then as it was, whatever happened.
func (s *session) run(greeting string) (err error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGCONT)
	defer signal.Stop(signals)
	defer s.tty.restore()
	if err := s.tty.raw(); err != nil {
		return failf("failed to open the console: %s", strerror(err))
	}
	fmt.Fprint(s.out, greeting, "\r\n")
	s.output = make(chan struct{}, 1)
	s.events = make(chan event)
	done := make(chan struct{})
	defer close(done)
	go s.protect(done, s.copyOut)
	go s.protect(done, s.copyIn)
	word, err := s.wait(signals)
	s.tty.restore()
	fmt.Fprintf(s.out, "\r\n[%s]\n", word)
	return err
}

// protect runs f, and makes run end if f panics: somebody has to restore the
// terminal first.
func (s *session) protect(done chan struct{}, f func(tell func(event) bool)) {
	tell := func(e event) bool {
		select {
		case s.events <- e:
			return true
		case <-done:
			return false
		}
	}
	defer func() {
		if p := recover(); p != nil {
			tell(event{end: true, err: fmt.Errorf("internal error: %v", p)})
		}
	}()
	f(tell)
}

// wait handles events until the session is over, and returns what to say then.
func (s *session) wait(signals chan os.Signal) (word string, err error) {
	var quiet, most <-chan time.Time
	for {
		select {
		case sig := <-signals:
			if sig == unix.SIGCONT { // whoever stopped us may have changed the terminal
				s.tty.again()
				continue
			}
			return unix.SignalName(sig.(unix.Signal)), nil
		case <-quiet:
			return "EOT", nil
		case <-most:
			return "EOT", nil
		case <-s.output:
			if quiet != nil {
				quiet = time.After(s.linger)
			}
		case e := <-s.events:
			switch {
			case e.end:
				return "EOT", e.err
			case e.eof && s.tty == nil && !s.readOnly:
				quiet, most = time.After(s.linger), time.After(lingerMost)
			case e.eof && s.tty != nil:
				return "EOT", nil
			case e.act == actDisconnect:
				return "EOT", nil
			}
			s.act(e.act)
			if e.cont != nil {
				close(e.cont)
			}
		}
	}
}

// act does what a key asks for.
func (s *session) act(a action) {
	switch a {
	case actHelp:
		fmt.Fprint(s.out, escapeHelp)
	case actBreak:
		if err := s.sendBreak(); err != nil {
			fmt.Fprintf(s.out, "\r\n[BREAK: %v]\r\n", err)
		}
	case actSuspend:
		s.tty.suspend()
	}
}

// copyOut carries what the guest sends to the output.
func (s *session) copyOut(tell func(event) bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := s.guest.Read(buf)
		if n > 0 {
			if _, werr := s.out.Write(buf[:n]); werr != nil {
				tell(event{end: true, err: failf("write error: %s", strerror(werr))})
				return
			}
			select {
			case s.output <- struct{}{}:
			default:
			}
		}
		if err != nil {
			if ended(err) {
				err = nil // the VM has stopped
			} else {
				err = failf("read error: %s", strerror(err))
			}
			tell(event{end: true, err: err})
			return
		}
	}
}

// copyIn carries the input to the guest. A terminal's input may hold escapes.
func (s *session) copyIn(tell func(event) bool) {
	var keys escapes
	buf := make([]byte, 4<<10)
	var out []byte
	for {
		n, err := s.in.Read(buf)
		for _, b := range buf[:n] {
			var act action
			if s.tty == nil {
				out = append(out, b)
			} else if out, act = keys.next(out, b); act != actNone {
				if !s.send(out) {
					return
				}
				out = out[:0]
				e := event{act: act, cont: make(chan struct{})}
				if !tell(e) {
					return
				}
				<-e.cont
			}
		}
		if !s.send(out) {
			return
		}
		out = out[:0]
		if err != nil {
			tell(event{eof: true})
			return
		}
	}
}

// send writes to the guest. When that is no longer possible, copyOut finds out
// too and says so.
func (s *session) send(b []byte) bool {
	if len(b) == 0 || s.readOnly {
		return true
	}
	if s.tty != nil {
		// A guest that does not read must not keep its user from typing ~.
		s.guest.SetWriteDeadline(time.Now().Add(typingPatience))
	}
	_, err := s.guest.Write(b)
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}
