package registry

import (
	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// sending is a VM on its way to another host. A send ends in one of four ways:
// the process says that the guest has gone (EventSent, and is then stopped), or
// that it has not (EventSendFailed); the guest ends by itself; or a new vmm finds
// the process and it knows of no sending.
type sending struct {
	to    Asker
	pause uint64 // ns, once it has gone
}

// send moves a VM to another host. While it is on its way it can be looked at,
// and stopped, but not changed.
func (r *Registry) send(q Request, m vmop.SendRequest) {
	v := r.target(q, m.VM)
	if v == nil {
		return
	}
	code, why := v.unsendable()
	if r.down {
		code, why = vmop.ErrUnavailable, "vmd is shutting down"
	}
	if why != "" {
		r.refuse(q.From, v, code, why)
		return
	}
	g := v.known.guest(&v.run.Def)
	g.Paused, g.WithDisks = v.state == vmop.Paused, m.WithDisks
	v.send, v.state = &sending{to: q.From}, vmop.Migrating
	r.publish(v)
	r.log(Info, v, "vm is being sent", "")
	r.do(SendVM{ID: v.known.ID, From: q.From, Guest: g, MaxPause: m.MaxPause})
}

// unsendable says why v cannot be sent.
func (v *vm) unsendable() (vmop.Code, string) {
	if why := v.unready(); why != "" {
		if v.run != nil && v.run.stopping {
			return vmop.ErrStopping, why
		}
		return vmop.ErrNotRunning, why
	}
	switch {
	case v.send != nil || v.state == vmop.Migrating:
		return vmop.ErrBusy, beingSent
	case v.run.adopting || len(v.pausers)+len(v.unpausers) > 0:
		return vmop.ErrBusy, "something else is being done to it"
	case v.run.Def.SEV:
		return vmop.ErrUnsupported, "its memory is encrypted"
	}
	return vmop.OK, ""
}

const beingSent = "it is being sent to another host"

// guest is a VM that runs as def, as it travels. What only its process knows,
// that adds.
func (k *Known) guest(def *config.VM) vmop.Guest {
	g := vmop.Guest{
		Name: def.Name, UUID: k.uuid(def), MemoryBytes: def.MemoryBytes, CPUs: def.CPUs, OSType: def.OS,
		Kernel: def.Boot, Initrd: def.Initrd, Cmdline: def.Cmdline, CDROM: def.CDROM,
		Transitional: def.Transitional, NetBoot: def.NetBoot(),
	}
	for _, d := range def.Disks {
		g.Disks = append(g.Disks, vmop.GuestDisk{Path: d.Path})
	}
	for i, n := range def.NICs {
		g.NICs = append(g.NICs, vmop.GuestNIC{MAC: k.mac(def, i), Switch: n.Switch, Local: n.Local})
	}
	return g
}

// sent: v's guest has gone. Its process waits until this has been taken note of:
// if we die before that, the next of us hears of it once more.
func (r *Registry) sent(v *vm, e VMEvent) {
	if v.send == nil && v.state != vmop.Migrating {
		r.log(Warn, v, "vm says that it was sent, and nobody asked", "")
		return
	}
	if v.send != nil {
		v.send.pause = e.Pause
	}
	v.run.Sent = true
	r.save = true
	r.do(StopVM{ID: v.known.ID, Force: true})
}

// sentAway: v was sent, and its process has gone. Nothing but an operator starts
// it again: it runs elsewhere.
func (r *Registry) sentAway(v *vm) {
	v.stopped, v.known.Away = true, true
	res := vmop.Result{}
	if v.send != nil {
		res.Pause = v.send.pause
	}
	r.answerSend(v, res)
	r.ended(v, vmop.OK, "sent to another host", false)
}

// sendFailed: v was not sent. It is what it was before, or stands still because
// nobody knows who has it.
func (r *Registry) sendFailed(v *vm, e VMEvent) {
	if v.send == nil && v.state != vmop.Migrating || v.run.Sent {
		return
	}
	if v.state == vmop.Migrating {
		v.restored(e.State)
	}
	r.publish(v)
	r.log(Warn, v, "vm not sent", e.Detail)
	r.answerSend(v, vmop.Result{Code: orInternal(e.Code), Detail: e.Detail})
	if v.run.stopping {
		r.sendStop(v)
	}
}

// restored makes v what its process says it is after a send that failed.
func (v *vm) restored(s vmop.State) {
	if s == vmop.Paused {
		v.state, v.admin = vmop.Paused, vmop.AdminPaused
		return
	}
	v.state, v.admin = vmop.Running, vmop.AdminRunning
}

// answerSend answers whoever had v sent.
func (r *Registry) answerSend(v *vm, res vmop.Result) {
	if v.send == nil {
		return
	}
	res.ID, res.Name = v.known.ID, v.def.Name
	r.answer(v.send.to, res)
	v.send = nil
}

// abandon ends the sending of v, if it is not too late.
func (r *Registry) abandon(v *vm) { r.do(AbortSend{ID: v.known.ID}) }

func orInternal(c vmop.Code) vmop.Code {
	if c == vmop.OK {
		return vmop.ErrInternal
	}
	return c
}
