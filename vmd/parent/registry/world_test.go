package registry

import (
	"fmt"
	"math/rand"
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// tb is what world needs of a test, or of a rapid.T.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world drives a registry as the shell does and remembers what it did.
type world struct {
	t    tb
	r    *Registry
	now  time.Duration
	acts []Action // of the last step
	req  uint64
}

func newWorld(t tb) *world {
	return &world{t: t, r: New(State{}, rand.New(rand.NewSource(1))), now: time.Hour}
}

func (w *world) step(ev Event) []Action {
	w.acts = w.r.Step(w.now, ev)
	return w.acts
}

// user is a client with its uid and groups.
func user(uid uint32, groups ...uint32) vmop.Peer {
	return vmop.Peer{UID: uid, GID: uid, Groups: append([]uint32{uid}, groups...)}
}

func (w *world) ask(p vmop.Peer, typ vmop.Type, body any) Asker {
	w.req++
	from := Asker{Client: uint64(p.UID) + 1, Request: w.req}
	w.step(Request{From: from, Peer: p, Type: typ, Body: body})
	return from
}

// answerTo returns the answer to a in the last step, if it is there.
func (w *world) answerTo(a Asker) (vmop.Result, bool) {
	for _, x := range w.acts {
		if ans, ok := x.(Answer); ok && ans.To == a {
			return ans.Result, true
		}
	}
	return vmop.Result{}, false
}

// wantCode fails unless a was answered with code in the last step.
func (w *world) wantCode(a Asker, code vmop.Code) {
	w.t.Helper()
	res, ok := w.answerTo(a)
	if !ok {
		w.t.Fatalf("no answer, want %v; actions %s", code, show(w.acts))
	}
	if res.Code != code {
		w.t.Fatalf("answer %v (%s), want %v", res.Code, res.Detail, code)
	}
}

// wantNone fails if a was answered in the last step.
func (w *world) wantNone(a Asker) {
	w.t.Helper()
	if res, ok := w.answerTo(a); ok {
		w.t.Fatalf("answered too early: %+v", res)
	}
}

func (w *world) rec(name string) vmop.VM {
	w.t.Helper()
	for _, v := range w.r.All() {
		if v.Name == name {
			return v
		}
	}
	w.t.Fatalf("no vm %q", name)
	return vmop.VM{}
}

func (w *world) has(name string) bool { return w.r.names[name] != nil }

func (w *world) wantState(name string, s vmop.State, a vmop.Admin) {
	w.t.Helper()
	if v := w.rec(name); v.State != s || v.Admin != a {
		w.t.Fatalf("%s is %v/%d, want %v/%d", name, v.State, v.Admin, s, a)
	}
}

func (w *world) event(name string, kind vmop.EventKind) {
	w.t.Helper()
	w.step(VMEvent{Event: vmop.Event{ID: w.rec(name).ID, Kind: kind, PID: 100}, Started: Started{TTY: "/dev/pts/7"}})
}

// configure replaces the configuration; all VMs start at once.
func (w *world) configure(vms ...config.VM) {
	w.step(Configure{VMs: vms, Parallel: 100, Delay: time.Second})
}

// running defines d and has it running.
func (w *world) running(d config.VM) {
	w.t.Helper()
	d.Enabled = true
	w.configure(d)
	w.event(d.Name, vmop.EventStarted)
	w.wantState(d.Name, vmop.Running, vmop.AdminRunning)
}

// def is a definition; change it with edits.
func def(name string, edits ...func(*config.VM)) config.VM {
	d := config.VM{Name: name, Boot: "/k", Disks: []config.Disk{{Path: "/" + name}}, NICs: make([]config.NIC, 1)}
	for _, e := range edits {
		e(&d)
	}
	d.SetDefaults()
	return d
}

func owned(uid uint32) func(*config.VM) {
	return func(d *config.VM) { d.Owner = config.Owner{UID: uid} }
}

func group(gid uint32) func(*config.VM) {
	return func(d *config.VM) { d.Owner.GID, d.Owner.HasGID = gid, true }
}

func enabled(d *config.VM) { d.Enabled = true }

// find returns the first action of type A in the last step.
func find[A Action](w *world) (A, bool) {
	for _, x := range w.acts {
		if a, ok := x.(A); ok {
			return a, true
		}
	}
	var none A
	return none, false
}

func need[A Action](w *world) A {
	w.t.Helper()
	a, ok := find[A](w)
	if !ok {
		w.t.Fatalf("no %T in %s", a, show(w.acts))
	}
	return a
}

func forbid[A Action](w *world) {
	w.t.Helper()
	if a, ok := find[A](w); ok {
		w.t.Fatalf("unexpected %#v in %s", a, show(w.acts))
	}
}

func show(acts []Action) string {
	s := ""
	for _, a := range acts {
		s += fmt.Sprintf("\n\t%#v", a)
	}
	return s
}

func named(name string) vmop.Ref { return vmop.Ref{Name: name} }
