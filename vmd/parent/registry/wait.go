package registry

import (
	"slices"
	"time"

	"vmd/internal/vmop"
)

// wait answers when a VM has stopped, however it was stopped, or when it is in
// the state that m asks for.
func (r *Registry) wait(q Request, m vmop.WaitRequest) {
	v := r.target(q, m.VM)
	switch {
	case v == nil:
	case m.For > vmop.WaitCrashed:
		r.refuse(q.From, v, vmop.ErrInvalid, "nobody can wait for this")
	case m.For == vmop.WaitEnd && v.run == nil:
		r.refuse(q.From, v, vmop.ErrNotRunning, "it is not running")
	case v.is(m.For):
		r.answer(q.From, vmop.Result{ID: v.known.ID, Name: v.def.Name})
	default:
		r.addWaiter(v, q.From, m.Timeout, waiter{what: m.For})
	}
}

// is reports whether v is in the state that somebody would wait for.
func (v *vm) is(what vmop.WaitFor) bool {
	switch what {
	case vmop.WaitRunning:
		return v.state == vmop.Running
	case vmop.WaitStopped:
		return v.run == nil && v.state != vmop.Waiting
	case vmop.WaitCrashed:
		return v.state == vmop.Crashed
	}
	return false
}

// addWaiter makes w, who is to, wait for v.
func (r *Registry) addWaiter(v *vm, to Asker, seconds uint32, w waiter) {
	w.to, w.timeout = to, seconds > 0
	v.waiters = append(v.waiters, w)
	if w.timeout {
		r.do(Arm{Key: TimerKey{Kind: TimerWait, Asker: to}, After: time.Duration(seconds) * time.Second})
	}
}

// notYet says what a waiter waited for in vain.
var notYet = [...]string{
	vmop.WaitEnd: "it has not stopped yet", vmop.WaitRunning: "it does not run yet",
	vmop.WaitStopped: "it has not stopped yet", vmop.WaitCrashed: "it has not crashed",
}

// waitedEnough answers a client that set a limit to its waiting.
func (r *Registry) waitedEnough(to Asker) {
	for _, v := range r.order {
		for i, w := range v.waiters {
			if w.to == to && w.timeout {
				v.waiters = slices.Delete(v.waiters, i, i+1)
				r.refuse(to, v, vmop.ErrTimeout, notYet[w.what])
				return
			}
		}
	}
}

// reached answers those who wait for the state that v is in.
func (r *Registry) reached(v *vm) {
	v.waiters = slices.DeleteFunc(v.waiters, func(w waiter) bool {
		if !v.is(w.what) {
			return false
		}
		r.answerWaiter(v, w, vmop.Result{})
		return true
	})
}

// answerWaiters tells those who wait for v's end how it ended, and with all
// everybody who waits for v. One that asked for the end got what it asked for.
func (r *Registry) answerWaiters(v *vm, res vmop.Result, all bool) {
	v.waiters = slices.DeleteFunc(v.waiters, func(w waiter) bool {
		if w.what != vmop.WaitEnd && !all {
			return false
		}
		a := res
		if w.stop {
			a.Code = vmop.OK
		}
		r.answerWaiter(v, w, a)
		return true
	})
}

func (r *Registry) answerWaiter(v *vm, w waiter, res vmop.Result) {
	if w.timeout {
		r.do(Disarm{Key: TimerKey{Kind: TimerWait, Asker: w.to}})
	}
	res.ID, res.Name = v.known.ID, v.def.Name
	r.answer(w.to, res)
}
