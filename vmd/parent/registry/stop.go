package registry

import (
	"time"

	"vmd/internal/vmop"
)

// stop ends a VM: its guest is asked to, or not asked.
func (r *Registry) stop(q Request, m vmop.StopRequest) {
	v := r.target(q, m.VM)
	if v == nil {
		return
	}
	switch {
	case v.run == nil:
		r.stopIdle(q, v)
	case v.run.stopping && !m.Force && !m.Wait:
		r.refuse(q.From, v, vmop.ErrStopping, "it is being stopped already")
	default:
		r.stopRunning(q, m, v)
	}
}

// stopIdle stops a VM without a process: it loses its turn, its
// crash is taken note of, or there is nothing to stop.
func (r *Registry) stopIdle(q Request, v *vm) {
	if v.state == vmop.Stopped {
		r.refuse(q.From, v, vmop.ErrNotRunning, "it is not running")
		return
	}
	r.do(Disarm{Key: TimerKey{Kind: TimerRestart, ID: v.known.ID}})
	v.state, v.admin, v.stopped = vmop.Stopped, vmop.AdminShutdown, true
	r.publish(v)
	r.answer(q.From, vmop.Result{ID: v.known.ID, Name: v.def.Name})
}

// stopRunning stops a VM that has a process. A request that uses force is
// answered when the process has gone, so that a start may follow at once.
func (r *Registry) stopRunning(q Request, m vmop.StopRequest, v *vm) {
	v.stopped = true
	first := !v.run.stopping || m.Force && !v.run.force
	v.run.stopping, v.run.force = true, v.run.force || m.Force
	if first {
		r.log(Info, v, "vm is being stopped", "")
		r.sendStop(v)
	}
	if m.Wait || m.Force {
		r.addWaiter(v, q.From, m.Timeout, waiter{stop: true})
		return
	}
	r.answer(q.From, vmop.Result{ID: v.known.ID, Name: v.def.Name})
}

// sendStop has a process end that runs or will run. A paused guest cannot hear
// its power button.
func (r *Registry) sendStop(v *vm) {
	v.admin = vmop.AdminShutdown
	r.save = true
	switch v.state {
	case vmop.Starting: // started stops it, or vmm when it has begun
		if v.run.force {
			r.do(StopVM{ID: v.known.ID, Force: true})
		}
		return
	case vmop.Migrating: // sendFailed goes on, if it is still here then
		if !v.run.force {
			r.abandon(v)
			return
		}
		v.state = vmop.Stopping
	case vmop.Paused:
		if !v.run.force {
			r.do(UnpauseVM{ID: v.known.ID})
		}
	default:
		v.state = vmop.Stopping
	}
	r.do(StopVM{ID: v.known.ID, Force: v.run.force})
	r.publish(v)
}

// ShutdownTime is how long guests may take to shut down when vmd ends. It
// exceeds the 120 s that a guest has after it acknowledged its power button.
const ShutdownTime = 150 * time.Second

// shutdown ends all VMs in parallel, then the daemon.
func (r *Registry) shutdown(force bool) {
	if !r.down {
		r.log(Info, nil, "shutting down", "")
		r.do(Disarm{Key: TimerKey{Kind: TimerStarter}})
		r.do(Arm{Key: TimerKey{Kind: TimerShutdown}, After: ShutdownTime})
	}
	r.down = true
	for _, v := range r.order {
		switch {
		case v.run != nil && (!v.run.stopping || force && !v.run.force):
			v.run.stopping, v.run.force = true, v.run.force || force
			r.sendStop(v)
		case v.run == nil && v.state == vmop.Waiting:
			v.state, v.admin = vmop.Stopped, vmop.AdminShutdown
			r.publish(v)
		}
		r.do(Disarm{Key: TimerKey{Kind: TimerRestart, ID: v.known.ID}})
	}
	r.mayQuit()
}

func (r *Registry) mayQuit() {
	if r.down && !r.quit && len(r.Alive()) == 0 {
		r.quit = true
		for _, v := range r.order { // for what will not come any more
			r.answerWaiters(v, vmop.Result{Code: vmop.ErrUnavailable, Detail: "vmd is ending"}, true)
		}
		r.do(Disarm{Key: TimerKey{Kind: TimerShutdown}})
		r.do(Quit{})
	}
}

func (r *Registry) timer(k TimerKey) {
	switch k.Kind {
	case TimerStarter:
		r.batch()
	case TimerWait:
		r.waitedEnough(k.Asker)
	case TimerRestart:
		r.restart(r.vms[k.ID])
	case TimerShutdown:
		if r.down {
			r.log(Warn, nil, "guests took too long to shut down", "")
			r.shutdown(true)
		}
	}
}
