package registry

import (
	"slices"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// owns reports whether a user is root, or is the owner o, or in its group.
func owns(o *config.Owner, p *vmop.Peer) bool {
	return p.UID == 0 || p.UID == o.UID || o.HasGID && inGroup(p, o.GID)
}

func inGroup(p *vmop.Peer, gid uint32) bool { return slices.Contains(p.Groups, gid) }

// may reports whether a user may act on v. While v runs, its owner is the one
// that it had when it was started (vmd.md 3.3).
func (v *vm) may(p *vmop.Peer) bool {
	if v.run != nil {
		return owns(&v.run.Def.Owner, p)
	}
	return owns(&v.def.Owner, p)
}

// mayInstantiate reports whether a user may make instances of a VM that is
// defined as d. Without "allow instance owner" nobody but root may (verdict 43).
func mayInstantiate(d *config.VM, p *vmop.Peer) bool {
	return p.UID == 0 || d.Allow.HasOwner && owns(&d.Allow.Owner, p)
}

// rootOnly are the requests that are root's alone. control refuses them too.
var rootOnly = map[vmop.Type]bool{
	vmop.Load: true, vmop.Reload: true, vmop.Reset: true, vmop.Log: true,
	vmop.Send: true, vmop.Receive: true,
}

// request takes in what a client asks. Whether it may is settled before
// anything about the VM is said (verdict 50).
func (r *Registry) request(q Request) {
	if rootOnly[q.Type] && q.Peer.UID != 0 {
		uid := q.Peer.UID
		r.do(Log{Level: Warn, Message: "request denied", Detail: "only root may ask this", UID: &uid})
		r.refuse(q.From, nil, vmop.ErrPermission, "only root may ask this")
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
		uid := q.Peer.UID
		r.do(Log{Level: Warn, Message: "request denied", ID: v.known.ID, Name: v.def.Name, UID: &uid})
		r.refuse(q.From, v, vmop.ErrPermission, "you do not own it")
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
