package registry

import (
	"math/rand"
	"reflect"
	"testing"
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

func TestStopAndWait(t *testing.T) {
	w := newWorld(t)
	w.running(def("x"))
	waiter := w.ask(user(0), vmop.Wait, vmop.WaitRequest{VM: named("x")})
	limited := w.ask(user(0), vmop.Wait, vmop.WaitRequest{VM: named("x"), Timeout: 5})
	if arm := need[Arm](w); arm.After != 5*time.Second || arm.Key.Asker != limited {
		t.Fatalf("%+v", arm)
	}
	stop := w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x")})
	w.wantCode(stop, vmop.OK)
	if s := need[StopVM](w); s.Force {
		t.Fatal("forced")
	}
	w.wantState("x", vmop.Stopping, vmop.AdminShutdown)
	w.wantCode(w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x")}), vmop.ErrStopping)
	w.wantCode(w.ask(user(0), vmop.Pause, vmop.VMRequest{VM: named("x")}), vmop.ErrStopping)
	w.wantCode(w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x")}), vmop.ErrStopping)
	joined := w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x"), Wait: true})
	w.wantNone(joined)
	forbid[StopVM](w)
	w.step(Timer{Key: TimerKey{Kind: TimerWait, Asker: limited}})
	w.wantCode(limited, vmop.ErrTimeout)
	forced := w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x"), Force: true})
	w.wantNone(forced)
	if s := need[StopVM](w); !s.Force {
		t.Fatal("not forced")
	}
	w.event("x", vmop.EventKilled)
	for _, a := range []Asker{waiter, joined, forced} {
		w.wantCode(a, vmop.OK)
	}
	w.wantNone(limited)
	w.wantState("x", vmop.Stopped, vmop.AdminShutdown)
}

func TestStopWhileStarting(t *testing.T) {
	w := newWorld(t)
	w.configure(def("x"))
	start := w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x")})
	w.wantCode(w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x")}), vmop.OK)
	forbid[StopVM](w)
	w.event("x", vmop.EventStarted)
	w.wantCode(start, vmop.OK)
	need[StopVM](w)
	w.wantState("x", vmop.Stopping, vmop.AdminShutdown)
}

func TestPause(t *testing.T) {
	w := newWorld(t)
	w.running(def("x"))
	a := w.ask(user(0), vmop.Pause, vmop.VMRequest{VM: named("x")})
	b := w.ask(user(0), vmop.Pause, vmop.VMRequest{VM: named("x")})
	w.wantNone(b)
	w.event("x", vmop.EventPaused)
	w.wantCode(a, vmop.OK)
	w.wantCode(b, vmop.OK)
	w.wantState("x", vmop.Paused, vmop.AdminPaused)
	c := w.ask(user(0), vmop.Unpause, vmop.VMRequest{VM: named("x")})
	w.step(VMEvent{Event: vmop.Event{ID: 1, Kind: vmop.EventError, Code: vmop.ErrInternal, Detail: "stuck"}})
	w.wantCode(c, vmop.ErrInternal)
	w.wantState("x", vmop.Paused, vmop.AdminPaused)
	// A stop from paused: the guest must run to hear it, and it stays paused to
	// the eye, as on OpenBSD; the next run is not paused, as it is there.
	w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x")})
	need[UnpauseVM](w)
	need[StopVM](w)
	w.event("x", vmop.EventUnpaused)
	w.wantState("x", vmop.Paused, vmop.AdminShutdown)
	w.event("x", vmop.EventPoweroff)
	w.wantState("x", vmop.Stopped, vmop.AdminShutdown)
}

// TestPoweroffShowsBothSteps: RFC 7666 wants shutting down before shut down.
func TestPoweroffShowsBothSteps(t *testing.T) {
	w := newWorld(t)
	w.running(def("x"))
	w.event("x", vmop.EventPoweroff)
	var states []vmop.State
	for _, a := range w.acts {
		if p, ok := a.(Publish); ok {
			states = append(states, p.VM.State)
		}
	}
	if !reflect.DeepEqual(states, []vmop.State{vmop.Stopping, vmop.Stopped}) {
		t.Fatalf("states %v", states)
	}
}

func TestGuestReset(t *testing.T) {
	w := newWorld(t)
	w.running(def("x"))
	wait := w.ask(user(0), vmop.Wait, vmop.WaitRequest{VM: named("x")})
	before := w.rec("x")
	for i := range 3 { // slow resets are no limit
		w.now += quickReset
		w.event("x", vmop.EventReset)
		w.wantNone(wait) // OpenBSD's vmd answers here
		if s := need[StartVM](w); !s.Again || s.ID != before.ID || s.Def.NICs[0].MAC != before.NICs[0].MAC {
			t.Fatalf("reset %d: %+v", i, s)
		}
		if end := need[EndRun](w); !end.Keep {
			t.Fatal("tty given back")
		}
		w.wantState("x", vmop.Running, vmop.AdminRunning)
		w.event("x", vmop.EventStarted)
		if got := w.rec("x").Started; got != before.Started {
			t.Fatalf("uptime begins anew: %d, was %d", got, before.Started)
		}
	}
	for range quickLimit - 1 {
		w.event("x", vmop.EventReset)
		need[StartVM](w)
		w.event("x", vmop.EventStarted)
	}
	w.event("x", vmop.EventReset)
	forbid[StartVM](w)
	w.wantCode(wait, vmop.ErrTooOften)
	w.wantState("x", vmop.Crashed, vmop.AdminRunning)
	// A person is not held up by the limit.
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x")})
	need[StartVM](w)
}

func TestBootDeviceResetStops(t *testing.T) {
	w := newWorld(t)
	w.configure(def("x"))
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x"), BootDevice: "cdrom"})
	if s := need[StartVM](w); s.Def.BootDevice != config.BootCDROM {
		t.Fatalf("%+v", s.Def)
	}
	w.event("x", vmop.EventStarted)
	w.event("x", vmop.EventReset)
	forbid[StartVM](w)
	w.wantState("x", vmop.Stopped, vmop.AdminShutdown)
}

func TestCrash(t *testing.T) {
	w := newWorld(t)
	w.running(def("x"))
	wait := w.ask(user(0), vmop.Wait, vmop.WaitRequest{VM: named("x")})
	w.step(VMEvent{Event: vmop.Event{ID: 1, Kind: vmop.EventCrashed, Detail: "killed by signal 9"},
		Totals: vmop.Totals{CPU: 5, VCPU: []uint64{3}, Disks: []vmop.DiskTotals{{ReadOps: 2}}}})
	w.wantCode(wait, vmop.ErrCrashed)
	w.wantState("x", vmop.Crashed, vmop.AdminRunning)
	forbid[Arm](w)
	v := w.rec("x")
	if v.LastExit != "killed by signal 9" || v.Past.CPU != 5 || v.Past.VCPU[0] != 3 || v.Past.Disks[0].ReadOps != 2 {
		t.Fatalf("%+v", v)
	}
	w.wantCode(w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x")}), vmop.OK)
	w.wantState("x", vmop.Stopped, vmop.AdminShutdown)
}

func TestRestartOnFailure(t *testing.T) {
	w := newWorld(t)
	w.running(def("x", func(d *config.VM) {
		d.Restart = config.Restart{Set: true, OnFailure: true, Max: 2, Window: time.Minute}
	}))
	crash := func() { w.event("x", vmop.EventCrashed) }
	key := TimerKey{Kind: TimerRestart, ID: 1}
	again := func() { w.step(Timer{Key: key}); need[StartVM](w); w.event("x", vmop.EventStarted) }
	for range 2 {
		crash()
		if a := need[Arm](w); a.Key != key {
			t.Fatalf("%+v", a)
		}
		again()
	}
	crash()
	forbid[Arm](w)
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x")})
	w.event("x", vmop.EventStarted)
	w.now += time.Minute
	crash()
	need[Arm](w)
	w.wantCode(w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x")}), vmop.OK)
	w.step(Timer{Key: key}) // too late
	forbid[StartVM](w)
}

func TestReload(t *testing.T) {
	w := newWorld(t)
	w.configure(def("a", enabled), def("b"), def("c", enabled))
	w.event("a", vmop.EventStarted)
	w.event("c", vmop.EventStarted)
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("adhoc"), Define: &vmop.Definition{Kernel: "/k"}})
	w.event("adhoc", vmop.EventStarted)
	ids := map[string]uint32{}
	for _, v := range w.r.All() {
		ids[v.Name] = v.ID
	}
	bigger := def("a", enabled, func(d *config.VM) { d.MemoryBytes = 1 << 30 })
	to := Asker{1, 99}
	w.step(Configure{VMs: []config.VM{def("new", enabled), bigger}, Parallel: 1, To: to})
	w.wantCode(to, vmop.OK)
	if w.has("b") {
		t.Error("b, which is not in the file and does not run, is still there")
	}
	if v := w.rec("a"); !v.Changed || v.MemoryBytes != config.DefaultMemory || v.State != vmop.Running {
		t.Errorf("a: %+v", v)
	}
	w.wantState("c", vmop.Running, vmop.AdminRunning)
	w.wantState("adhoc", vmop.Running, vmop.AdminRunning)
	w.wantState("new", vmop.Starting, vmop.AdminRunning)
	if all := w.r.All(); all[0].Name != "new" || all[1].Name != "a" {
		t.Errorf("order %s %s", all[0].Name, all[1].Name)
	}
	w.event("a", vmop.EventReset)
	if s := need[StartVM](w); s.Def.MemoryBytes != config.DefaultMemory {
		t.Error("a guest's reset brings the new definition")
	}
	w.event("a", vmop.EventStarted)
	w.event("c", vmop.EventPoweroff)
	w.wantState("c", vmop.Stopped, vmop.AdminShutdown) // until the next reload
	w.configure(def("a"), def("b"), def("c"))
	for _, n := range []string{"a", "b", "c"} {
		if w.rec(n).ID != ids[n] {
			t.Errorf("%s has id %d, had %d", n, w.rec(n).ID, ids[n])
		}
	}
}

func TestLoad(t *testing.T) {
	w := newWorld(t)
	w.configure(def("a"), def("b"))
	w.step(Configure{VMs: []config.VM{def("a", owned(5)), def("c", enabled)}, Parallel: 1, Load: true})
	if w.rec("a").OwnerUID != 0 {
		t.Error("load changed a VM that was there")
	}
	w.rec("b")
	w.wantState("c", vmop.Starting, vmop.AdminRunning)
}

func TestReset(t *testing.T) {
	w := newWorld(t)
	w.configure(def("a", enabled), def("b"))
	w.event("a", vmop.EventStarted)
	a := w.ask(user(0), vmop.Reset, vmop.ResetRequest{VMs: true, Switches: true})
	need[ForgetSwitches](w)
	if s := need[StopVM](w); !s.Force {
		t.Fatal("not by force")
	}
	w.wantNone(a)
	w.event("a", vmop.EventKilled)
	w.wantCode(a, vmop.OK)
	if len(w.r.All()) != 0 {
		t.Fatalf("left: %+v", w.r.All())
	}
	w.configure(def("a"))
	if id := w.rec("a").ID; id != 3 {
		t.Fatalf("id %d: ids are never used twice", id)
	}
	w.wantCode(w.ask(user(0), vmop.Reset, vmop.ResetRequest{Switches: true}), vmop.OK)
	w.rec("a")
}

func TestShutdown(t *testing.T) {
	w := newWorld(t)
	w.step(Configure{VMs: []config.VM{def("a", enabled), def("b", enabled), def("c", enabled)}, Parallel: 2})
	w.event("a", vmop.EventStarted)
	w.step(Shutdown{})
	if s := need[StopVM](w); s.ID != 1 || s.Force {
		t.Fatalf("%+v", s)
	}
	w.wantState("c", vmop.Stopped, vmop.AdminShutdown)
	w.wantCode(w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("c")}), vmop.ErrUnavailable)
	w.event("b", vmop.EventStarted) // was on its way
	if s := need[StopVM](w); s.ID != 2 {
		t.Fatalf("%+v", s)
	}
	w.event("a", vmop.EventReset) // how OpenBSD guests halt
	forbid[StartVM](w)
	forbid[Quit](w)
	w.step(Timer{Key: TimerKey{Kind: TimerShutdown}})
	if s := need[StopVM](w); s.ID != 2 || !s.Force {
		t.Fatalf("%+v", s)
	}
	w.event("b", vmop.EventKilled)
	need[Quit](w)
}

func TestShutdownOfNothing(t *testing.T) {
	w := newWorld(t)
	w.configure(def("a"))
	w.step(Shutdown{})
	need[Quit](w)
}

func TestClientGone(t *testing.T) {
	w := newWorld(t)
	w.configure(def("x"))
	p := user(0)
	a := w.ask(p, vmop.Start, vmop.StartRequest{VM: named("x")})
	b := w.ask(p, vmop.Wait, vmop.WaitRequest{VM: named("x"), Timeout: 3})
	w.step(ClientGone{Client: a.Client})
	need[Disarm](w)
	w.event("x", vmop.EventStarted)
	w.wantNone(a)
	w.event("x", vmop.EventPoweroff)
	w.wantNone(b)
}

// TestRemember: ids, uuids, addresses and runs outlive the daemon.
func TestRemember(t *testing.T) {
	w := newWorld(t)
	w.configure(def("a", enabled), def("b"))
	w.event("a", vmop.EventStarted)
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("adhoc"), Define: &vmop.Definition{Kernel: "/k"}})
	w.event("adhoc", vmop.EventStarted)
	a, b := w.rec("a"), w.rec("b")
	saved := w.r.State()

	n := newWorld(t)
	n.r = New(saved, rand.New(rand.NewSource(2)))
	if got := n.r.State(); !reflect.DeepEqual(got, saved) {
		t.Fatalf("state\n%+v\nwas\n%+v", got, saved)
	}
	n.step(Recover{})
	if x := need[AdoptVM](n); x.ID != a.ID || x.PID != 100 {
		t.Fatalf("%+v", x)
	}
	n.configure(def("b"), def("a", enabled))
	forbid[StartVM](n)
	n.step(Adopted{ID: a.ID, PID: 100, State: vmop.Paused, Def: def("a")})
	n.wantState("a", vmop.Paused, vmop.AdminPaused)
	n.event("adhoc", vmop.EventCrashed) // it died while nobody watched
	if n.has("adhoc") {
		t.Error("adhoc is still there")
	}
	got := n.rec("a")
	if got.ID != a.ID || got.UUID != a.UUID || got.NICs[0].MAC != a.NICs[0].MAC || got.TTY != a.TTY || got.Started != a.Started {
		t.Errorf("a is %+v, was %+v", got, a)
	}
	if got := n.rec("b"); got.ID != b.ID || got.UUID != b.UUID || got.NICs[0].MAC != b.NICs[0].MAC {
		t.Errorf("b is %+v, was %+v", got, b)
	}
}

func TestVMMGone(t *testing.T) {
	w := newWorld(t)
	w.running(def("x"))
	pause := w.ask(user(0), vmop.Pause, vmop.VMRequest{VM: named("x")})
	w.step(VMMGone{})
	need[AdoptVM](w)
	w.step(Adopted{ID: 1, PID: 100, State: vmop.Running, Def: def("x")})
	need[PauseVM](w)
	w.event("x", vmop.EventPaused)
	w.wantCode(pause, vmop.OK)
	w.step(VMMGone{})
	w.event("x", vmop.EventCrashed)
	w.wantState("x", vmop.Crashed, vmop.AdminPaused)
}

// TestTakeIn: VMs survive the loss of the state file.
func TestTakeIn(t *testing.T) {
	w := newWorld(t)
	w.r.Reserve(7)
	d := def("x")
	d.NICs[0].MAC, d.UUID = [6]byte{2, 1, 1, 1, 1, 1}, [16]byte{1}
	w.step(Adopted{ID: 7, PID: 100, State: vmop.Running, Def: d})
	w.configure(def("x", owned(5), enabled), def("y"))
	v := w.rec("x")
	if v.ID != 7 || v.State != vmop.Running || !v.Persistent || v.UUID != d.UUID || v.NICs[0].MAC != d.NICs[0].MAC || v.PID != 100 {
		t.Fatalf("%+v", v)
	}
	if id := w.rec("y").ID; id != 8 {
		t.Fatalf("y has id %d", id)
	}
	// One that claims another's id or name is stopped.
	w.step(Adopted{ID: 8, PID: 101, State: vmop.Running, Def: def("z")})
	if s := need[StopVM](w); s.ID != 8 || !s.Force {
		t.Fatalf("%+v", s)
	}
}

func TestAddresses(t *testing.T) {
	w := newWorld(t)
	w.configure(def("x", func(d *config.VM) { d.NICs = make([]config.NIC, 4); d.NICs[2].MAC = [6]byte{2, 3, 4, 5, 6, 7} }))
	v := w.rec("x")
	for i, want := range []byte{0xd1, 0xd2, 7, 0xd4} {
		m := v.NICs[i].MAC
		if i == 2 {
			if m != [6]byte{2, 3, 4, 5, 6, 7} {
				t.Errorf("fixed address is %x", m)
			}
		} else if m[0] != 0xfe || m[1] != 0xe1 || m[2] != 0xbb || m[3] != want {
			t.Errorf("interface %d has %x", i, m)
		}
	}
}
