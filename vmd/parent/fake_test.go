package parent

import (
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
	"vmd/vmd/parent/statefile"
)

// patience is how long a test waits for what must come. Nothing waits that long
// unless it has failed.
const patience = 20 * time.Second

// fakeParent is a parent with nobody around it, on directories of its own.
func fakeParent(t testing.TB) *parent {
	t.Helper()
	dir := t.TempDir()
	p := newParent(Options{Config: &config.Config{Parallel: 100}, ConfigPath: filepath.Join(dir, "vm.conf"), Version: "test"})
	p.paths = paths{
		socket: filepath.Join(dir, "sock"), run: filepath.Join(dir, "run"), state: filepath.Join(dir, "state"),
		kvm: filepath.Join(dir, "nokvm"),
	}
	p.cfg.SocketOwner = config.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), HasGID: true}
	p.ids = ids{uid: 999, gid: 999}
	p.log = zerolog.Nop()
	p.reg = registry.New(registry.State{}, rand.New(rand.NewSource(1)))
	lock, err := p.paths.prepare()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	return p
}

// daemon is a parent at work whose roles are played by the test.
type daemon struct {
	t     *testing.T
	p     *parent
	roles map[string]*fake
	spawn chan *fake    // every role process that was started, but the first four
	ended chan struct{} // closed when the loop has ended, with err
	err   error
	hosts []*os.File // other ends of what stands for /dev/kvm and ptys
	req   uint64
	ends  map[uint64]*os.File // of the connections of clients that control knows
	peers sync.Map            // by inode of the other ends: users
}

// fake is one role process, seen from its own side.
type fake struct {
	name   string
	conn   *imsg.Conn
	got    chan imsg.Msg // closed at the end of the connection
	exited chan privsep.ExitStatus
}

// die ends the process as kill -9 would.
func (f *fake) die() {
	f.conn.Close()
	select {
	case f.exited <- privsep.ExitStatus{Signal: unix.SIGKILL}:
	default:
	}
}

func (f *fake) read() {
	for {
		m, err := f.conn.Recv()
		if err != nil {
			close(f.got)
			return
		}
		f.got <- m
	}
}

// newDaemon starts a parent with the configuration c. It is prepared by edits
// before anything runs.
func newDaemon(t *testing.T, vms []config.VM, edits ...func(*parent)) *daemon {
	t.Helper()
	d := &daemon{t: t, p: fakeParent(t), roles: map[string]*fake{}, spawn: make(chan *fake, 16), ended: make(chan struct{}), ends: map[uint64]*os.File{}}
	d.p.cfg.VMs = vms
	d.p.host = host{
		openKVM: func() (*os.File, error) { return d.pipe("kvm") },
		openTTY: func(*config.Owner) (*tty, error) { return d.tty() },
		openVM: func(pid int, _ string) (*os.File, error) {
			fd, err := unix.PidfdOpen(pid, 0)
			return os.NewFile(uintptr(fd), "process"), err
		},
		memory: 1 << 30, firmware: firmware, netROMs: netROMs,
		peerOf: d.peerOf,
	}
	for _, e := range edits {
		e(d.p)
	}
	d.wait(d.run())
	return d
}

// run starts d.p. What it returns is closed when it is ready for clients.
func (d *daemon) run() (ready chan struct{}) {
	d.t.Helper()
	p := d.p
	if err := p.listen(); err != nil {
		d.t.Fatal(err)
	}
	p.spawn = d.newRole
	ready = make(chan struct{})
	p.opt.Ready = func() { close(ready) }
	if err := p.startRoles(); err != nil {
		d.t.Fatal(err)
	}
	for range 4 {
		f := <-d.spawn
		d.roles[f.name] = f
	}
	p.loop.Post(p.begin)
	go func() { d.err = p.loop.Run(); close(d.ended) }()
	d.t.Cleanup(d.stop)
	return ready
}

func (d *daemon) wait(c <-chan struct{}) {
	d.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		d.t.Fatal("it takes too long")
	}
}

func (d *daemon) stop() {
	d.p.loop.Stop(nil)
	<-d.ended
	for _, f := range d.roles {
		f.conn.Close()
	}
}

func (d *daemon) newRole(name string, _ bool) (*process, error) {
	a, b, err := imsg.Pair()
	if err != nil {
		return nil, err
	}
	ours, err := imsg.New(a)
	if err != nil {
		return nil, err
	}
	theirs, err := imsg.New(b)
	if err != nil {
		return nil, err
	}
	f := &fake{name: name, conn: theirs, got: make(chan imsg.Msg, 256), exited: make(chan privsep.ExitStatus, 1)}
	go f.read()
	d.spawn <- f
	return &process{pid: 1 << 30, conn: ours, exited: f.exited, kill: f.die}, nil
}

// pipe stands for something that is opened: when its last copy is closed, gone
// notices.
func (d *daemon) pipe(name string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err == nil {
		d.p.loop.Post(func() { d.hosts = append(d.hosts, r) })
	}
	return w, err
}

var ttys atomic.Int32

func (d *daemon) tty() (*tty, error) {
	m, err := d.pipe("master")
	if err != nil {
		return nil, err
	}
	s, err := d.pipe("slave")
	if err != nil {
		return nil, err
	}
	return &tty{name: fmt.Sprintf("/dev/pts/%d", 1000+ttys.Add(1)), master: m, slave: s}, nil
}

// on runs f on the parent's loop.
func (d *daemon) on(f func()) {
	d.t.Helper()
	done := make(chan struct{})
	d.p.loop.Post(func() { f(); close(done) })
	d.wait(done)
}

// eventually asks f, on the loop, until it says yes.
func (d *daemon) eventually(what string, f func() bool) {
	d.t.Helper()
	for late := time.Now().Add(patience); ; {
		var ok bool
		if d.on(func() { ok = f() }); ok {
			return
		}
		if time.Now().After(late) {
			d.t.Fatalf("in vain: %s", what)
		}
	}
}

// until waits until VM name is as f wants it.
func (d *daemon) until(name string, f func(v *vmop.VM) bool) vmop.VM {
	d.t.Helper()
	var v vmop.VM
	d.eventually("VM "+name, func() bool {
		for _, v = range d.p.reg.All() {
			if v.Name == name {
				return f(&v)
			}
		}
		v = vmop.VM{}
		return f(&v)
	})
	return v
}

func is(s vmop.State) func(*vmop.VM) bool {
	return func(v *vmop.VM) bool { return v.ID != 0 && v.State == s }
}

func deleted(v *vmop.VM) bool { return v.ID == 0 }

// expect returns the next message to a role that is of type typ. Others are
// left out only where the role is not what the test is about.
func (d *daemon) expect(role string, typ vmop.Type) imsg.Msg {
	d.t.Helper()
	for {
		select {
		case m, ok := <-d.roles[role].got:
			switch {
			case !ok:
				d.t.Fatalf("%s: end of connection, want message type %d", role, typ)
			case vmop.Type(m.Type) == typ:
				return m
			case role == "vmm":
				d.t.Fatalf("vmm: message type %d, want %d", m.Type, typ)
			}
			m.Close()
		case <-time.After(patience):
			d.t.Fatalf("%s: no message of type %d", role, typ)
		}
	}
}

// nothing fails if a role has got a message of type typ.
func (d *daemon) nothing(role string, typ vmop.Type) {
	d.t.Helper()
	d.on(func() {}) // what was sent on the loop is on its way
	for {
		select {
		case m := <-d.roles[role].got:
			if vmop.Type(m.Type) == typ {
				d.t.Fatalf("%s: unwanted message of type %d", role, typ)
			}
		default:
			return
		}
	}
}

func (d *daemon) respawned(name string) *fake {
	d.t.Helper()
	select {
	case f := <-d.spawn:
		if f.name != name {
			d.t.Fatalf("%s was started, want %s", f.name, name)
		}
		d.roles[name] = f
		if name == "control" {
			clear(d.ends) // it knows none of them
		}
		return f
	case <-time.After(patience):
		d.t.Fatalf("%s was not restarted", name)
		return nil
	}
}

// send speaks as a role.
func (d *daemon) send(role string, typ vmop.Type, id uint64, v any, files ...*os.File) {
	d.t.Helper()
	if err := d.roles[role].conn.Send(uint16(typ), id, v, files...); err != nil {
		d.t.Fatal(err)
	}
}

// ask sends a client's request and returns its id.
func (d *daemon) ask(uid uint32, typ vmop.Type, body any, files ...*os.File) uint64 {
	d.t.Helper()
	raw, err := imsg.Marshal(body)
	if err != nil {
		d.t.Fatal(err)
	}
	d.req++
	client := uint64(uid) + 7
	if d.ends[client] == nil {
		d.join(client, uid)
	}
	d.send("control", vmop.ClientRequest, d.req, vmop.Envelope{Client: client, Type: typ, Body: raw}, files...)
	return d.req
}

// join has control tell of a new client.
func (d *daemon) join(client uint64, uid uint32) {
	d.t.Helper()
	ours, theirs, err := imsg.Pair()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { ours.Close() })
	d.ends[client] = ours
	d.peers.Store(identify(theirs).Inode, uid)
	d.send("control", vmop.ClientHere, 0, vmop.ClientID{Client: client}, theirs)
}

// peerOf stands for the kernel.
func (d *daemon) peerOf(conn *os.File, _ string) (vmop.Peer, error) {
	uid, ok := d.peers.Load(identify(conn).Inode)
	if !ok {
		return vmop.Peer{}, errors.New("who is that?")
	}
	return vmop.Peer{UID: uid.(uint32), GID: uid.(uint32)}, nil
}

// result waits for the answer to request id.
func (d *daemon) result(id uint64, want vmop.Code) (vmop.Result, *os.File) {
	d.t.Helper()
	for {
		m := d.expect("control", vmop.ClientAnswer)
		var e vmop.Envelope
		var res vmop.Result
		if err := imsg.Unmarshal(m.Payload, &e); err != nil {
			d.t.Fatal(err)
		}
		if e.Type != vmop.Answer {
			continue
		}
		if err := imsg.Unmarshal(e.Body, &res); err != nil {
			d.t.Fatal(err)
		}
		if m.ID != id {
			d.t.Fatalf("answer to request %d, want one to %d", m.ID, id)
		}
		if res.Code != want {
			d.t.Fatalf("answer %v (%s), want %v", res.Code, res.Detail, want)
		}
		return res, m.TakeFile(0)
	}
}

// vm returns a VM as the registry has it.
func (d *daemon) vm(name string) (v vmop.VM, ok bool) {
	d.t.Helper()
	d.on(func() {
		for _, o := range d.p.reg.All() {
			if o.Name == name {
				v, ok = o, true
			}
		}
	})
	return v, ok
}

// decoded returns the payload of m.
func decoded[T any](d *daemon, m imsg.Msg) T {
	d.t.Helper()
	var v T
	if err := imsg.Unmarshal(m.Payload, &v); err != nil {
		d.t.Fatal(err)
	}
	return v
}

// taps plays priv for n interfaces of a start, each of which is in the end up.
// It returns the other ends of the taps.
func (d *daemon) taps(n int) (ends []*os.File) {
	d.t.Helper()
	for range n {
		m := d.expect("priv", vmop.TapOpen)
		r, w, err := os.Pipe()
		if err != nil {
			d.t.Fatal(err)
		}
		ends = append(ends, r)
		req := decoded[vmop.TapRequest](d, m)
		d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{VM: req.VM, Index: req.Index, Name: "tap" + strconv.Itoa(40+req.Index), IfIndex: 9, MTU: 1500, MAC: [6]byte{2}}, w)
	}
	for range n {
		m := d.expect("priv", vmop.TapSetup)
		req := decoded[vmop.TapRequest](d, m)
		d.send("priv", vmop.TapReady, m.ID, vmop.TapResult{VM: req.VM, Index: req.Index})
	}
	return ends
}

// guest is a VM process, played by the test.
type guest struct {
	req   vmop.VMStartRequest
	files map[string]*os.File
}

// started plays vmm and a VM process that comes up.
func (d *daemon) started(pid int) *guest {
	d.t.Helper()
	g := d.launched()
	page, err := counters.Create("test")
	if err != nil {
		d.t.Fatal(err)
	}
	d.event(vmop.Event{ID: g.req.ID, Kind: vmop.EventStarted, PID: pid}, page)
	return g
}

// launched takes what vmm is given for a start.
func (d *daemon) launched() *guest {
	d.t.Helper()
	m := d.expect("vmm", vmop.VMStart)
	g := &guest{req: decoded[vmop.VMStartRequest](d, m), files: map[string]*os.File{}}
	if len(g.req.Files) != len(m.Files) {
		d.t.Fatalf("%d descriptors, named %q", len(m.Files), g.req.Files)
	}
	for i, n := range g.req.Files {
		g.files[n] = m.Files[i]
	}
	d.t.Cleanup(g.close)
	return g
}

func (g *guest) close() {
	for _, f := range g.files {
		f.Close()
	}
}

func (d *daemon) event(e vmop.Event, files ...*os.File) {
	d.t.Helper()
	d.send("vmm", vmop.VMEvent, 0, e, files...)
}

// wantNothingLeft fails if anything of a start is still held: a descriptor of
// KVM or of the pty, a run, the lock of a disk, the VM's socket.
func (d *daemon) wantNothingLeft(disk string, taps ...*os.File) {
	d.t.Helper()
	var held []*os.File
	d.eventually("no run, no tap", func() bool { return len(d.p.runs) == 0 && len(d.p.taps) == 0 })
	d.on(func() { held, d.hosts = d.hosts, nil })
	for _, r := range append(held, taps...) {
		d.wantClosed(r)
	}
	if names, err := os.ReadDir(filepath.Join(d.p.paths.run, "vm")); err != nil || len(names) > 0 {
		d.t.Errorf("sockets left: %v %v", names, err)
	}
	d.eventually("the disk is free", func() bool {
		f, err := diskFile.open(disk)
		if err == nil {
			f.Close()
		}
		return err == nil
	})
}

// wantClosed waits until every copy of the other end of r is closed.
func (d *daemon) wantClosed(r *os.File) {
	d.t.Helper()
	defer r.Close()
	r.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, r); err != nil {
		d.t.Errorf("something is still held open: %v", err)
	}
}

// accept plays the VM process to which somebody connects.
func (g *guest) accept(t *testing.T) *imsg.Conn {
	t.Helper()
	l, err := net.FileListener(g.files["listen"])
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return imsg.NewConn(c.(*net.UnixConn))
}

// disk makes a file for a disk.
func disk(t *testing.T) string { return tempFile(t, string(make([]byte, 4096))) }

// vmDef is a VM with a kernel, a disk and one interface.
func vmDef(t *testing.T, name string, edits ...func(*config.VM)) config.VM {
	v := config.VM{
		Name: name, Boot: tempFile(t, "kernel"), Cmdline: "quiet", MemoryBytes: 64 << 20,
		Disks: []config.Disk{{Path: disk(t), Format: config.FormatRaw}}, NICs: make([]config.NIC, 1),
	}
	for _, e := range edits {
		e(&v)
	}
	v.SetDefaults()
	return v
}

func vmNamed(name string) vmop.Ref { return vmop.Ref{Name: name} }

func saveAs(p *parent, s savedState) error { return statefile.Save(p.paths.stateFile(), s) }

func loadAs(p *parent, s *savedState) error {
	_, err := statefile.Load(p.paths.stateFile(), s)
	return err
}
