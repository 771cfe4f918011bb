package registry

import (
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// A guest that resets again within quickReset of its start, quickLimit times
// in a row, is stopped: it would go on for ever. The numbers are OpenBSD's
// (VM_START_RATE_SEC and VM_START_RATE_LIMIT, vmd.h); starts by hand, which it
// counts too, are no reset.
const (
	quickReset = 6 * time.Second
	quickLimit = 3
)

// restartPause is how long a VM that failed stays down.
const restartPause = time.Second

// vmEvent takes in news of a VM. News of a run that is over are old.
func (r *Registry) vmEvent(e VMEvent) {
	v := r.vms[e.ID]
	if v == nil || v.run == nil {
		return
	}
	switch e.Kind {
	case vmop.EventStarted:
		if v.state == vmop.Starting {
			r.started(v, e)
		}
	case vmop.EventPaused:
		r.paused(v)
	case vmop.EventUnpaused:
		r.unpaused(v)
	case vmop.EventStopping:
		r.stopsItself(v)
	case vmop.EventError:
		r.failed(v, e)
	case vmop.EventSent:
		r.sent(v, e)
	case vmop.EventSendFailed:
		r.sendFailed(v, e)
	default:
		if e.Kind.Gone() {
			r.gone(v, e)
		}
	}
}

// stopsItself: the guest is shutting down. If nobody asked it to, it is what
// is wanted of it from now on.
func (r *Registry) stopsItself(v *vm) {
	if v.state == vmop.Running {
		v.state, v.admin = vmop.Stopping, vmop.AdminShutdown
		r.publish(v)
	}
}

// gone: v has no process any more.
func (r *Registry) gone(v *vm, e VMEvent) {
	addTotals(&v.known.Past, e.Totals)
	v.run.PID = 0
	r.save = true
	switch {
	case v.run.Sent:
		r.sentAway(v)
	case v.state == vmop.Starting && !v.run.resetting:
		r.startFailed(v, e)
	case e.Kind == vmop.EventReset && !v.run.stopping && !r.down:
		r.guestReset(v)
	case e.Kind == vmop.EventFailed:
		r.ended(v, e.Code, "not started after a reset: "+e.Detail, true)
	case e.Kind == vmop.EventCrashed:
		r.ended(v, vmop.ErrCrashed, e.Detail, true)
	default:
		r.ended(v, vmop.OK, howEnded(v, e), false)
	}
}

// howEnded says for people how a VM ended that did not fail.
func howEnded(v *vm, e VMEvent) string {
	switch {
	case e.Detail != "":
		return e.Detail
	case e.Kind == vmop.EventKilled:
		return "stopped by force"
	case e.Kind == vmop.EventReset && !v.run.stopping:
		return "guest reset"
	case v.run.stopping:
		return "shut down as it was asked to"
	}
	return "guest powered off"
}

// guestReset starts v again: same id, addresses, tty, but a process of its own.
func (r *Registry) guestReset(v *vm) {
	if v.run.Def.BootDevice != config.BootAuto {
		r.ended(v, vmop.OK, "guest reset after a boot from "+v.run.Def.BootDevice.String(), false)
		return
	}
	if r.now-v.run.begun < quickReset {
		v.run.quick++
	} else {
		v.run.quick = 0
	}
	if v.run.quick >= quickLimit {
		r.ended(v, vmop.ErrTooOften, "guest resets too often", true)
		return
	}
	def, files := v.run.again()
	v.run.Def, v.run.Files = def, files
	v.run.begun, v.run.resetting = r.now, true
	v.state, v.admin = vmop.Starting, vmop.AdminRunning
	r.log(Info, v, "guest reset", "")
	r.answerAll(v, &v.pausers, vmop.Result{Code: vmop.ErrBusy, Detail: "its guest has reset"})
	r.answerAll(v, &v.unpausers, vmop.Result{Code: vmop.ErrBusy, Detail: "its guest has reset"})
	r.answerSend(v, vmop.Result{Code: vmop.ErrSend, Detail: "its guest has reset"})
	r.do(EndRun{ID: v.known.ID, Keep: true})
	r.publish(v)
	r.do(StartVM{ID: v.known.ID, UUID: v.known.uuid(&def), Def: clone(&def), Files: files, Again: true})
}

// ended: v has stopped for good. code and why are for those who wait.
func (r *Registry) ended(v *vm, code vmop.Code, why string, crashed bool) {
	crashed = crashed && !v.run.stopping
	if !crashed && v.state == vmop.Running && !v.run.stopping {
		r.stopsItself(v) // a manager sees both steps, RFC 7666, 4
	}
	v.run, v.lastExit = nil, why
	r.do(EndRun{ID: v.known.ID})
	if crashed {
		v.state = vmop.Crashed // and admin stays: the mismatch is the alarm
		r.log(Error, v, "vm crashed", why)
	} else {
		v.state, v.admin = vmop.Stopped, vmop.AdminShutdown
		r.log(Info, v, "vm stopped", why)
	}
	r.answerStart(v, vmop.Result{Code: vmop.ErrNotRunning, Detail: why})
	r.settleGone(v, vmop.Result{Code: code, Detail: why})
}

// settleGone does what follows when v has no run any more: whoever waits is
// told, and what is defined nowhere goes.
func (r *Registry) settleGone(v *vm, res vmop.Result) {
	r.publish(v)
	r.answerWaiters(v, res, false)
	lost := vmop.Result{Code: vmop.ErrNotRunning, Detail: "it has stopped"}
	r.answerAll(v, &v.pausers, lost)
	r.answerAll(v, &v.unpausers, lost)
	r.answerSend(v, vmop.Result{Code: vmop.ErrSend, Detail: "it has stopped: " + v.lastExit})
	switch {
	case v.forget || !v.persistent:
		r.remove(v)
	case v.state == vmop.Crashed:
		r.planRestart(v)
	}
	r.resetDone(v.known.ID)
	r.mayQuit()
}

// planRestart has a VM that failed started again, if its definition says so and
// it has not failed too often.
func (r *Registry) planRestart(v *vm) {
	p := v.def.Restart
	if !p.OnFailure || r.down {
		return
	}
	recent := v.failures[:0]
	for _, t := range v.failures {
		if p.Window == 0 || r.now-t < p.Window {
			recent = append(recent, t)
		}
	}
	v.failures = recent
	if p.Max > 0 && len(recent) >= p.Max {
		r.log(Error, v, "vm fails too often, not restarted", v.lastExit)
		return
	}
	v.failures = append(v.failures, r.now)
	r.do(Arm{Key: TimerKey{Kind: TimerRestart, ID: v.known.ID}, After: restartPause})
}

func (r *Registry) restart(v *vm) {
	if v != nil && v.run == nil && v.state == vmop.Crashed && !r.down {
		r.log(Info, v, "vm restarted after a failure", v.lastExit)
		r.begin(v, clone(&v.def), Asker{}, nil)
	}
}

// addTotals adds the counters of a run to those of the runs before.
func addTotals(sum *vmop.Totals, t vmop.Totals) {
	sum.CPU += t.CPU
	vcpu := append([]uint64(nil), sum.VCPU...)
	for i, n := range t.VCPU {
		if i == len(vcpu) {
			vcpu = append(vcpu, 0)
		}
		vcpu[i] += n
	}
	disks := append([]vmop.DiskTotals(nil), sum.Disks...)
	for i, d := range t.Disks {
		if i == len(disks) {
			disks = append(disks, vmop.DiskTotals{})
		}
		s := &disks[i]
		s.ReadOps += d.ReadOps
		s.WriteOps += d.WriteOps
		s.ReadBytes += d.ReadBytes
		s.WriteBytes += d.WriteBytes
		s.ReadNanos += d.ReadNanos
		s.WriteNanos += d.WriteNanos
	}
	sum.VCPU, sum.Disks = vcpu, disks
}
