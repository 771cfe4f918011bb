package vmm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// killTime is how long a VM process may take to end after it was told to.
const killTime = 10 * time.Second

// lastWords is how long a process's last messages are waited for once it has
// ended. Its end of the connection may be open still: it can have been passed to
// somebody outside, like the socket of a console.
const lastWords = 500 * time.Millisecond

// pace is what a VM process may say. An honest one says little; from another,
// neither we nor parent shall have to hear it all.
var pace = privsep.Pace{Burst: 256, Every: 10 * time.Millisecond}

// guest is one VM process.
type guest struct {
	v    *vmm
	id   uint32
	pid  int
	conn *imsg.Conn
	page *os.File // its counter page, until parent has it
	kill func()   // ends the process at once

	last    *vmop.Event // how it says that it ended
	started bool        // parent knows that it runs
	greets  bool        // it was adopted and has still to say hello
	eof     bool        // its connection has ended
	exit    string      // how the process ended; "" while it lives
	cpu     time.Duration
	timer   *privsep.Timer
}

// start spawns a VM process and hands it its definition and descriptors.
func (v *vmm) start(m imsg.Msg) {
	var r vmop.VMStartRequest
	if err := imsg.Unmarshal(m.Payload, &r); err != nil {
		v.Log.Error().Err(err).Msg("bad message")
		return
	}
	if v.guests[r.ID] != nil {
		v.fail(r.ID, vmop.ErrRunning, "VM %d has a process already", r.ID)
		return
	}
	if len(r.Files) != len(m.Files) {
		v.fail(r.ID, vmop.ErrInternal, "%d descriptors came, %d are named", len(m.Files), len(r.Files))
		return
	}
	page, err := counters.Create(r.Name)
	if err != nil {
		v.fail(r.ID, vmop.ErrInternal, "%v", err)
		return
	}
	cgroup := extract(&r, &m, "cgroup")
	child, err := privsep.Spawn("vm", privsep.SpawnOptions{
		Name: "vm/" + r.Name, Verbose: r.Verbose, Program: privsep.ProgramInRoot, CgroupFD: cgroup,
	})
	if cgroup != nil {
		cgroup.Close()
	}
	if err != nil {
		page.Close()
		if cgroup != nil && errors.Is(err, unix.EACCES) { // of clone3(2); nothing else here needs a right
			err = fmt.Errorf("%w: does another vmd use its control groups?", err)
		}
		v.fail(r.ID, vmop.ErrHypervisor, "%v", err)
		return
	}
	g := &guest{v: v, id: r.ID, pid: child.PID, conn: child.Conn, page: page, kill: child.Kill}
	v.guests[r.ID] = g
	go func() {
		st := <-child.Exited
		v.Loop.Post(func() { g.exited(st.String(), st.CPU) })
	}()
	v.Loop.ReadPaced(g.conn, pace, g.handle, g.gone)
	g.define(r, m)
}

// define sends the process its definition, with the descriptors of m and the
// counter page.
func (g *guest) define(r vmop.VMStartRequest, m imsg.Msg) {
	page, err := dup(g.page)
	if err != nil {
		g.v.Log.Error().Err(err).Str("vm", r.Name).Msg("cannot share the counter page")
		g.kill()
		return
	}
	r.Files = append(r.Files, "counters")
	g.conn.Send(uint16(vmop.VMSpec), 0, r, append(m.TakeFiles(), page)...)
}

// extract takes the descriptor called name out of a request.
func extract(r *vmop.VMStartRequest, m *imsg.Msg, name string) *os.File {
	i := slices.Index(r.Files, name)
	if i < 0 {
		return nil
	}
	f := m.TakeFile(i)
	r.Files = slices.Delete(slices.Clone(r.Files), i, i+1)
	m.Files = slices.Delete(m.Files, i, i+1)
	return f
}

// adopt takes over a VM process that an earlier vmm started. The process says
// hello on the connection that parent made; the pidfd is parent's as well, who
// has looked whether that process is a VM's.
func (v *vmm) adopt(m imsg.Msg) {
	var r vmop.VMAdoptRequest
	if err := imsg.Unmarshal(m.Payload, &r); err != nil {
		v.Log.Error().Err(err).Msg("bad message")
		return
	}
	if len(m.Files) != 2 || v.guests[r.ID] != nil {
		// Nothing has happened to the VM: it must not be taken for gone.
		v.tell(vmop.Event{ID: r.ID, Kind: vmop.EventError, Code: vmop.ErrInternal, Detail: "adopt: no connection and process, or one too many"})
		return
	}
	conn, err := imsg.New(m.TakeFile(0))
	if err != nil {
		v.tell(vmop.Event{ID: r.ID, Kind: vmop.EventError, Code: vmop.ErrInternal, Detail: fmt.Sprintf("adopt: %v", err)})
		return
	}
	proc := m.TakeFile(1)
	g := &guest{v: v, id: r.ID, pid: r.PID, conn: conn, started: true, greets: true, kill: func() { killPidfd(proc) }}
	v.guests[r.ID] = g
	go func() {
		waitPidfd(proc)
		v.Loop.Post(func() {
			proc.Close()
			g.exited("gone", 0) // not our child: there is no status to be had
		})
	}()
	v.Loop.ReadPaced(conn, pace, g.handle, g.gone)
}

// killPidfd ends the process behind f. Once f is closed that is nobody, and not
// whoever has got the number of the descriptor.
func killPidfd(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

// waitPidfd waits for the process behind f to end.
func waitPidfd(f *os.File) {
	p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	for {
		if n, err := unix.Ppoll(p, nil, nil); n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

// handle takes what the process says about itself.
func (g *guest) handle(m imsg.Msg) {
	switch vmop.Type(m.Type) {
	case vmop.VMEvent:
		var e vmop.Event
		if err := imsg.Unmarshal(m.Payload, &e); err != nil {
			g.protest(err)
			return
		}
		e.ID, e.PID, e.Detail = g.id, g.pid, vmop.Text(e.Detail)
		g.event(e)
	case vmop.VMHello:
		var h vmop.Hello
		if err := imsg.Unmarshal(m.Payload, &h); err != nil {
			g.protest(err)
			return
		}
		if !g.greets {
			g.protest(errors.New("it says hello to nobody"))
			return
		}
		g.greets = false
		h.Definition.ID, h.PID = g.id, g.pid
		g.v.Parent.Send(m.Type, uint64(g.id), h, m.TakeFiles()...)
	default:
		g.protest(fmt.Errorf("unknown message type %d", m.Type))
	}
}

// protest ends a process that does not keep to the protocol: it is not ours
// any more.
func (g *guest) protest(err error) {
	g.v.Log.Warn().Err(err).Uint32("id", g.id).Msg("VM process broke the protocol; killing it")
	g.kill()
}

// event passes e on to parent. The end of a VM is not told before its process
// is gone and its files are free.
func (g *guest) event(e vmop.Event) {
	switch {
	case e.Kind.Gone():
		g.last = &e
		g.armKill()
	case e.Kind == vmop.EventStarted && g.started:
		g.protest(errors.New("it started twice"))
	case e.Kind == vmop.EventStarted:
		g.started = true
		if err := counters.SealWrites(g.page); err != nil {
			g.v.Log.Warn().Err(err).Uint32("id", g.id).Msg("counter page")
		}
		g.v.Parent.Send(uint16(vmop.VMEvent), 0, e, g.page)
		g.page = nil
	default:
		g.v.tell(e)
	}
}

// maxBehind is how many messages may wait for a VM process that is to get a
// descriptor: each would be one of ours until it reads.
const maxBehind = 64

// console passes a viewer on. For a process that does not read, its end is all
// that it gets.
func (g *guest) console(m imsg.Msg, r vmop.VMConsoleRequest) {
	if g.conn.Queued() < maxBehind {
		g.conn.Send(m.Type, m.ID, r, m.TakeFile(0))
	}
}

// send passes the socket on through which a guest is to go. If the process does
// not read, its end is the answer.
func (g *guest) send(m imsg.Msg, r vmop.VMSendRequest) {
	if g.conn.Queued() >= maxBehind {
		g.v.tell(vmop.Event{ID: g.id, Kind: vmop.EventSendFailed, Code: vmop.ErrHypervisor, Detail: "its process does not listen", State: vmop.Running})
		return
	}
	g.conn.Send(m.Type, m.ID, r, m.TakeFile(0))
}

// stop passes a stop on; by force, the process does not get the last word.
func (g *guest) stop(r vmop.VMStopRequest) {
	g.conn.Send(uint16(vmop.VMStop), 0, r)
	if r.Force {
		g.armKill()
	}
}

func (g *guest) armKill() {
	if g.timer == nil {
		g.timer = g.v.Loop.After(killTime, func() {
			g.last = &vmop.Event{Kind: vmop.EventKilled, Detail: "killed: it did not end by itself"}
			g.kill()
		})
	}
}

// gone notes the end of the connection, exited that of the process. A process
// that has no connection any more could not be asked to stop.
func (g *guest) gone(error) {
	g.eof = true
	if g.exit == "" {
		g.armKill()
	}
	g.finish()
}

func (g *guest) exited(how string, cpu time.Duration) {
	g.exit, g.cpu = how, cpu
	if !g.eof {
		g.v.Loop.After(lastWords, func() { go g.conn.Close() }) // which may wait, as imsg.Discard may
	}
	g.finish()
}

// finish tells parent once both have ended: until then a last word may come.
func (g *guest) finish() {
	if !g.eof || g.exit == "" {
		return
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	if g.page != nil {
		g.page.Close()
	}
	delete(g.v.guests, g.id)
	e := vmop.Event{Kind: vmop.EventCrashed, Detail: "its process ended: " + g.exit, Time: counters.Monotonic()}
	if g.last != nil {
		e = *g.last
	} else if !g.started {
		e.Kind, e.Code = vmop.EventFailed, vmop.ErrHypervisor
	}
	e.ID, e.PID, e.CPU = g.id, g.pid, uint64(g.cpu)
	g.v.tell(e)
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
