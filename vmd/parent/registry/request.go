package registry

import (
	"slices"

	"vmd/internal/vmop"
)

// request takes in what a client asks. Whether it may is settled before
// anything about the VM is said: an error must not tell a stranger its state.
func (r *Registry) request(q Request) {
	if rootOnly[q.Type] && q.Peer.UID != 0 {
		r.deny(q, nil, "", "only root may ask this")
		return
	}
	switch b := q.Body.(type) {
	case vmop.ListRequest:
		r.list(q.From, b)
	case vmop.StatsRequest:
		r.count(q.From, b)
	case vmop.StartRequest:
		r.start(q, b)
	case vmop.StopRequest:
		r.stop(q, b)
	case vmop.WaitRequest:
		r.wait(q, b)
	case vmop.VMRequest:
		r.onRunning(q, b)
	case vmop.ConsoleRequest:
		r.console(q, b)
	case vmop.SendRequest:
		r.send(q, b)
	case vmop.ReceiveRequest:
		r.receive(q, b)
	case vmop.LogRequest:
		r.do(SetVerbose{Verbose: b.Verbose})
		r.answer(q.From, vmop.Result{})
	case vmop.LoadRequest:
		r.load(q.From, b)
	case vmop.ResetRequest:
		r.reset(q.From, b)
	default:
		if q.Type == vmop.Reload {
			r.do(ReadConfig{To: q.From})
			return
		}
		r.refuse(q.From, nil, vmop.ErrInvalid, "no such request")
	}
}

// target returns the VM that a request of q is about, or answers why not.
func (r *Registry) target(q Request, ref vmop.Ref) *vm {
	v := r.find(ref)
	switch {
	case v == nil:
		r.refuse(q.From, nil, vmop.ErrNotFound, "no such VM")
		return nil
	case !v.may(&q.Peer):
		r.deny(q, v, "", "you do not own it")
		return nil
	}
	return v
}

// list answers with all VMs, or one. Everybody who can connect may see them.
func (r *Registry) list(to Asker, b vmop.ListRequest) {
	r.each(to, b.VM, func(v *vm) {
		if !b.Running || v.run != nil {
			r.do(Record{To: to, VM: v.record()})
		}
	})
}

// count answers with the counters of all VMs that run, or of one. They are no
// secret: the subagent shows them too.
func (r *Registry) count(to Asker, b vmop.StatsRequest) {
	r.each(to, b.VM, func(v *vm) {
		if v.run != nil && v.run.PID != 0 {
			r.do(Count{To: to, PID: v.run.PID, NICs: v.run.NICs, Stats: vmop.Stats{
				ID: v.known.ID, Name: v.def.Name, State: v.shown(), Started: int64(v.run.Started), CPUs: v.run.Def.CPUs,
			}})
		}
	})
}

// each calls f for the VM that ref names, or for all, and then answers.
func (r *Registry) each(to Asker, ref vmop.Ref, f func(*vm)) {
	if ref != (vmop.Ref{}) {
		v := r.find(ref)
		if v == nil {
			r.refuse(to, nil, vmop.ErrNotFound, "no such VM")
			return
		}
		f(v)
	} else {
		for _, v := range r.order {
			f(v)
		}
	}
	r.answer(to, vmop.Result{})
}

// clientGone drops what a client waits for. What it asked for goes on, but for a
// VM that was to go through that client.
func (r *Registry) clientGone(client uint64) {
	for _, v := range r.order {
		if v.send != nil && v.send.to.Client == client {
			v.send.to = Asker{}
			r.abandon(v)
		}
		if v.starter.Client == client {
			v.starter = Asker{}
		}
		v.pausers = slices.DeleteFunc(v.pausers, func(a Asker) bool { return a.Client == client })
		v.unpausers = slices.DeleteFunc(v.unpausers, func(a Asker) bool { return a.Client == client })
		v.waiters = slices.DeleteFunc(v.waiters, func(w waiter) bool {
			if w.to.Client == client && w.timeout {
				r.do(Disarm{Key: TimerKey{Kind: TimerWait, Asker: w.to}})
			}
			return w.to.Client == client
		})
	}
	for i := range r.resets {
		if r.resets[i].to.Client == client {
			r.resets[i].to = Asker{}
		}
	}
}
