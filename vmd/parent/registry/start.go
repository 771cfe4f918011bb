package registry

import (
	"errors"
	"fmt"
	"slices"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// start starts a VM that is defined, or defines one.
func (r *Registry) start(q Request, m vmop.StartRequest) {
	boot, ok := config.ParseBootDevice(m.BootDevice)
	if !ok {
		r.refuse(q.From, nil, vmop.ErrInvalid, fmt.Sprintf("boot device %q is not disk, cdrom or net", m.BootDevice))
		return
	}
	if r.down {
		r.refuse(q.From, nil, vmop.ErrUnavailable, "vmd is shutting down")
		return
	}
	if m.Template != "" {
		r.startInstance(q, m, boot)
		return
	}
	v := r.find(m.VM)
	if v == nil {
		r.startNew(q, m, boot)
		return
	}
	r.startKnown(q, m, v, boot)
}

// startKnown starts v, with another kernel or number of CPUs for this boot if
// m says so.
func (r *Registry) startKnown(q Request, m vmop.StartRequest, v *vm, boot config.BootDevice) {
	if r.target(q, m.VM) == nil {
		return
	}
	switch {
	case v.state == vmop.Stopping || v.run != nil && v.run.stopping:
		r.refuse(q.From, v, vmop.ErrStopping, "it is being stopped")
		return
	case v.state == vmop.Migrating:
		r.refuse(q.From, v, vmop.ErrRunning, beingSent)
		return
	case v.run != nil:
		r.refuse(q.From, v, vmop.ErrRunning, "it is running")
		return
	case !forOneBoot(m.Define):
		r.refuse(q.From, v, vmop.ErrNameTaken, "it is defined already: only kernel and CPUs can be changed, for one boot")
		return
	}
	def := override(&v.def, &m, boot)
	if why := mismatch(&q.Peer, m.Define, m.Files); why != "" {
		r.refuse(q.From, v, vmop.ErrInvalid, why)
		return
	}
	if err := def.Validate(); err != nil {
		r.refuse(q.From, v, codeOf(err), err.Error())
		return
	}
	r.begin(v, def, q.From, m.Files)
}

// startNew defines a VM that nobody knows and starts it.
func (r *Registry) startNew(q Request, m vmop.StartRequest, boot config.BootDevice) {
	switch {
	case q.Peer.UID != 0:
		r.deny(q, nil, m.VM.Name, "only root may define a VM")
		return
	case m.VM.ID != 0 || m.Define == nil:
		r.refuse(q.From, nil, vmop.ErrNotFound, "no such VM")
		return
	}
	def, ok := define(m.VM.Name, m.Define, boot)
	if !ok {
		r.refuse(q.From, nil, vmop.ErrInvalid, "disk format is not raw or qcow2")
		return
	}
	def.SetDefaults()
	r.startDefined(q, m, def)
}

// startInstance makes an instance of the VM m.Template and starts it.
func (r *Registry) startInstance(q Request, m vmop.StartRequest, boot config.BootDevice) {
	parent := r.names[m.Template]
	if parent == nil {
		r.refuse(q.From, nil, vmop.ErrTemplate, fmt.Sprintf("there is no VM %q to make an instance of", m.Template))
		return
	}
	tmpl := &parent.def
	if parent.run != nil {
		tmpl = &parent.run.Base
	}
	if !mayInstantiate(tmpl, &q.Peer) {
		r.refuse(q.From, nil, vmop.ErrInstance, fmt.Sprintf("you may not make instances of %q", m.Template))
		return
	}
	if m.VM.ID != 0 || r.names[m.VM.Name] != nil {
		r.refuse(q.From, nil, vmop.ErrNameTaken, "an instance needs a name that no VM has")
		return
	}
	if q.Peer.UID != 0 && r.madeBy(q.Peer.UID) >= maxInstances {
		r.refuse(q.From, nil, vmop.ErrBusy, fmt.Sprintf("you have made %d VMs that are still there", maxInstances))
		return
	}
	wish := m.Define
	if wish == nil {
		wish = &vmop.Definition{}
	}
	def, ok := define(m.VM.Name, wish, boot)
	if !ok {
		r.refuse(q.From, nil, vmop.ErrInvalid, "disk format is not raw or qcow2")
		return
	}
	if q.Peer.UID != 0 {
		def.Owner, def.OwnerSet = config.Owner{UID: q.Peer.UID}, true
	}
	if err := def.Instantiate(tmpl, q.Peer.UID); err != nil {
		r.refuse(q.From, nil, codeOf(err), err.Error())
		return
	}
	r.startDefined(q, m, def)
}

// maxInstances is how many VMs a user other than root can have made at a time:
// what they are made of the pattern bounds, but not how many there are.
const maxInstances = 64

func (r *Registry) madeBy(uid uint32) (n int) {
	for _, v := range r.order {
		if v.known.User == uid {
			n++
		}
	}
	return n
}

// startDefined registers a VM that a client defined and starts it. It is gone
// again when it has stopped.
func (r *Registry) startDefined(q Request, m vmop.StartRequest, def config.VM) {
	if err := def.Validate(); err != nil {
		r.refuse(q.From, nil, codeOf(err), err.Error())
		return
	}
	if why := mismatch(&q.Peer, m.Define, m.Files); why != "" {
		r.refuse(q.From, nil, vmop.ErrInvalid, why)
		return
	}
	v := &vm{known: r.know(def.Name, q.Peer.UID), def: def}
	if r.vms[v.known.ID] != nil {
		r.refuse(q.From, nil, vmop.ErrBusy, "the VM of that name before it is not gone yet")
		return
	}
	r.add(v)
	r.begin(v, def, q.From, m.Files)
}

// fileNames are what a client can give as a descriptor.
var fileNames = []string{"kernel", "initrd", "cdrom", "disk0", "disk1", "disk2", "disk3"}

// mismatch says which file of m comes without a descriptor, or which descriptor
// without its file. Only root may have files opened by their names: they are
// opened by root. And what somebody may choose is decided by what the definition
// says: a descriptor more would take the place of what it does not.
func mismatch(p *vmop.Peer, m *vmop.Definition, files []string) string {
	if m == nil {
		m = &vmop.Definition{}
	}
	path := map[string]string{"kernel": m.Kernel, "initrd": m.Initrd, "cdrom": m.CDROM}
	for i, d := range m.Disks {
		path[fmt.Sprintf("disk%d", i)] = d.Path
	}
	for _, name := range fileNames {
		switch given := slices.Contains(files, name); {
		case given && path[name] == "":
			return fmt.Sprintf("a descriptor comes for the %s, which the definition does not have", name)
		case !given && path[name] != "" && p.UID != 0:
			return fmt.Sprintf("%s %q comes without a descriptor", name, path[name])
		}
	}
	return ""
}

// codeOf is the code for an error of a definition.
func codeOf(err error) vmop.Code {
	switch {
	case errors.Is(err, config.ErrNotAllowed):
		return vmop.ErrPermission
	case errors.Is(err, config.ErrShared):
		return vmop.ErrShared
	case errors.Is(err, config.ErrNothingToBoot):
		return vmop.ErrNothingToBoot
	}
	return vmop.ErrInvalid
}

// begin starts v, which has no process, as def says.
func (r *Registry) begin(v *vm, def config.VM, from Asker, files []string) {
	r.getProcess(v, def, from, files, nil)
}

// getProcess starts v, or has it receive a guest.
func (r *Registry) getProcess(v *vm, def config.VM, from Asker, files []string, guest *vmop.Guest) {
	r.do(Disarm{Key: TimerKey{Kind: TimerRestart, ID: v.known.ID}})
	r.addresses(v.known, &def)
	def = v.known.settle(&def)
	v.run = &run{
		Run:         Run{ID: v.known.ID, Persistent: v.persistent, Base: clone(&v.def), Def: def, Files: slices.Clone(files)},
		adminBefore: v.admin,
		begun:       r.now,
		receiving:   guest != nil,
		wasStopped:  v.stopped,
	}
	v.starter, v.stopped = from, false
	v.state, v.admin, v.lastExit = vmop.Starting, vmop.AdminRunning, ""
	r.save = true
	r.publish(v)
	r.do(StartVM{ID: v.known.ID, UUID: v.known.uuid(&def), Def: clone(&def), From: from, Files: slices.Clone(files), Receive: guest})
}

// started: v's vCPUs run.
func (r *Registry) started(v *vm, e VMEvent) {
	v.run.PID, v.run.TTY, v.run.NICs = e.PID, e.Started.TTY, e.Started.NICs
	if v.run.Def.SEV {
		v.run.Encryption = e.Encryption
	}
	if !v.run.resetting {
		v.run.Started = r.now
	}
	if v.run.receiving {
		r.keepIdentity(v)
	}
	v.run.resetting, v.run.adopting, v.run.receiving = false, false, false
	v.known.Away = false
	v.state = vmop.Running
	if e.State == vmop.Paused { // it was when it was sent
		v.state, v.admin = vmop.Paused, vmop.AdminPaused
	}
	r.save = true
	r.publish(v)
	r.log(Info, v, "vm started", v.run.TTY)
	r.answerStart(v, vmop.Result{})
	if v.run.stopping {
		r.sendStop(v)
	}
}

// answerStart answers whoever asked for v's start.
func (r *Registry) answerStart(v *vm, res vmop.Result) {
	res.ID, res.Name = v.known.ID, v.def.Name
	if v.run != nil {
		res.TTY = v.run.TTY
	}
	r.answer(v.starter, res)
	v.starter = Asker{}
}

// startFailed: v did not get as far as running.
func (r *Registry) startFailed(v *vm, e VMEvent) {
	code := orInternal(e.Code)
	asked := v.run.stopping
	v.admin = v.run.adminBefore
	if v.run.receiving { // its guest runs where it is
		v.stopped = v.stopped || v.run.wasStopped || v.known.Away
	}
	if asked {
		v.admin = vmop.AdminShutdown
	}
	v.run, v.state, v.lastExit = nil, vmop.Stopped, "not started: "+e.Detail
	r.do(EndRun{ID: v.known.ID})
	r.log(Error, v, "vm not started", e.Detail)
	r.answerStart(v, vmop.Result{Code: code, Detail: e.Detail})
	r.settleGone(v, vmop.Result{Code: code, Detail: e.Detail})
}
