package registry

import (
	"vmd/internal/vmop"
)

// onRunning carries out what is asked of a VM that runs: Pause, Unpause, Break.
func (r *Registry) onRunning(q Request, m vmop.VMRequest) {
	v := r.target(q, m.VM)
	if v == nil {
		return
	}
	if why := v.unready(); why != "" {
		code := vmop.ErrNotRunning
		if v.run != nil && v.run.stopping {
			code = vmop.ErrStopping
		}
		r.refuse(q.From, v, code, why)
		return
	}
	if v.state == vmop.Migrating && q.Type != vmop.Break {
		r.refuse(q.From, v, vmop.ErrBusy, beingSent)
		return
	}
	switch q.Type {
	case vmop.Pause:
		v.pausers = append(v.pausers, q.From)
		r.do(PauseVM{ID: v.known.ID})
	case vmop.Unpause:
		v.unpausers = append(v.unpausers, q.From)
		r.do(UnpauseVM{ID: v.known.ID})
	case vmop.Break:
		r.do(SendBreak{ID: v.known.ID})
		r.answer(q.From, vmop.Result{ID: v.known.ID, Name: v.def.Name})
	default:
		r.refuse(q.From, v, vmop.ErrInvalid, "no such request")
	}
}

// unready says why nothing can be asked of v's process.
func (v *vm) unready() string {
	switch {
	case v.run == nil:
		return "it is not running"
	case v.run.stopping:
		return "it is being stopped"
	case v.state == vmop.Starting:
		return "it is being started"
	}
	return ""
}

// console connects a client to a VM's serial port. That of a VM that is being
// stopped is worth seeing too.
func (r *Registry) console(q Request, m vmop.ConsoleRequest) {
	v := r.target(q, m.VM)
	switch {
	case v == nil:
	case v.run == nil:
		r.refuse(q.From, v, vmop.ErrNotRunning, "it is not running")
	case v.state == vmop.Starting || v.run.adopting:
		r.refuse(q.From, v, vmop.ErrBusy, "it is being started")
	default:
		r.do(Attach{
			ID: v.known.ID, To: q.From, ReadOnly: m.ReadOnly, NoReplay: m.NoReplay,
			Result: vmop.Result{ID: v.known.ID, Name: v.def.Name, TTY: v.run.TTY},
		})
	}
}

// paused: v's vCPUs stand still.
func (r *Registry) paused(v *vm) {
	if !v.run.stopping && v.state != vmop.Starting && v.state != vmop.Migrating {
		v.state, v.admin = vmop.Paused, vmop.AdminPaused
		r.publish(v)
		r.log(Info, v, "vm paused", "")
	}
	r.answerAll(v, &v.pausers, vmop.Result{})
}

// unpaused: v's vCPUs run again.
func (r *Registry) unpaused(v *vm) {
	if !v.run.stopping && v.state == vmop.Paused {
		v.state, v.admin = vmop.Running, vmop.AdminRunning
		r.publish(v)
		r.log(Info, v, "vm unpaused", "")
	}
	r.answerAll(v, &v.unpausers, vmop.Result{})
}

// failed: what was asked of v's process could not be done.
func (r *Registry) failed(v *vm, e VMEvent) {
	r.log(Warn, v, "request to vm failed", e.Detail)
	res := vmop.Result{Code: orInternal(e.Code), Detail: e.Detail}
	r.answerAll(v, &v.pausers, res)
	r.answerAll(v, &v.unpausers, res)
}

func (r *Registry) answerAll(v *vm, askers *[]Asker, res vmop.Result) {
	res.ID, res.Name = v.known.ID, v.def.Name
	for _, a := range *askers {
		r.answer(a, res)
	}
	*askers = nil
}
