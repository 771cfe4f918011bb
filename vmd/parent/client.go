package parent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmd/parent/registry"
)

// client is a connection that control has accepted, with a copy of it: who is at
// its other end, and whether anybody still is, the kernel says and not control.
type client struct {
	conn *os.File
	peer vmop.Peer
}

// maxGroups is how many of a user's supplementary groups count. Leaving some out
// can only deny.
const maxGroups = 1024

// peerOf says who made the connection that conn is this end of. It must be one
// that was accepted at path, the control socket: control holds other sockets, and
// of its own to us, or of the one that listens, the kernel would say root.
func peerOf(conn *os.File, path string) (vmop.Peer, error) {
	if err := accepted(conn, path); err != nil {
		return vmop.Peer{}, fmt.Errorf("not a connection to the control socket: %w", err)
	}
	cred, groups, err := imsg.PeerCred(conn)
	if err != nil {
		return vmop.Peer{}, err
	}
	return vmop.Peer{UID: cred.Uid, GID: cred.Gid, Groups: groups[:min(len(groups), maxGroups)]}, nil
}

// accepted fails if f is not a connection that was accepted at path.
func accepted(f *os.File, path string) error {
	raw, err := f.SyscallConn() // Fd would make it block, for control, too
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		var listens int
		var sa unix.Sockaddr
		if listens, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
			return
		}
		if sa, err = unix.Getsockname(int(fd)); err != nil {
			return
		}
		if at, ok := sa.(*unix.SockaddrUnix); !ok || at.Name != path || listens != 0 {
			err = errors.New("it is another socket")
		}
	})
	return errors.Join(err, cerr)
}

// hungUp reports whether nobody is at the other end of f any more.
func hungUp(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return true
	}
	hup := true
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, perr := unix.Poll(p, 0)
		hup = perr != nil || p[0].Revents&unix.POLLHUP != 0
	})
	return err != nil || hup
}

// clientHere takes in a client that is about to ask something.
func (p *parent) clientHere(c vmop.ClientID, m *imsg.Msg) {
	conn := m.TakeFile(0)
	if conn == nil || p.clients[c.Client] != nil || len(p.clients) >= maxClients {
		imsg.Discard(conn)
		p.protest("control", fmt.Errorf("client %d of %d is none", c.Client, len(p.clients)))
		return
	}
	peer, err := p.host.peerOf(conn, p.paths.socket)
	if err != nil {
		imsg.Discard(conn)
		p.protest("control", err)
		return
	}
	p.clients[c.Client] = &client{conn, peer}
}

// clientGone forgets a client, and returns the copy of its connection. Whoever
// closes the last one closes what the client sent and nobody received: so control
// has one for as long as we do, and is told when it is the last.
func (p *parent) clientGone(id uint64) (conn *os.File) {
	if c := p.clients[id]; c != nil {
		conn = c.conn
	}
	delete(p.clients, id)
	for serial, q := range p.pending {
		if q.client == id {
			p.drop(q)
			delete(p.pending, serial)
		}
	}
	p.step(registry.ClientGone{Client: id})
	return conn
}

// lostControl: all clients are gone with it.
func (p *parent) lostControl() {
	var conns []*os.File
	for c := range p.clients {
		conns = append(conns, p.clientGone(c))
	}
	imsg.Discard(conns...)
}
