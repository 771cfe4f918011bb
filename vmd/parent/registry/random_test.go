package registry

import (
	"math/rand"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// model is what a vmm would know, and what is owed to clients.
type model struct {
	*world
	procs  map[uint32]vmop.State // VMs with a process: Starting, Running
	adopt  []uint32              // asked for and not answered
	owed   map[Asker]bool
	timers map[TimerKey]bool
	ids    map[knownKey]uint32
	bearer map[uint32]string
	reset  bool
	quit   bool
}

// take checks a step's actions as they are carried out.
func (m *model) take(t *rapid.T, acts []Action) {
	for _, a := range acts {
		switch a := a.(type) {
		case StartVM:
			if _, ok := m.procs[a.ID]; ok {
				t.Fatalf("vm %d started twice", a.ID)
			}
			m.procs[a.ID] = vmop.Starting
		case Answer:
			if !m.owed[a.To] {
				t.Fatalf("answer %+v that nobody waits for", a)
			}
			delete(m.owed, a.To)
		case Attach:
			delete(m.owed, a.To)
		case SendVM:
			if v := m.r.vms[a.ID]; v == nil || v.state != vmop.Migrating || v.run.Sent {
				t.Fatalf("vm %d is sent though it cannot be", a.ID)
			}
		case ReadConfig:
			delete(m.owed, a.To)
		case Arm:
			m.timers[a.Key] = true
		case Disarm:
			delete(m.timers, a.Key)
		case AdoptVM:
			m.adopt = append(m.adopt, a.ID)
		case Publish:
			m.published(t, a.VM)
		case Quit:
			if m.quit = true; len(m.procs) > 0 {
				t.Fatalf("quit with %v running", m.procs)
			}
		}
	}
	m.invariants(t)
}

func (m *model) published(t *rapid.T, v vmop.VM) {
	if name, ok := m.bearer[v.ID]; ok && name != v.Name {
		t.Fatalf("id %d belongs to %s and %s", v.ID, name, v.Name)
	}
	m.bearer[v.ID] = v.Name
	if reg := m.r.vms[v.ID]; v.State == vmop.Running && v.PID == 0 && reg != nil && reg.run != nil && !reg.run.resetting {
		t.Fatalf("%s runs without a process", v.Name)
	}
}

func (m *model) invariants(t *rapid.T) {
	for _, v := range m.r.order {
		_, proc := m.procs[v.known.ID]
		if (v.run != nil) != proc {
			t.Fatalf("%s: run %v, process %v", v.def.Name, v.run != nil, proc)
		}
		idle := v.state == vmop.Stopped || v.state == vmop.Waiting || v.state == vmop.Crashed
		if idle == (v.run != nil) {
			t.Fatalf("%s is %v with run %v", v.def.Name, v.state, v.run != nil)
		}
		if m.r.names[v.def.Name] != v || m.r.vms[v.known.ID] != v {
			t.Fatalf("%s is lost", v.def.Name)
		}
	}
	if len(m.r.names) != len(m.r.order) || len(m.r.vms) != len(m.r.order) {
		t.Fatalf("%d names, %d ids, %d vms", len(m.r.names), len(m.r.vms), len(m.r.order))
	}
	ids := map[knownKey]uint32{}
	for key, k := range m.r.known {
		ids[key] = k.ID
	}
	for key, id := range m.ids {
		if now, ok := ids[key]; now != id && (ok || !m.reset) {
			t.Fatalf("%v has id %d, had %d", key, now, id)
		}
	}
	m.ids = ids
	again := New(m.r.State(), rand.New(rand.NewSource(0))).State()
	if !reflect.DeepEqual(again, m.r.State()) {
		t.Fatalf("state changes when it is read back:\n%+v\n%+v", m.r.State(), again)
	}
}

var names = []string{"a", "b", "c", "d"}

func drawDefs(t *rapid.T) []config.VM {
	var defs []config.VM
	for _, n := range names {
		if !rapid.Bool().Draw(t, "defined") {
			continue
		}
		defs = append(defs, def(n, owned(uint32(rapid.IntRange(0, 2).Draw(t, "owner"))), func(d *config.VM) {
			d.Enabled = rapid.Bool().Draw(t, "enabled")
			d.CPUs = rapid.IntRange(1, 2).Draw(t, "cpus")
			d.Restart = config.Restart{OnFailure: rapid.Bool().Draw(t, "restart"), Max: 2}
			d.Allow = config.Allow{HasOwner: true, Owner: config.Owner{UID: 1}, Options: config.AllowBoot}
		}))
	}
	return defs
}

func (m *model) drawRequest(t *rapid.T) {
	p := user(uint32(rapid.IntRange(0, 2).Draw(t, "uid")))
	ref := named(rapid.SampledFrom(names).Draw(t, "vm"))
	yes := rapid.Bool()
	var typ vmop.Type
	var body any
	switch rapid.IntRange(0, 11).Draw(t, "request") {
	case 0:
		typ, body = vmop.List, vmop.ListRequest{}
	case 1, 2:
		typ, body = vmop.Start, vmop.StartRequest{VM: ref}
	case 3:
		typ = vmop.Start
		body = vmop.StartRequest{VM: ref, Define: &vmop.Definition{Kernel: "/k"}, Files: []string{"kernel"}, BootDevice: rapid.SampledFrom([]string{"", "disk"}).Draw(t, "device")}
	case 4:
		typ, body = vmop.Start, vmop.StartRequest{VM: ref, Template: rapid.SampledFrom(names).Draw(t, "template")}
	case 5:
		typ, body = vmop.Stop, vmop.StopRequest{VM: ref, Force: yes.Draw(t, "force"), Wait: yes.Draw(t, "wait"), Timeout: uint32(rapid.IntRange(0, 1).Draw(t, "limit"))}
	case 6:
		what := vmop.WaitFor(rapid.IntRange(0, 3).Draw(t, "for"))
		typ, body = vmop.Wait, vmop.WaitRequest{VM: ref, For: what, Timeout: uint32(rapid.IntRange(0, 1).Draw(t, "limit"))}
	case 7:
		typ, body = rapid.SampledFrom([]vmop.Type{vmop.Pause, vmop.Unpause, vmop.Break}).Draw(t, "type"), vmop.VMRequest{VM: ref}
	case 8:
		typ, body = vmop.Console, vmop.ConsoleRequest{VM: ref}
	case 9, 10:
		typ, body = vmop.Send, vmop.SendRequest{VM: ref}
		if rapid.Bool().Draw(t, "receive") {
			typ, body = vmop.Receive, vmop.ReceiveRequest{Name: ref.Name, Guest: traveller()}
		}
		p = user(0)
	default:
		if rapid.IntRange(0, 9).Draw(t, "rare") == 0 {
			m.reset = true // names get new numbers
			typ, body = vmop.Reset, vmop.ResetRequest{VMs: true}
		} else {
			typ = vmop.Reload
		}
	}
	m.req++
	from := Asker{Client: uint64(rapid.IntRange(1, 3).Draw(t, "client")), Request: m.req}
	m.owed[from] = true
	m.take(t, m.step(Request{From: from, Peer: p, Type: typ, Body: body}))
}

// drawNews lets something happen to one of the processes.
func (m *model) drawNews(t *rapid.T) {
	if len(m.procs) == 0 {
		return
	}
	ids := sortedKeys(m.procs)
	id := rapid.SampledFrom(ids).Draw(t, "id")
	kinds := []vmop.EventKind{vmop.EventStarted, vmop.EventFailed}
	if m.procs[id] != vmop.Starting {
		kinds = []vmop.EventKind{vmop.EventSent, vmop.EventSendFailed, vmop.EventPaused, vmop.EventUnpaused, vmop.EventStopping, vmop.EventPoweroff,
			vmop.EventReset, vmop.EventKilled, vmop.EventCrashed, vmop.EventError}
	}
	m.news(t, id, rapid.SampledFrom(kinds).Draw(t, "kind"))
}

func (m *model) news(t *rapid.T, id uint32, kind vmop.EventKind) {
	if kind == vmop.EventStarted {
		m.procs[id] = vmop.Running
	}
	if kind.Gone() {
		delete(m.procs, id)
		m.adopt = slices.DeleteFunc(m.adopt, func(a uint32) bool { return a == id })
	}
	m.take(t, m.step(VMEvent{Event: vmop.Event{ID: id, Kind: kind, PID: 1 + int(id)}}))
}

func sortedKeys(m map[uint32]vmop.State) (ids []uint32) {
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (m *model) drawAdoption(t *rapid.T) {
	if len(m.adopt) == 0 {
		m.take(t, m.step(VMMGone{}))
		return
	}
	id := m.adopt[0]
	m.adopt = m.adopt[1:]
	if m.procs[id] == vmop.Starting || rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
		m.news(t, id, vmop.EventCrashed)
		return
	}
	m.take(t, m.step(Adopted{ID: id, PID: 7, State: rapid.SampledFrom([]vmop.State{vmop.Running, vmop.Paused, vmop.Stopping, vmop.Migrating}).Draw(t, "state"), Def: m.r.vms[id].def}))
}

func (m *model) drawTimer(t *rapid.T) {
	var keys []TimerKey
	for k := range m.timers {
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return
	}
	slices.SortFunc(keys, func(a, b TimerKey) int {
		return slices.Compare([]uint64{uint64(a.Kind), uint64(a.ID), a.Asker.Client, a.Asker.Request},
			[]uint64{uint64(b.Kind), uint64(b.ID), b.Asker.Client, b.Asker.Request})
	})
	k := rapid.SampledFrom(keys).Draw(t, "timer")
	delete(m.timers, k)
	m.take(t, m.step(Timer{Key: k}))
}

// TestRandomHistories: whatever happens in whatever order, no VM is started
// twice, ids stay with their names, and every request is answered once.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			world: newWorld(t), procs: map[uint32]vmop.State{}, owed: map[Asker]bool{},
			timers: map[TimerKey]bool{}, ids: map[knownKey]uint32{}, bearer: map[uint32]string{},
		}
		t.Repeat(map[string]func(*rapid.T){
			"request":  m.drawRequest,
			"request2": m.drawRequest,
			"news":     m.drawNews,
			"news2":    m.drawNews,
			"adoption": m.drawAdoption,
			"timer":    m.drawTimer,
			"clock":    func(t *rapid.T) { m.now += time.Duration(rapid.IntRange(0, 10).Draw(t, "s")) * time.Second },
			"configure": func(t *rapid.T) {
				m.take(t, m.step(Configure{VMs: drawDefs(t), Parallel: 2, Delay: time.Second, Load: rapid.Bool().Draw(t, "load")}))
			},
			"gone": func(t *rapid.T) {
				c := uint64(rapid.IntRange(1, 3).Draw(t, "client"))
				for a := range m.owed {
					if a.Client == c {
						delete(m.owed, a)
					}
				}
				m.take(t, m.step(ClientGone{Client: c}))
			},
		})
		m.finish(t)
	})
}

// finish ends everything: then nothing is owed to anybody.
func (m *model) finish(t *rapid.T) {
	m.take(t, m.step(Shutdown{}))
	for range 3 {
		for _, id := range sortedKeys(m.procs) {
			kind := vmop.EventPoweroff
			if m.procs[id] == vmop.Starting {
				kind = vmop.EventFailed
			}
			m.news(t, id, kind)
		}
	}
	if len(m.owed) > 0 || !m.quit {
		t.Fatalf("quit %v; never answered: %v", m.quit, m.owed)
	}
}
