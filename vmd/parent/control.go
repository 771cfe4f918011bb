package parent

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmd/parent/registry"
)

// pending is a request that has not been answered. It is known by a number of
// ours: a client may use one of its own twice.
type pending struct {
	client uint64
	id     uint64 // the client's
	uid    uint32
	files  map[string]*os.File
	list   []vmop.VM    // of an answer to List, not sent yet
	counts []vmop.Stats // likewise to Count
}

// drop closes what came with q.
func (p *parent) drop(q *pending) {
	files := slices.Collect(maps.Values(q.files))
	q.files = nil
	p.discard(q.uid, files...)
}

func (p *parent) setupControl() {
	c := vmop.ControlConfig{Verbose: p.verbose}
	f, err := dup(p.socket)
	if err != nil {
		p.log.Error().Err(err).Msg("control gets no socket")
		return
	}
	p.send("control", vmop.ControlSetup, 0, c, f)
	for uid, n := range p.held {
		if n >= maxHeld {
			p.tellBusy(uid)
		}
	}
}

func (p *parent) fromControl(m imsg.Msg) {
	var err error
	switch vmop.Type(m.Type) {
	case vmop.ClientHere:
		var c vmop.ClientID
		if err = imsg.Unmarshal(m.Payload, &c); err == nil {
			p.clientHere(c, &m)
		}
	case vmop.ClientRequest:
		var e vmop.Envelope
		if err = imsg.Unmarshal(m.Payload, &e); err == nil {
			p.request(e, &m)
		}
	case vmop.ClientGone:
		var c vmop.ClientID
		if err = imsg.Unmarshal(m.Payload, &c); err == nil {
			if conn := p.clientGone(c.Client); conn != nil {
				conn.Close()
			}
			p.send("control", vmop.ClientGone, 0, c)
		}
	default:
		err = errUnknown
	}
	if err != nil {
		p.protest("control", err)
	}
	m.Discard() // control must not have to wait for a client's descriptor
}

// maxPending is how many requests can wait for an answer, and maxClients how
// many clients have asked something: more than control lets in. A control that
// passes on more has been taken over.
const (
	maxPending = 64 << 10
	maxClients = 1024
)

// request takes in what a client asks.
func (p *parent) request(e vmop.Envelope, m *imsg.Msg) {
	c := p.clients[e.Client]
	if c == nil || len(p.pending) >= maxPending || len(m.Files) > 0 && p.held[c.peer.UID] >= tooManyHeld {
		p.protest("control", fmt.Errorf("a request of client %d, beside %d others", e.Client, len(p.pending)))
		return
	}
	uid := c.peer.UID
	defer func() { p.discard(uid, m.TakeFiles()...) }() // what is left of them
	if hungUp(c.conn) {
		return // nobody can be asking this; ClientGone follows
	}
	p.serial++
	q := &pending{client: e.Client, id: m.ID, uid: uid}
	p.pending[p.serial] = q
	from := registry.Asker{Client: e.Client, Request: p.serial}
	body, err := decode(e.Type, e.Body)
	if err == nil {
		switch b := body.(type) {
		case vmop.StartRequest:
			q.files, err = takeNamed(b.Files, m)
		case vmop.SendRequest, vmop.ReceiveRequest:
			q.files, err = takeStream(m)
		}
	}
	if err != nil {
		p.answer(from, vmop.Result{Code: vmop.ErrInvalid, Detail: err.Error()})
		return
	}
	peer := c.peer
	p.groups.fill(&peer)
	p.ask(registry.Request{From: from, Peer: peer, Type: e.Type, Body: body})
}

// listRoom is how many messages to control may wait before a list has to: a
// list is as many messages as there are VMs, and a connection that is too far
// behind is given up.
const listRoom = 1024

const listPause = 2 * time.Millisecond

func (p *parent) ask(q registry.Request) {
	long := q.Type == vmop.List || q.Type == vmop.Count
	if r := p.roles["control"]; long && r.proc != nil && r.proc.conn.Queued() > listRoom {
		p.loop.After(listPause, func() {
			if p.pending[q.From.Request] != nil {
				p.ask(q)
			}
		})
		return
	}
	p.step(q)
}

// decode makes a request's body of its payload.
func decode(t vmop.Type, raw imsg.Raw) (any, error) {
	switch t {
	case vmop.List:
		return decodeAs[vmop.ListRequest](raw)
	case vmop.Count:
		return decodeAs[vmop.StatsRequest](raw)
	case vmop.Start:
		return decodeAs[vmop.StartRequest](raw)
	case vmop.Stop:
		return decodeAs[vmop.StopRequest](raw)
	case vmop.Wait:
		return decodeAs[vmop.WaitRequest](raw)
	case vmop.Pause, vmop.Unpause, vmop.Break:
		return decodeAs[vmop.VMRequest](raw)
	case vmop.Console:
		return decodeAs[vmop.ConsoleRequest](raw)
	case vmop.Log:
		return decodeAs[vmop.LogRequest](raw)
	case vmop.Load:
		return decodeAs[vmop.LoadRequest](raw)
	case vmop.Reset:
		return decodeAs[vmop.ResetRequest](raw)
	case vmop.Send:
		return decodeAs[vmop.SendRequest](raw)
	case vmop.Receive:
		return decodeAs[vmop.ReceiveRequest](raw)
	case vmop.Reload:
		return nil, nil
	}
	return nil, fmt.Errorf("no request has type %d", t)
}

func decodeAs[T any](raw imsg.Raw) (any, error) {
	var v T
	err := imsg.Unmarshal(raw, &v)
	return v, err
}

// fileNames are the descriptors that a client may send with a start.
var fileNames = []string{"kernel", "initrd", "cdrom", "disk0", "disk1", "disk2", "disk3"}

// takeNamed takes the descriptors of m over by the names that a client gave.
func takeNamed(names []string, m *imsg.Msg) (map[string]*os.File, error) {
	if len(names) != len(m.Files) {
		return nil, fmt.Errorf("%d descriptors came, %d are named", len(m.Files), len(names))
	}
	for i, n := range names {
		if !slices.Contains(fileNames, n) || slices.Contains(names[:i], n) {
			return nil, fmt.Errorf("%q is not the name of a descriptor, or named twice", n)
		}
	}
	files := make(map[string]*os.File, len(names))
	for i, n := range names {
		files[n] = m.TakeFile(i)
	}
	return files, nil
}

// answer sends a request's one Result, and what comes with it.
func (p *parent) answer(to registry.Asker, res vmop.Result, files ...*os.File) {
	q := p.pending[to.Request]
	if q == nil {
		closeAll(files)
		return
	}
	delete(p.pending, to.Request)
	p.drop(q)
	p.flushList(q)
	p.reply(q, vmop.Answer, res, files...)
}

// record sends one VM of a list.
func (p *parent) record(to registry.Asker, v vmop.VM) {
	if q := p.pending[to.Request]; q != nil {
		p.decorate(&v)
		v.Resident = resident(v.PID)
		if q.list = append(q.list, v); len(q.list) == vmop.MaxRecords {
			p.flushList(q)
		}
	}
}

func (p *parent) flushList(q *pending) {
	if len(q.list) > 0 {
		p.reply(q, vmop.Records, vmop.VMList{VMs: q.list})
		q.list = q.list[:0]
	}
	if len(q.counts) > 0 {
		p.reply(q, vmop.Counted, vmop.StatsList{VMs: q.counts})
		q.counts = q.counts[:0]
	}
}

func (p *parent) reply(q *pending, typ vmop.Type, v any, files ...*os.File) {
	body, err := imsg.Marshal(v)
	if err != nil {
		p.log.Error().Err(err).Msg("cannot answer")
		closeAll(files)
		return
	}
	p.send("control", vmop.ClientAnswer, q.id, vmop.Envelope{Client: q.client, Type: typ, Body: body}, files...)
}

// attach gives a client a console: one end of a socket pair, of which the VM
// process has the other.
func (p *parent) attach(a registry.Attach) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.answer(a.To, vmop.Result{Code: vmop.ErrInternal, Detail: err.Error(), ID: a.ID, Name: a.Result.Name})
		return
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console")
	err = p.send("vmm", vmop.VMConsole, 0, vmop.VMConsoleRequest{ID: a.ID, ReadOnly: a.ReadOnly, NoReplay: a.NoReplay}, theirs)
	if err != nil {
		ours.Close()
		p.answer(a.To, vmop.Result{Code: vmop.ErrUnavailable, Detail: err.Error(), ID: a.ID, Name: a.Result.Name})
		return
	}
	p.answer(a.To, a.Result, ours)
}

// dup returns another descriptor for what f is open on.
func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
