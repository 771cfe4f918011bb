package registry

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

func (w *world) waitFor(name string, what vmop.WaitFor, seconds uint32) Asker {
	w.t.Helper()
	return w.ask(user(0), vmop.Wait, vmop.WaitRequest{VM: vmop.Ref{Name: name}, For: what, Timeout: seconds})
}

func TestWaitForAStateThatIs(t *testing.T) {
	w := newWorld(t)
	w.running(def("web"))
	w.wantCode(w.waitFor("web", vmop.WaitRunning, 0), vmop.OK)
	w.event("web", vmop.EventPoweroff)
	w.wantCode(w.waitFor("web", vmop.WaitStopped, 0), vmop.OK)
	w.wantCode(w.waitFor("web", vmop.WaitEnd, 0), vmop.ErrNotRunning)
	w.wantCode(w.waitFor("nosuch", vmop.WaitRunning, 0), vmop.ErrNotFound)
	w.wantCode(w.waitFor("web", vmop.WaitCrashed+1, 0), vmop.ErrInvalid)
}

func TestWaitForAStateToCome(t *testing.T) {
	w := newWorld(t)
	w.configure(def("web"))
	dead := w.waitFor("web", vmop.WaitCrashed, 0)
	up := w.waitFor("web", vmop.WaitRunning, 9)
	w.wantNone(up)
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: vmop.Ref{Name: "web"}})
	w.wantNone(up)
	w.event("web", vmop.EventStarted)
	w.wantCode(up, vmop.OK)
	if !slices.ContainsFunc(w.acts, func(a Action) bool { _, ok := a.(Disarm); return ok }) {
		t.Errorf("its timer goes on: %s", show(w.acts))
	}
	end := w.waitFor("web", vmop.WaitEnd, 0)
	w.event("web", vmop.EventCrashed)
	w.wantCode(dead, vmop.OK)
	w.wantCode(end, vmop.ErrCrashed)
}

// Who waits for a crash waits on when the VM stops in order.
func TestWaitForACrashOutlivesRuns(t *testing.T) {
	w := newWorld(t)
	w.running(def("web"))
	dead := w.waitFor("web", vmop.WaitCrashed, 0)
	w.event("web", vmop.EventPoweroff)
	w.wantNone(dead)
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: vmop.Ref{Name: "web"}})
	w.event("web", vmop.EventStarted)
	w.event("web", vmop.EventCrashed)
	w.wantCode(dead, vmop.OK)
}

func TestWaitForAVMThatIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.configure(def("web"))
	up := w.waitFor("web", vmop.WaitRunning, 5)
	w.configure()
	w.wantCode(up, vmop.ErrNotFound)
}

func TestWaitForHasALimit(t *testing.T) {
	w := newWorld(t)
	w.configure(def("web"))
	up := w.waitFor("web", vmop.WaitRunning, 5)
	w.now += 5 * time.Second
	w.step(Timer{Key: TimerKey{Kind: TimerWait, Asker: up}})
	w.wantCode(up, vmop.ErrTimeout)
}

// Every field of a definition is either a change for the next start or one of
// those that make no difference.
func TestEveryChangeHasAWord(t *testing.T) {
	none := []string{"Name", "File", "Line", "Enabled", "OwnerSet", "VirtioSet"}
	typ := reflect.TypeFor[config.VM]()
	for i := range typ.NumField() {
		var a, b config.VM
		field := reflect.ValueOf(&a).Elem().Field(i)
		touch(t, field)
		words := changes(&a, &b)
		if want := !slices.Contains(none, typ.Field(i).Name); want != (len(words) == 1) {
			t.Errorf("%s changed: %q", typ.Field(i).Name, words)
		}
	}
	if got := changes(&config.VM{Disks: []config.Disk{}}, &config.VM{}); got != nil {
		t.Errorf("no disks against none: %q", got)
	}
}

// touch makes v something other than zero.
func touch(t *testing.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Array:
		touch(t, v.Index(0))
	case reflect.Struct:
		touch(t, v.Field(0))
	default:
		t.Fatalf("a field of kind %v", v.Kind())
	}
}

func TestCount(t *testing.T) {
	w := newWorld(t)
	w.configure(config.VM{Name: "web", Enabled: true, CPUs: 2}, config.VM{Name: "off"})
	w.event("web", vmop.EventStarted)
	for ref, want := range map[vmop.Ref]int{{}: 1, {Name: "web"}: 1, {Name: "off"}: 0} {
		a := w.ask(user(1000), vmop.Count, vmop.StatsRequest{VM: ref})
		w.wantCode(a, vmop.OK)
		var got []Count
		for _, x := range w.acts {
			if c, ok := x.(Count); ok {
				got = append(got, c)
			}
		}
		if len(got) != want {
			t.Errorf("%v: %d counted, want %d", ref, len(got), want)
		}
		if want == 1 && (got[0].PID != 100 || got[0].Stats.Name != "web" || got[0].Stats.CPUs != 2 || got[0].Stats.Started == 0) {
			t.Errorf("counted %+v", got[0])
		}
	}
	w.wantCode(w.ask(user(1000), vmop.Count, vmop.StatsRequest{VM: vmop.Ref{Name: "nosuch"}}), vmop.ErrNotFound)
}
