// Package vmm spawns and jails the VM processes, passes on what parent wants of
// them, and says how each of them ended. It touches no guest and reads no file.
//
//	user   _vmd          root   this program and nothing else
//	holds  what jailing a child takes (privsep.Roles), a socket to parent and
//	       one to each VM process
//	trusts parent; not the VM processes: what they say about themselves is
//	       only believed about themselves
//
// A VM process outlives its vmm. The next vmm is given a connection to it by
// parent.
package vmm

import (
	"fmt"

	"vmd/internal/imsg"
	"vmd/internal/logging"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// vmm is the state of the process. Only its loop touches it.
type vmm struct {
	*privsep.Process
	guests map[uint32]*guest
}

// Run is the role. It returns when parent is gone.
func Run(p *privsep.Process) error {
	if err := p.Confine(); err != nil {
		return err
	}
	v := &vmm{Process: p, guests: map[uint32]*guest{}}
	return p.Loop.Serve(p.Parent, v.handle)
}

// handle carries out what parent wants.
func (v *vmm) handle(m imsg.Msg) {
	switch t := vmop.Type(m.Type); t {
	case vmop.VMStart:
		v.start(m)
	case vmop.VMAdopt:
		v.adopt(m)
	case vmop.VMStop:
		var r vmop.VMStopRequest
		if g := v.find(m, &r, func() uint32 { return r.ID }); g != nil {
			g.stop(r)
		}
	case vmop.VMSend:
		var r vmop.VMSendRequest
		if g := v.find(m, &r, func() uint32 { return r.ID }); g != nil {
			g.send(m, r)
		}
	case vmop.VMPause, vmop.VMUnpause, vmop.VMBreak, vmop.VMAbort:
		var r vmop.VMID
		if g := v.find(m, &r, func() uint32 { return r.ID }); g != nil {
			g.conn.Send(m.Type, m.ID, r)
		}
	case vmop.VMConsole:
		var r vmop.VMConsoleRequest
		if g := v.find(m, &r, func() uint32 { return r.ID }); g != nil {
			g.console(m, r)
		}
	case vmop.SetLog:
		v.setLog(m)
	default:
		v.Log.Error().Uint16("type", m.Type).Msg("unknown message")
	}
}

// find decodes m into r and returns the guest that it is about. When there is
// none, parent is told that the guest is gone: it may have asked before it
// could know.
func (v *vmm) find(m imsg.Msg, r any, id func() uint32) *guest {
	if err := imsg.Unmarshal(m.Payload, r); err != nil {
		v.Log.Error().Err(err).Uint16("type", m.Type).Msg("bad message")
		return nil
	}
	g := v.guests[id()]
	if g == nil {
		v.tell(vmop.Event{ID: id(), Kind: vmop.EventError, Code: vmop.ErrNotRunning, Detail: "the VM has no process"})
	}
	return g
}

// tell sends an event to parent.
func (v *vmm) tell(e vmop.Event) { v.Parent.Send(uint16(vmop.VMEvent), 0, e) }

func (v *vmm) setLog(m imsg.Msg) {
	var r vmop.LogRequest
	if err := imsg.Unmarshal(m.Payload, &r); err != nil {
		v.Log.Error().Err(err).Msg("bad message")
		return
	}
	v.Log = v.Log.Level(logging.Level(r.Verbose))
	for _, g := range v.guests {
		g.conn.Send(m.Type, 0, r)
	}
}

// fail answers a start that came to nothing.
func (v *vmm) fail(id uint32, code vmop.Code, format string, args ...any) {
	v.tell(vmop.Event{ID: id, Kind: vmop.EventFailed, Code: code, Detail: fmt.Sprintf(format, args...)})
}
