package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"vmd/internal/imsg"
)

// acceptPause is how long accepting pauses when it failed, unless a client
// leaves: mostly the descriptors have run out.
const acceptPause = time.Second

// listener is the control socket.
type listener struct {
	sock  *net.UnixListener
	freed chan struct{} // a client has left
	done  chan struct{} // closed by close
	once  sync.Once
}

// newListener takes over f, a listening socket of type SOCK_SEQPACKET.
func newListener(f *os.File) (*listener, error) {
	nl, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("use descriptor as control socket: %w", err)
	}
	sock, ok := nl.(*net.UnixListener)
	if !ok || sock.Addr().Network() != "unixpacket" {
		nl.Close()
		return nil, fmt.Errorf("use descriptor as control socket: it is of network %s", nl.Addr().Network())
	}
	sock.SetUnlinkOnClose(false) // the name is parent's
	return &listener{sock: sock, freed: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

func (l *listener) close() {
	l.once.Do(func() {
		l.sock.Close()
		close(l.done)
	})
}

// room tells the accepting goroutine that there may be descriptors again.
func (l *listener) room() {
	select {
	case l.freed <- struct{}{}:
	default:
	}
}

// accept hands new connections to the loop, one at a time, until l is closed.
func (s *server) accept(l *listener) {
	joined := make(chan struct{}, 1)
	for {
		sock, err := l.sock.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.loop.Post(func() { s.noisy.Warn().Err(err).Msg("no more clients for now") })
			l.pause()
			continue
		}
		s.loop.Post(func() {
			s.join(imsg.NewConn(sock))
			joined <- struct{}{}
		})
		select {
		case <-joined:
		case <-l.done:
			return
		}
	}
}

func (l *listener) pause() {
	t := time.NewTimer(acceptPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.freed:
	case <-l.done:
	}
}
