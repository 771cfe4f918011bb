package testenv

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// SlowFile returns a file whose last close waits until release is called, as a
// stranger's may (SO_LINGER, socket(7)): a connection on which there is something
// left to send. The caller closes it.
func SlowFile(t testing.TB) (f *os.File, release func()) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	release = func() { // with a reset
		peer.(*net.TCPConn).SetLinger(0)
		peer.Close()
	}
	t.Cleanup(release)
	// What is left to send need not be much.
	c.(*net.TCPConn).SetWriteBuffer(4096)
	peer.(*net.TCPConn).SetReadBuffer(4096)
	if f, err = c.(*net.TCPConn).File(); err != nil {
		t.Fatal(err)
	}
	if err := fill(f); err != nil {
		t.Fatal(err)
	}
	return f, release
}

// fill writes to f, which nobody reads, until it takes no more.
func fill(f *os.File) error {
	fd := int(f.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	for p := make([]byte, 64<<10); ; {
		if _, err := unix.Write(fd, p); err == unix.EAGAIN {
			break
		} else if err != nil {
			return err
		}
	}
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1 << 20})
}
