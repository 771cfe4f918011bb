package registry

import (
	"fmt"
	"path/filepath"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// configure takes over a configuration that was read without an error.
func (r *Registry) configure(e Configure) {
	if e.Parallel > 0 {
		r.parallel = e.Parallel
	}
	r.delay = max(e.Delay, 0)
	if !e.Load {
		r.dropMissing(e.VMs)
	}
	names := make([]string, len(e.VMs))
	for i := range e.VMs {
		names[i] = e.VMs[i].Name
		r.register(&e.VMs[i], e.Load)
	}
	if !e.Load {
		r.sortOrder(names)
	}
	r.answer(e.To, vmop.Result{})
	r.batch()
}

// dropMissing forgets every VM without a process that the new configuration
// does not have.
func (r *Registry) dropMissing(defs []config.VM) {
	have := make(map[string]bool, len(defs))
	for i := range defs {
		have[defs[i].Name] = true
	}
	for _, v := range append([]*vm(nil), r.order...) {
		if v.run == nil && !have[v.def.Name] {
			r.remove(v)
		}
	}
}

// register makes d known. A VM that runs goes on as it is, and follows the new
// definition at its next start; one that a file only adds to stays as it was.
func (r *Registry) register(d *config.VM, load bool) {
	v := r.names[d.Name]
	switch {
	case v == nil:
		v = &vm{known: r.know(d.Name, 0), def: clone(d), persistent: true}
		if r.vms[v.known.ID] != nil {
			r.log(Warn, nil, "vm is not defined: its id is in use", d.Name)
			return
		}
		r.add(v)
	case load || v.run != nil && !v.persistent && !v.recovered:
		r.log(Warn, v, "vm exists already", fmt.Sprintf("%s:%d is ignored", d.File, d.Line))
		return
	default:
		v.def = clone(d)
	}
	r.addresses(v.known, &v.def)
	if v.run != nil {
		v.run.Persistent = true
		v.persistent, v.recovered = true, false
		r.save = true
	} else {
		r.idle(v)
	}
	r.publish(v)
}

// idle decides whether a VM of the configuration, which has no process, is to
// be started. One that an operator stopped, or that was sent away, is not.
func (r *Registry) idle(v *vm) {
	v.persistent = true
	if v.def.Enabled && !v.stopped && !v.known.Away && !r.down {
		r.do(Disarm{Key: TimerKey{Kind: TimerRestart, ID: v.known.ID}})
		v.state, v.admin = vmop.Waiting, vmop.AdminRunning
		return
	}
	if v.state == vmop.Waiting {
		v.state, v.admin = vmop.Stopped, vmop.AdminShutdown
	}
}

// batch starts the next VMs whose turn it is: parallel of them, and more after
// delay (vm.conf(5), staggered start). It counts attempts, not successes.
func (r *Registry) batch() {
	r.do(Disarm{Key: TimerKey{Kind: TimerStarter}})
	if r.down {
		return
	}
	n := 0
	for _, v := range append([]*vm(nil), r.order...) {
		if v.state != vmop.Waiting || v.run != nil {
			continue
		}
		if n++; n > r.parallel {
			r.do(Arm{Key: TimerKey{Kind: TimerStarter}, After: r.delay})
			return
		}
		r.begin(v, clone(&v.def), Asker{}, nil)
	}
}

// load adds the definitions of a file.
func (r *Registry) load(to Asker, b vmop.LoadRequest) {
	if !filepath.IsAbs(b.Path) {
		r.refuse(to, nil, vmop.ErrInvalid, fmt.Sprintf("path %q is not absolute", b.Path))
		return
	}
	r.do(ReadConfig{Path: b.Path, To: to})
}

// reset forgets switches, VMs or both. It is answered when no process is left.
func (r *Registry) reset(to Asker, b vmop.ResetRequest) {
	if b.Switches {
		r.do(ForgetSwitches{})
	}
	if !b.VMs {
		r.answer(to, vmop.Result{})
		return
	}
	r.do(Disarm{Key: TimerKey{Kind: TimerStarter}})
	w := resetWait{to: to, ids: map[uint32]bool{}}
	for _, v := range append([]*vm(nil), r.order...) {
		if v.run == nil {
			r.remove(v)
			continue
		}
		w.ids[v.known.ID], v.forget = true, true
		if !v.run.force {
			v.run.stopping, v.run.force = true, true
			r.sendStop(v)
		}
	}
	// Names get new numbers, those of VMs that still have a process when it has
	// gone; the old numbers stay used up for ever.
	for key, k := range r.known {
		if !w.ids[k.ID] {
			delete(r.known, key)
		}
	}
	r.save = true
	r.resets = append(r.resets, w)
	r.resetDone(0)
}

// resetDone answers the resets that waited for VM id alone, or for none.
func (r *Registry) resetDone(id uint32) {
	left := r.resets[:0]
	for _, w := range r.resets {
		if delete(w.ids, id); len(w.ids) > 0 {
			left = append(left, w)
			continue
		}
		r.answer(w.to, vmop.Result{})
	}
	r.resets = left
}
