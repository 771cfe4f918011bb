package cmd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
)

// streamPair is a stream to vmd: ours, and the end that goes to vmd with a
// request.
func streamPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "stream")
	theirs = os.NewFile(uintptr(fds[1]), "stream")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	ours, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		theirs.Close()
		return nil, nil, errors.New("a socket pair that is none")
	}
	return ours, theirs, nil
}

// counting counts what goes through a writer, and keeps its error apart from
// those of whoever reads what is copied to it.
type counting struct {
	w    io.Writer
	n    int64
	err  error
	seen func(n int64)
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	c.seen(c.n)
	return n, err
}

// nowhere reports whether what is written to w can hardly be read again, as with
// /dev/null.
func nowhere(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// How long, and how often, is looked whether the output has been read.
const (
	drainPatience = time.Minute
	drainPause    = 2 * time.Millisecond
)

// drained returns when everything that was written to w has been taken out at
// the other end, if w has one, or is on storage. That its reader has gone is an
// error as long as there is something left that it has not read, or, with more,
// if something is still to be written.
func drained(w io.Writer, more bool) error {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ask uint
	unread := int16(0) // what poll(2) says if something was thrown away
	switch st.Mode().Type() {
	case os.ModeNamedPipe:
		ask = unix.TIOCINQ
	case os.ModeSocket: // the queue of one whose reader has gone is empty
		ask, unread = unix.SIOCOUTQ, unix.POLLERR
	default:
		if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
		return nil
	}
	for end := time.Now().Add(drainPatience); ; time.Sleep(drainPause) {
		left, reader := 0, int16(0)
		cerr := raw.Control(func(fd uintptr) {
			if left, err = unix.IoctlGetInt(int(fd), ask); err == nil {
				reader, err = pollReader(int(fd))
			}
		})
		switch {
		case errors.Join(err, cerr) != nil:
			return errors.Join(err, cerr)
		case reader&unread != 0, reader != 0 && (left > 0 || more):
			return unix.EPIPE
		case left == 0:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("nobody has read the output for %v", drainPatience)
		}
	}
}

// pollReader says in the words of poll(2) how the reader of what is written to fd
// has gone; 0 if it has not.
func pollReader(fd int) (int16, error) {
	p := []unix.PollFd{{Fd: int32(fd)}}
	for {
		_, err := unix.Ppoll(p, &unix.Timespec{}, nil)
		if err != unix.EINTR {
			return p[0].Revents & (unix.POLLERR | unix.POLLHUP), err
		}
	}
}

// readWord reads one of vmop's words of a stream. Anything else is none of them.
func readWord(r io.Reader) (string, error) {
	var b [vmop.WordLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return "", errors.New("the receiver ended without a word")
	}
	switch w := string(b[:]); w {
	case vmop.WordLoaded, vmop.WordRuns, vmop.WordFailed:
		return w, nil
	}
	return "", fmt.Errorf("the receiver says %q, which is no confirmation", plain(string(b[:])))
}
