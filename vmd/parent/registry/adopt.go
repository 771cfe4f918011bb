package registry

import (
	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// recover begins to look for the VMs that ran when the state was saved.
func (r *Registry) recover() {
	for _, v := range r.order {
		if v.run != nil && v.run.adopting {
			r.do(AdoptVM{ID: v.known.ID, PID: v.run.PID})
		}
	}
}

// readopt has a new vmm look after all VMs that may have a process. What was
// asked of them through the old one is asked again when they have been found.
func (r *Registry) readopt() {
	for _, v := range r.order {
		if v.run != nil {
			v.run.adopting = true
			r.do(AdoptVM{ID: v.known.ID, PID: v.run.PID})
		}
	}
}

// adopted: a VM still has its process.
func (r *Registry) adopted(e Adopted) {
	v := r.vms[e.ID]
	if v == nil {
		v = r.takeIn(e)
	}
	if v == nil || v.def.Name != e.Def.Name {
		r.do(StopVM{ID: e.ID, Force: true})
		r.log(Warn, nil, "stopping a vm process that belongs to no vm", e.Def.Name)
		return
	}
	if v.run == nil {
		v.run = v.found(e)
	}
	v.run.adopting, v.run.resetting = false, false
	if e.PID != 0 {
		v.run.PID = e.PID
	}
	if v.run.Started == 0 {
		v.run.Started = r.now
	}
	if v.run.Sent {
		r.do(StopVM{ID: e.ID, Force: true})
		return
	}
	switch e.State {
	case vmop.Migrating: // it will say how that ends
		v.state = vmop.Migrating
	case vmop.Paused:
		v.state, v.admin = vmop.Paused, vmop.AdminPaused
	case vmop.Stopping:
		v.state, v.admin = vmop.Stopping, vmop.AdminShutdown
	default:
		v.state, v.admin = vmop.Running, vmop.AdminRunning
	}
	r.save = true
	r.publish(v)
	r.log(Info, v, "vm is looked after again", "")
	r.answerStart(v, vmop.Result{})
	if e.State != vmop.Migrating {
		r.answerSend(v, vmop.Result{Code: vmop.ErrUnavailable, Detail: "vmd lost sight of it; it runs on here"})
	}
	r.repeat(v)
}

// repeat asks a VM again for what the old vmm may not have passed on. Nobody
// minds being asked twice.
func (r *Registry) repeat(v *vm) {
	if v.run.stopping {
		r.sendStop(v)
		return
	}
	if len(v.pausers) > 0 {
		r.do(PauseVM{ID: v.known.ID})
	}
	if len(v.unpausers) > 0 {
		r.do(UnpauseVM{ID: v.known.ID})
	}
}

// takeIn registers a VM whose run the state file did not know, as its process
// describes it. It is root's until the configuration says otherwise.
func (r *Registry) takeIn(e Adopted) *vm {
	def := clone(&e.Def)
	def.Owner = config.Owner{}
	if e.ID == 0 || def.Validate() != nil || r.names[def.Name] != nil {
		return nil
	}
	k := r.knownID(e.ID)
	if k == nil {
		key := knownKey{def.Name, 0}
		if r.known[key] != nil {
			return nil
		}
		k = &Known{Name: def.Name, ID: e.ID, UUID: def.UUID}
		for _, n := range def.NICs {
			k.MACs = append(k.MACs, n.MAC)
		}
		r.known[key] = k
		r.Reserve(e.ID)
	}
	if k.Name != def.Name {
		return nil
	}
	v := &vm{known: k, def: def, recovered: true}
	r.add(v)
	return v
}

// found is the run of a VM that was taken for stopped.
func (v *vm) found(e Adopted) *run {
	def := v.known.settle(&v.def)
	return &run{Run: Run{ID: e.ID, Persistent: v.persistent, PID: e.PID, Started: e.Started, Base: clone(&v.def), Def: def}, begun: e.Started}
}

func (r *Registry) knownID(id uint32) *Known {
	for _, k := range r.known {
		if k.ID == id {
			return k
		}
	}
	return nil
}
