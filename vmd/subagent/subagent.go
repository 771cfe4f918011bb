// Package subagent answers SNMP for the VMs (ps shows it as "agentx"). It keeps
// the records that parent pushes and the VMs' counter pages, serves VM-MIB from
// them to a master agent, and sends notifications. It never asks a VM, and
// nothing waits for it: a guest that hangs cannot stall a walk, and a master that
// hangs cannot stall a VM.
//
//	user   _vmd:_agentx      root   empty
//	holds  the connection to the master agent, one socket to parent,
//	       counter pages (read only)
//	trusts parent; not the master agent, not what VMs write into their pages
//
// Parent makes the connections to the master: there is no file system here to
// find its socket in.
package subagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/logging"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
	"vmd/mib"
)

// Run is the role: it returns when parent has gone away.
func Run(p *privsep.Process) error {
	if err := p.Confine(); err != nil {
		return err
	}
	return newServer(p).run()
}

// server is the state of the role. The loop owns it, but for the store, which
// the session reads too.
type server struct {
	loop   *privsep.Loop
	parent *imsg.Conn
	log    zerolog.Logger
	noisy  zerolog.Logger // log for what a master can cause as often as it likes

	config vmop.SNMPConfig
	vms    map[uint32]*machine
	store  *mib.Store // nil until SNMPLoaded

	master int64        // when the master started (CLOCK_MONOTONIC, ns); 0: not known
	kept   mib.Switches // as parent has them

	session *session // nil while switched off
	dials   dials
	window  window
}

// machine is what parent last said of a VM, and its current run.
type machine struct {
	vm  vmop.VM
	run *run // nil without a process
}

func newServer(p *privsep.Process) *server {
	s := &server{
		loop: p.Loop, parent: p.Parent,
		vms: make(map[uint32]*machine),
	}
	s.window = window{loop: p.Loop, emit: s.emitBulk}
	s.setLog(p.Log)
	return s
}

func (s *server) setLog(log zerolog.Logger) {
	s.log = log
	s.noisy = logging.Sampled(log)
}

// byeTime is how long the session has to take leave of the master.
const byeTime = time.Second

func (s *server) run() error {
	err := s.loop.Serve(s.parent, s.fromParent)
	if done := s.stopSession(); done != nil {
		ctx, cancel := context.WithTimeout(context.Background(), byeTime)
		defer cancel()
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	return err
}

func (s *server) fromParent(m imsg.Msg) {
	var err error
	switch vmop.Type(m.Type) {
	case vmop.SNMPSetup:
		err = s.setup(&m)
	case vmop.SNMPPut:
		err = s.put(&m)
	case vmop.SNMPDelete:
		err = s.delete(&m)
	case vmop.SNMPLoaded:
		s.loaded()
	case vmop.SetLog:
		var r vmop.LogRequest
		if err = imsg.Unmarshal(m.Payload, &r); err == nil {
			s.setLog(s.log.Level(logging.Level(r.Verbose)))
		}
	default:
		err = errors.New("unknown message")
	}
	if err != nil {
		s.log.Error().Err(err).Uint16("type", m.Type).Msg("bad message from parent")
	}
}

// setup takes the configuration, and the connection that an SNMPDial asked for.
func (s *server) setup(m *imsg.Msg) error {
	var c vmop.SNMPConfig
	if err := imsg.Unmarshal(m.Payload, &c); err != nil {
		return err
	}
	s.dials.answer(m, c.Detail)
	c.Detail = ""
	was := s.config
	s.config = c
	if s.store == nil {
		return nil
	}
	s.store.SetHost(host(c))
	if switches(c) != switches(was) || c.ReadOnly != was.ReadOnly {
		s.store.Configure(switches(c), c.ReadOnly)
		s.keepSwitches()
	}
	if c.Enabled != was.Enabled || c.Path != was.Path || c.Context != was.Context || c.VMInfo != was.VMInfo {
		s.restartSession()
	}
	return nil
}

func switches(c vmop.SNMPConfig) mib.Switches { return mib.Switches{PerVM: c.PerVM, Bulk: c.Bulk} }

// loaded makes a store of what was put so far, and goes to work.
func (s *server) loaded() {
	c := s.config
	s.store = mib.NewStore(mib.Config{
		Host:     host(c),
		Switches: switches(c),
		ReadOnly: c.ReadOnly,
		Clock:    func() time.Duration { return time.Duration(counters.Monotonic()) },
	})
	records := make([]mib.VM, 0, len(s.vms))
	for _, m := range s.vms {
		if r, err := m.record(); err == nil {
			records = append(records, *r)
		} else {
			s.log.Error().Err(err).Str("vm", m.vm.Name).Msg("VM not shown by SNMP")
		}
	}
	if err := s.store.Load(records); err != nil {
		s.log.Error().Err(err).Msg("VM not shown by SNMP")
	}
	s.restoreSwitches()
	s.restartSession()
}

func (s *server) put(m *imsg.Msg) error {
	var vm vmop.VM
	if err := imsg.Unmarshal(m.Payload, &vm); err != nil {
		return err
	}
	now := &machine{vm: vm}
	if was := s.vms[vm.ID]; was != nil && was.run != nil && was.run.pid == vm.PID {
		now.run = was.run
	}
	if f := m.TakeFile(0); f != nil {
		r, err := openRun(f, vm.PID)
		f.Close()
		if err != nil {
			s.log.Error().Err(err).Str("vm", vm.Name).Msg("VM without counters")
		} else {
			now.run = r
		}
	}
	if vm.PID == 0 {
		now.run = nil
	}
	s.vms[vm.ID] = now
	if s.store == nil {
		return nil
	}
	r, err := now.record()
	if err != nil {
		return err
	}
	old, err := s.store.Put(r)
	if err != nil {
		return err
	}
	s.notify(mib.Compare(old, r))
	return nil
}

func (s *server) delete(m *imsg.Msg) error {
	var id vmop.VMID
	if err := imsg.Unmarshal(m.Payload, &id); err != nil {
		return err
	}
	delete(s.vms, id.ID)
	if s.store == nil {
		return nil
	}
	index, err := vmIndex(id.ID)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	s.notify(mib.Compare(s.store.Delete(index), nil))
	return nil
}
