package imsg

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// How many messages, and how many bytes of payload, may wait for a peer that
// does not read. A peer further behind than that is taken for dead.
const (
	maxQueue      = 16384 // a record for each of ten thousand VMs, and more
	maxQueueBytes = 16 << 20
)

// msgSize is about what a message that waits takes besides its payload.
const msgSize = 256

// ErrSlow is why a connection ends whose peer no longer reads.
var ErrSlow = errors.New("peer does not read its messages")

// Conn is one end of a connection. Send may be called from any goroutine and
// never blocks; Recv belongs to one goroutine.
type Conn struct {
	sock *net.UnixConn
	rbuf []byte // Recv's, as is oob
	oob  []byte

	mu     sync.Mutex
	wake   *sync.Cond
	queue  []Msg
	queued int // bytes of payload in queue
	total  *atomic.Int64
	flush  bool  // nothing more is taken; the writer ends when queue is empty
	closed bool  // the socket is closed and queue empty
	err    error // why closed
	shut   bool  // nothing more is received

	done chan struct{} // closed when the writer has ended
}

// Pair returns two connected sockets, each to be wrapped by New in the process
// that keeps it.
func Pair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "imsg"), os.NewFile(uintptr(fds[1]), "imsg"), nil
}

// New takes over the SOCK_SEQPACKET socket f.
func New(f *os.File) (*Conn, error) {
	nc, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("use descriptor as a message socket: %w", err)
	}
	sock, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, fmt.Errorf("use descriptor as a message socket: it is a %T", nc)
	}
	return NewConn(sock), nil
}

// NewConn takes over sock, which must be of network "unixpacket".
func NewConn(sock *net.UnixConn) *Conn {
	c := &Conn{
		sock: sock,
		done: make(chan struct{}),
	}
	c.wake = sync.NewCond(&c.mu)
	go c.write()
	return c
}

// Dial connects to the message socket at path.
func Dial(path string) (*Conn, error) {
	sock, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return NewConn(sock), nil
}

// Send queues m, whose payload is v in CBOR (nothing if v is nil), and takes
// over files. The error says that the connection has ended or m cannot be sent.
func (c *Conn) Send(typ uint16, id uint64, v any, files ...*os.File) error {
	m := Msg{Type: typ, ID: id, Files: files}
	var err error
	if v != nil {
		m.Payload, err = Marshal(v)
	}
	if err == nil {
		err = c.enqueue(m)
	}
	if err != nil {
		m.Discard()
	}
	return err
}

// Lend is Send of files that stay the caller's. If it returns no error, back is
// called once, from any goroutine, when c does not need them any more.
func (c *Conn) Lend(typ uint16, id uint64, v any, back func(), files ...*os.File) error {
	payload, err := Marshal(v)
	if err != nil {
		return err
	}
	return c.enqueue(Msg{Type: typ, ID: id, Payload: payload, Files: files, back: back})
}

// release gives back, or closes, the descriptors of a message that was sent, or
// will not be.
func (m *Msg) release() {
	if m.back != nil {
		m.back()
		return
	}
	m.Discard()
}

// CountIn has what waits for the peer counted in total, in bytes, as well as in
// what others count there. It must be called before Send.
func (c *Conn) CountIn(total *atomic.Int64) { c.total = total }

func (c *Conn) count(m *Msg, sign int) {
	c.queued += sign * len(m.Payload)
	if c.total != nil {
		c.total.Add(int64(sign * (len(m.Payload) + msgSize)))
	}
}

func (c *Conn) enqueue(m Msg) error {
	if len(m.Payload) > MaxPayload || len(m.Files) > MaxFiles {
		_, err := appendPacket(nil, &m)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.err
	}
	if c.flush {
		return net.ErrClosed
	}
	if len(c.queue) == maxQueue || c.queued+len(m.Payload) > maxQueueBytes {
		c.fail(ErrSlow)
		return ErrSlow
	}
	c.queue = append(c.queue, m)
	c.count(&m, 1)
	c.wake.Signal()
	return nil
}

// Queued returns how many messages wait to be written.
func (c *Conn) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

// fail ends the connection at once. c.mu is held.
func (c *Conn) fail(err error) {
	switch {
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		// What a peer sent before it hung up is still there to be received.
	case errors.Is(err, ErrSlow), errors.Is(err, errHangup):
		c.shut = true
		c.sock.CloseRead()
		c.sock.CloseWrite()
	default:
		c.sock.Close()
	}
	if c.closed {
		return
	}
	c.closed, c.err = true, err
	for i := range c.queue {
		c.count(&c.queue[i], -1)
		c.queue[i].release()
	}
	c.queue = nil
	c.wake.Broadcast()
}

// next waits for a message to write. It returns false when there will be none.
func (c *Conn) next() (Msg, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && !c.closed && !c.flush {
		c.wake.Wait()
	}
	if len(c.queue) == 0 {
		return Msg{}, false
	}
	m := c.queue[0]
	c.queue[0] = Msg{}
	c.queue = c.queue[1:]
	c.count(&m, -1)
	return m, true
}

// write sends what is queued, in order, until the connection ends.
func (c *Conn) write() {
	defer close(c.done)
	var buf []byte
	reason := net.ErrClosed
	for {
		m, ok := c.next()
		if !ok {
			break
		}
		var err error
		if buf, err = appendPacket(buf[:0], &m); err == nil {
			err = c.writePacket(buf, m.Files)
		}
		m.release()
		if err != nil {
			reason = err
			break
		}
	}
	c.mu.Lock()
	if !c.closed { // else whoever ended it has seen to the socket
		c.fail(reason)
	}
	c.mu.Unlock()
}

func (c *Conn) writePacket(b []byte, files []*os.File) error {
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fd, err := descriptor(f)
			if err != nil {
				return err
			}
			fds[i] = fd
		}
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.sock.WriteMsgUnix(b, oob, nil)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// descriptor is f.Fd without its side effect: Fd may make the file blocking, for
// everybody who shares it.
func descriptor(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = raw.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// Recv waits for the next message. It returns io.EOF when the peer has closed
// its end, whether it had read everything or not, or sends an empty packet,
// which looks the same, and ErrFormat for what is not a message. The payload is
// the caller's to keep.
func (c *Conn) Recv() (Msg, error) {
	if c.rbuf == nil {
		c.rbuf = make([]byte, headerSize+MaxPayload)
		c.oob = make([]byte, unix.CmsgSpace(MaxFiles*4))
	}
	if c.hungUp() {
		return Msg{}, io.EOF
	}
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(c.rbuf, c.oob)
	if errors.Is(err, unix.ECONNRESET) {
		// The peer left without reading everything. That is said once, and
		// before what the peer had sent (unix_release_sock, af_unix.c).
		n, oobn, flags, _, err = c.sock.ReadMsgUnix(c.rbuf, c.oob)
	}
	// Descriptors may come even with an error: an empty packet can carry some.
	files, rightsErr := parseRights(c.oob[:oobn])
	m := Msg{Files: files}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	if err == nil {
		err = rightsErr
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("%w: more than %d descriptors", ErrFormat, MaxFiles)
	}
	if err == nil && flags&unix.MSG_TRUNC != 0 {
		err = fmt.Errorf("%w: payload of more than %d bytes", ErrFormat, MaxPayload)
	}
	if err == nil {
		m, err = parsePacket(append([]byte(nil), c.rbuf[:n]...))
		m.Files = files
	}
	if err != nil {
		m.Discard()
		return Msg{}, err
	}
	return m, nil
}

// parseRights makes files of the descriptors in a control message. On an error
// it still returns those it found, for the caller to close.
func parseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	scms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control message: %w", ErrFormat, err)
	}
	var files []*os.File
	for i := range scms {
		if scms[i].Header.Level != unix.SOL_SOCKET || scms[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&scms[i])
		if err != nil {
			return files, fmt.Errorf("%w: descriptors: %w", ErrFormat, err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

var errHangup = errors.New("hung up")

// Hangup ends the connection at once for both sides, as it ends when the peer is
// too slow: whoever receives from it gets io.EOF and is to Close it. To close a
// socket closes all descriptors that were sent to it and not received, so that it
// may have to wait, as Discard may; Hangup does not.
func (c *Conn) Hangup() {
	c.mu.Lock()
	c.fail(errHangup)
	c.mu.Unlock()
}

// hungUp reports whether nothing more is to be received.
func (c *Conn) hungUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shut
}

// Flush sends what is queued, then ends the connection. A peer that does not
// read can make it wait: only a process about to exit calls it.
func (c *Conn) Flush() {
	c.mu.Lock()
	c.flush = true
	c.wake.Broadcast()
	c.mu.Unlock()
	<-c.done
	c.Close()
}

// Close ends the connection at once; what is queued is dropped.
func (c *Conn) Close() {
	c.mu.Lock()
	c.fail(net.ErrClosed)
	c.mu.Unlock()
}

// PeerCred returns the credentials that the peer had when it connected.
func (c *Conn) PeerCred() (*unix.Ucred, []uint32, error) {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	return peerCred(raw)
}

// PeerCred is Conn.PeerCred for a socket that is none: f is on this end of the
// connection.
func PeerCred(f *os.File) (*unix.Ucred, []uint32, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	return peerCred(raw)
}

func peerCred(raw syscall.RawConn) (*unix.Ucred, []uint32, error) {
	var cred *unix.Ucred
	var groups []uint32
	var err error
	cerr := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			groups, err = peerGroups(int(fd))
		}
	})
	if cerr != nil {
		err = cerr
	}
	if err != nil {
		return nil, nil, fmt.Errorf("ask who the peer is: %w", err)
	}
	return cred, groups, nil
}

// File returns another descriptor for c's socket, for somebody else to look at.
// The connection lasts as long as any of them is open.
func (c *Conn) File() (*os.File, error) { return c.sock.File() }
