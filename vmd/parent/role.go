package parent

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/logging"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// process is a process of ours, seen from here.
type process struct {
	pid    int
	conn   *imsg.Conn
	exited <-chan privsep.ExitStatus
	kill   func()
}

// role is one of the roles. Its process may die and be replaced; whoever talks
// to it notices nothing but a missing answer.
type role struct {
	name   string
	proc   *process // nil while there is none
	deaths []time.Time

	setup  func() // tells a new process all it has to know
	lost   func() // drops what was asked of the one before
	handle func(imsg.Msg)
}

// A role that dies deathLimit times within deathWindow is restarted slowly.
const (
	deathLimit  = 5
	deathWindow = 10 * time.Second
	deathPause  = time.Second
)

// endTime is how long roles have to end when their parent does.
const endTime = 3 * time.Second

var errNoProcess = errors.New("the process is being restarted")

func spawnRole(name string, verbose bool) (*process, error) {
	c, err := privsep.Spawn(name, privsep.SpawnOptions{Verbose: verbose})
	if err != nil {
		return nil, err
	}
	return &process{pid: c.PID, conn: c.Conn, exited: c.Exited, kill: c.Kill}, nil
}

// startRoles starts all roles for the first time.
func (p *parent) startRoles() error {
	for _, r := range []*role{
		{name: "priv", handle: p.fromPriv, setup: p.setupPriv, lost: p.lostPriv},
		{name: "control", handle: p.fromControl, setup: p.setupControl, lost: p.lostControl},
		{name: "vmm", handle: p.fromVMM, setup: p.setupVMM, lost: func() {}},
		{name: "agentx", handle: p.fromAgentX, setup: p.setupAgentX, lost: func() {}},
	} {
		p.roles[r.name] = r
		if err := p.startRole(r); err != nil {
			return err
		}
	}
	return nil
}

func (p *parent) startRole(r *role) error {
	proc, err := p.spawn(r.name, p.verbose)
	if err != nil {
		return err
	}
	r.proc = proc
	p.loop.Read(proc.conn, func(m imsg.Msg) {
		if r.proc == proc {
			r.handle(m)
		}
	}, func(err error) {
		if !p.leaving { // then it is we who closed the connection
			proc.kill() // one that does not listen is of no use
		}
	})
	go func() {
		status := <-proc.exited
		p.loop.Post(func() { p.roleExited(r, proc, status) })
	}()
	r.setup()
	return nil
}

// roleExited replaces a process that died. At the daemon's end it is to die, and
// the last one ends the loop.
func (p *parent) roleExited(r *role, proc *process, status privsep.ExitStatus) {
	go proc.conn.Close() // with what it sent last, which may be a client's descriptor
	r.proc = nil
	p.reap()
	if p.leaving {
		if len(p.procs()) == 0 {
			p.loop.Stop(nil)
		}
		return
	}
	p.log.Error().Str("role", r.name).Int("pid", proc.pid).Stringer("status", status).Msg("process died; restarting it")
	r.lost()
	p.restartRole(r)
}

func (p *parent) restartRole(r *role) {
	now := time.Now()
	recent := r.deaths[:0]
	for _, t := range r.deaths {
		if now.Sub(t) < deathWindow {
			recent = append(recent, t)
		}
	}
	r.deaths = append(recent, now)
	if len(r.deaths) > deathLimit {
		p.loop.After(deathPause, func() { p.tryRole(r) })
		return
	}
	p.tryRole(r)
}

func (p *parent) tryRole(r *role) {
	if p.leaving || r.proc != nil {
		return
	}
	if err := p.startRole(r); err != nil {
		p.log.Error().Err(err).Str("role", r.name).Msg("cannot restart; trying again")
		p.loop.After(deathPause, func() { p.tryRole(r) })
	}
}

// send passes a message to a role, and takes over files.
func (p *parent) send(name string, typ vmop.Type, id uint64, v any, files ...*os.File) error {
	r := p.roles[name]
	if r == nil || r.proc == nil {
		imsg.Discard(files...)
		return errNoProcess
	}
	err := r.proc.conn.Send(uint16(typ), id, v, files...)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return errNoProcess // it has ended, and roleExited has not been told yet
	}
	return err
}

var errUnknown = errors.New("no such message")

// protest ends a role's process that does not keep to the protocol: it is not
// ours any more. Another takes its place.
func (p *parent) protest(name string, err error) {
	p.log.Error().Err(err).Str("role", name).Msg("process broke the protocol; killing it")
	if proc := p.roles[name].proc; proc != nil {
		proc.kill()
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// endRoles lets all roles go; roleExited ends the loop after the last.
func (p *parent) endRoles() {
	procs := p.procs()
	p.leaving = true
	for _, proc := range procs {
		go proc.conn.Flush() // the end of it is their sign
		p.loop.After(endTime, proc.kill)
	}
	if len(procs) == 0 {
		p.loop.Stop(nil)
	}
}

func (p *parent) procs() (procs []*process) {
	for _, r := range p.roles {
		if r.proc != nil {
			procs = append(procs, r.proc)
		}
	}
	return procs
}

// killRoles is for a daemon that cannot start.
func (p *parent) killRoles() {
	for _, proc := range p.procs() {
		proc.kill()
	}
}

// setVerbose changes how much is logged, everywhere.
func (p *parent) setVerbose(verbose bool) {
	p.verbose = verbose
	p.log = p.log.Level(logging.Level(verbose))
	p.noisy = logging.Sampled(p.log)
	for name := range p.roles {
		p.send(name, vmop.SetLog, 0, vmop.LogRequest{Verbose: verbose})
	}
}
