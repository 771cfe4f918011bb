package parent

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmd/parent/registry"
)

// setupVMM: a new vmm knows no VM, so it is given those that there are.
func (p *parent) setupVMM() {
	if p.cgroups != nil {
		err := p.cgroups.SetStarter(p.roles["vmm"].proc.pid)
		if err != nil && !errors.Is(err, unix.ESRCH) { // one that has ended already has a successor
			p.log.Warn().Err(err).Msg("VMs run without control groups and their limits")
			p.cgroups = nil
		}
	}
	if p.hadVMM {
		p.step(registry.VMMGone{})
	}
	p.hadVMM = true
}

func (p *parent) fromVMM(m imsg.Msg) {
	var err error
	switch vmop.Type(m.Type) {
	case vmop.VMEvent:
		var e vmop.Event
		if err = imsg.Unmarshal(m.Payload, &e); err == nil {
			p.event(e, &m)
		}
	case vmop.VMHello:
		var h vmop.Hello
		if err = imsg.Unmarshal(m.Payload, &h); err == nil {
			p.hello(h, &m)
		}
	default:
		err = errUnknown
	}
	if err != nil {
		p.protest("vmm", err)
	}
	m.Discard() // vmm must not have to wait for a VM process's descriptor
}

// event takes in news of a VM.
func (p *parent) event(e vmop.Event, m *imsg.Msg) {
	ev := registry.VMEvent{Event: e}
	r := p.runs[e.ID]
	switch {
	case r == nil:
	case e.Kind == vmop.EventStarted:
		r.pid, r.made = e.PID, nil
		if err := r.takePage(m.TakeFile(0)); err != nil {
			p.log.Error().Err(err).Str("vm", r.def.Name).Msg("no counters")
		}
		ev.Started = r.started()
	case e.Kind.Gone():
		ev.Totals = r.totals(e.CPU)
		switch { // the process has no names of files
		case e.Code == vmop.ErrKernel:
			ev.Detail = fmt.Sprintf("boot %q: %s", r.def.Boot, e.Detail)
		case e.Code == vmop.ErrNoBootROM && r.netROM != "":
			ev.Detail = fmt.Sprintf("network boot ROM %q: %s", r.netROM, e.Detail)
		}
	}
	p.step(ev)
	if e.Kind.Gone() {
		p.settled(e.ID)
	}
}
