// Package registry decides. It knows every VM, who owns it, what it is doing
// and what was asked of it, and is a pure state machine: Step takes the time and
// what happened and returns what is to be done. It opens nothing, sends nothing,
// reads no clock and starts no goroutine; package parent does that around it.
//
// A VM's states (vmop.State) and what moves it:
//
//	          start, turn, reset            started
//	Stopped ───────────────────▶ Starting ─────────▶ Running ◀──▶ Paused
//	Waiting        ▲                │ failed            │ stop, guest
//	Crashed        │                ▼                   ▼
//	   ▲           └───────── Stopped, Crashed ◀──── Stopping
//	   └──────── its process ended otherwise ───────────┘
//
// From Running or Paused a VM can become Migrating; then it is Stopped, or what
// it was before. One that is received is Starting.
//
// A VM that a client defined has no Stopped: it is deleted instead.
package registry

import (
	"io"
	"sort"
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// Registry is the state. It is not safe for concurrent use.
type Registry struct {
	rand   io.Reader
	nextID uint32
	known  map[knownKey]*Known
	vms    map[uint32]*vm
	names  map[string]*vm
	order  []*vm // as registered: the order of staggered start and of lists

	parallel int
	delay    time.Duration

	down   bool // the daemon is ending
	quit   bool // Quit was said
	resets []resetWait

	now  time.Duration
	out  []Action
	save bool
}

// vm is one VM that is defined.
type vm struct {
	known      *Known
	def        config.VM // for the next start
	persistent bool
	state      vmop.State
	admin      vmop.Admin
	run        *run
	lastExit   string

	stopped   bool // by an operator: a reload does not start it
	forget    bool // delete it when its process has gone
	recovered bool // found running, not known from the state file
	failures  []time.Duration

	starter   Asker
	send      *sending // it is on its way to another host
	waiters   []waiter
	pausers   []Asker
	unpausers []Asker
}

// run is what a VM is doing while it has, or is getting, a process.
type run struct {
	Run
	adminBefore vmop.Admin    // for a start that fails
	begun       time.Duration // this boot: after a reset the time of the reset
	quick       int           // resets in a row that came too soon
	resetting   bool          // between two processes
	receiving   bool          // it has no guest yet: that is being received
	wasStopped  bool          // vm.stopped, for a start that fails
	stopping    bool          // somebody asked for its end
	force       bool
	adopting    bool // it had a process; nobody has said yet that it still has
}

// waiter is a client that waits for a VM's end, or for a state of it.
type waiter struct {
	to      Asker
	stop    bool // it asked for the end itself
	timeout bool // a timer runs
	what    vmop.WaitFor
}

// resetWait is a Reset to be answered when the VMs in ids have gone.
type resetWait struct {
	to  Asker
	ids map[uint32]bool
}

// New returns a registry that remembers s. MAC addresses and uuids that it gives
// out come from random. A VM that was running when s was saved is taken to be
// running until Step hears otherwise; Recover begins with asking.
func New(s State, random io.Reader) *Registry {
	r := &Registry{
		rand: random, nextID: 1, parallel: 1,
		known: map[knownKey]*Known{},
		vms:   map[uint32]*vm{},
		names: map[string]*vm{},
	}
	r.restore(s)
	return r
}

// Step takes in what happened at now, a time of CLOCK_MONOTONIC, and returns
// what is to be done about it, in order.
func (r *Registry) Step(now time.Duration, ev Event) []Action {
	r.now, r.out, r.save = now, nil, false
	switch e := ev.(type) {
	case Recover:
		r.recover()
	case Configure:
		r.configure(e)
	case ConfigFailed:
		r.answer(e.To, vmop.Result{Code: e.Code, Detail: e.Detail})
	case Request:
		r.request(e)
	case ClientGone:
		r.clientGone(e.Client)
	case VMEvent:
		r.vmEvent(e)
	case Adopted:
		r.adopted(e)
	case VMMGone:
		r.readopt()
	case Timer:
		r.timer(e.Key)
	case Shutdown:
		r.shutdown(e.Force)
	}
	if r.save {
		r.do(SaveState{})
	}
	return r.out
}

// Reserve keeps ids up to and including id from being given out.
func (r *Registry) Reserve(id uint32) {
	if id >= r.nextID {
		r.nextID = id + 1
	}
}

// Alive returns the ids of the VMs that have, or are getting, a process.
func (r *Registry) Alive() []uint32 {
	var ids []uint32
	for _, v := range r.order {
		if v.run != nil {
			ids = append(ids, v.known.ID)
		}
	}
	return ids
}

// VM returns VM id as clients see it.
func (r *Registry) VM(id uint32) (vmop.VM, bool) {
	v := r.vms[id]
	if v == nil {
		return vmop.VM{}, false
	}
	return v.record(), true
}

// All returns all VMs as clients see them, in the order in which they were
// registered.
func (r *Registry) All() []vmop.VM {
	all := make([]vmop.VM, 0, len(r.order))
	for _, v := range r.order {
		all = append(all, v.record())
	}
	return all
}

func (r *Registry) do(a Action) { r.out = append(r.out, a) }

func (r *Registry) answer(to Asker, res vmop.Result) {
	if to != (Asker{}) {
		r.do(Answer{To: to, Result: res})
	}
}

// refuse answers that something about v, which may be nil, cannot be done.
func (r *Registry) refuse(to Asker, v *vm, code vmop.Code, why string) {
	res := vmop.Result{Code: code, Detail: why}
	if v != nil {
		res.ID, res.Name = v.known.ID, v.def.Name
	}
	r.answer(to, res)
}

func (r *Registry) log(l Level, v *vm, msg, detail string) {
	a := Log{Level: l, Message: msg, Detail: detail}
	if v != nil {
		a.ID, a.Name = v.known.ID, v.def.Name
	}
	r.do(a)
}

// publish makes a change of v known: to the subagent, and to who waits for it.
func (r *Registry) publish(v *vm) {
	r.do(Publish{VM: v.record()})
	r.reached(v)
}

// find returns the VM that a request names, or nil.
func (r *Registry) find(ref vmop.Ref) *vm {
	if ref.ID != 0 {
		return r.vms[ref.ID]
	}
	return r.names[ref.Name]
}

// add registers a VM.
func (r *Registry) add(v *vm) {
	r.vms[v.known.ID], r.names[v.def.Name] = v, v
	r.order = append(r.order, v)
}

// remove forgets that v is defined; its id stays known.
func (r *Registry) remove(v *vm) {
	delete(r.vms, v.known.ID)
	delete(r.names, v.def.Name)
	for i, o := range r.order {
		if o == v {
			r.order = append(r.order[:i], r.order[i+1:]...)
			break
		}
	}
	r.answerWaiters(v, vmop.Result{Code: vmop.ErrNotFound, Detail: "it is not defined any more"}, true)
	r.do(Disarm{Key: TimerKey{Kind: TimerRestart, ID: v.known.ID}})
	r.do(Delete{ID: v.known.ID})
	if v.forget {
		delete(r.known, knownKey{v.known.Name, v.known.User})
	}
	if v.known.User != 0 {
		r.prune()
	}
	r.save = true
}

// sortOrder puts the VMs of names first, in that order.
func (r *Registry) sortOrder(names []string) {
	rank := make(map[string]int, len(names))
	for i, n := range names {
		rank[n] = i - len(names)
	}
	sort.SliceStable(r.order, func(i, j int) bool {
		return rank[r.order[i].def.Name] < rank[r.order[j].def.Name]
	})
}

// record is v as clients and the subagent see it.
func (v *vm) record() vmop.VM {
	def := &v.def
	if v.run != nil {
		def = &v.run.Def
	}
	m := vmop.VM{
		ID: v.known.ID, Name: def.Name, UUID: v.known.uuid(def), OSType: def.OS,
		State: v.shown(), Admin: v.admin,
		Autostart: v.persistent && v.def.Enabled, Persistent: v.persistent,
		CPUs: def.CPUs, MemoryBytes: def.MemoryBytes,
		OwnerUID: def.Owner.UID, OwnerGID: groupOf(&def.Owner),
		LastExit: v.lastExit, Past: v.known.Past, Limits: vmop.Limits(def.Limits),
	}
	for _, d := range def.Disks {
		m.Disks = append(m.Disks, vmop.Disk{Path: d.Path, Format: d.Format.String(), Size: -1, Used: -1})
	}
	if def.CDROM != "" {
		m.Disks = append(m.Disks, vmop.Disk{Path: def.CDROM, Format: "raw", ReadOnly: true, CDROM: true, Size: -1, Used: -1})
	}
	for i, n := range def.NICs {
		m.NICs = append(m.NICs, vmop.NIC{MAC: v.known.mac(def, i), Switch: n.Switch, Local: n.Local})
	}
	if v.run != nil {
		m.Receiving = v.run.receiving
		v.run.fill(&m)
		if v.persistent {
			m.Changes = changes(&v.def, &v.run.Base)
			m.Changed = len(m.Changes) > 0
		}
	}
	return m
}

// shown is v's state as clients see it: a guest's reset is no change of it.
func (v *vm) shown() vmop.State {
	if v.run != nil && v.run.resetting {
		return vmop.Running
	}
	return v.state
}

// fill adds to m what is true of a VM while it runs.
func (r *run) fill(m *vmop.VM) {
	m.PID, m.TTY, m.Started = r.PID, r.TTY, int64(r.Started)
	m.Encryption = r.Encryption
	for i := range m.NICs {
		if i < len(r.NICs) {
			n := r.NICs[i]
			m.NICs[i].Tap, m.NICs[i].IfIndex = n.Tap, n.IfIndex
			m.NICs[i].BridgeIndex, m.NICs[i].Address, m.NICs[i].HostAddress = n.BridgeIndex, n.Address, n.Host
		}
	}
}
