// Package client asks vmd for things, over its control socket. The protocol is
// described in internal/vmop/PROTOCOL.md.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// DefaultSocket is where vmd listens.
const DefaultSocket = "/run/vmd.sock"

// SocketVar is the environment variable that names another socket.
const SocketVar = "VMD_SOCKET"

// SocketPath returns the path of the control socket.
func SocketPath() string {
	if p := os.Getenv(SocketVar); p != "" {
		return p
	}
	return DefaultSocket
}

var (
	// ErrGone says that vmd ended the connection before it answered.
	ErrGone = errors.New("vmd ended the connection")
	// ErrUnexpected says that what came is no answer to what was asked.
	ErrUnexpected = errors.New("unexpected response received from vmd")
)

// Error is a request that vmd refused or could not carry out.
type Error struct {
	Request vmop.Type
	vmop.Result
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Code.String()
	}
	return e.Code.String() + ": " + e.Detail
}

// Client is a connection to vmd. Its methods may be called from any number of
// goroutines: requests do not wait for one another.
//
// A method returns an *Error when vmd answered no, ErrGone when the connection
// ended, and the context's error when that came first; vmd may carry out the
// request all the same.
type Client struct {
	conn *imsg.Conn

	mu    sync.Mutex
	last  uint64           // id of the latest request
	calls map[uint64]*call // those without a Result
	err   error            // why no answer will come any more
	ended chan struct{}    // closed once err is set
}

// call is a request that waits.
type call struct {
	answers chan imsg.Msg
	dropped chan struct{} // closed when nobody reads answers any more
}

// Dial connects to the control socket at path.
func Dial(ctx context.Context, path string) (*Client, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, err
	}
	c := &Client{
		conn:  imsg.NewConn(nc.(*net.UnixConn)),
		calls: make(map[uint64]*call),
		ended: make(chan struct{}),
	}
	go c.read()
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() { c.conn.Close() }

// read hands what vmd sends to the calls it is for.
func (c *Client) read() {
	for {
		m, err := c.conn.Recv()
		if err == nil && m.ID == 0 {
			err = farewell(&m)
		}
		if err != nil {
			c.end(err)
			return
		}
		c.mu.Lock()
		call := c.calls[m.ID]
		c.mu.Unlock()
		if call == nil {
			m.Close()
			continue
		}
		select {
		case call.answers <- m:
		case <-call.dropped:
			m.Close()
		}
	}
}

// farewell is what a message without a request says: why vmd is about to end
// the connection.
func farewell(m *imsg.Msg) error {
	defer m.Close()
	var r vmop.Result
	if err := imsg.UnmarshalNewer(m.Payload, &r); err != nil || vmop.Type(m.Type) != vmop.Answer {
		return ErrUnexpected
	}
	return &Error{Result: r}
}

// end makes all calls, now and later, fail.
func (c *Client) end(err error) {
	c.conn.Close()
	var refused *Error
	if !errors.As(err, &refused) && !errors.Is(err, ErrUnexpected) && !errors.Is(err, imsg.ErrFormat) {
		err = ErrGone
	}
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	close(c.ended)
}

// do sends a request and waits for its Result, whose descriptors it returns.
// each is called for the messages before it. files are taken over.
func (c *Client) do(ctx context.Context, typ vmop.Type, req any, files []*os.File, each func(*imsg.Msg) error) (vmop.Result, []*os.File, error) {
	call, id := c.begin()
	defer c.forget(call, id)
	if err := c.conn.Send(uint16(typ), id, req, files...); err != nil && !hungUp(err) {
		return vmop.Result{}, nil, fmt.Errorf("send request: %w", err)
	}
	for {
		select {
		case m := <-call.answers:
			r, done, err := result(&m, typ, each)
			if err != nil || !done {
				m.Close()
			}
			if err != nil || done {
				return r, m.Files, err
			}
		case <-ctx.Done():
			return vmop.Result{}, nil, ctx.Err()
		case <-c.ended:
			return vmop.Result{}, nil, c.err
		}
	}
}

// hungUp reports whether err says that the connection has ended. The reader
// knows why, or will.
func hungUp(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

func (c *Client) begin() (*call, uint64) {
	call := &call{answers: make(chan imsg.Msg), dropped: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.calls[c.last] = call
	return call, c.last
}

func (c *Client) forget(call *call, id uint64) {
	c.mu.Lock()
	delete(c.calls, id)
	c.mu.Unlock()
	close(call.dropped)
}

// result looks at an answer. done says that it is the last one.
func result(m *imsg.Msg, typ vmop.Type, each func(*imsg.Msg) error) (r vmop.Result, done bool, err error) {
	if vmop.Type(m.Type) != vmop.Answer {
		if each == nil {
			return r, false, ErrUnexpected
		}
		return r, false, each(m)
	}
	if err := imsg.UnmarshalNewer(m.Payload, &r); err != nil {
		return r, false, fmt.Errorf("%w: %w", ErrUnexpected, err)
	}
	if r.Code != vmop.OK {
		return r, true, &Error{Request: typ, Result: r}
	}
	return r, true, nil
}
