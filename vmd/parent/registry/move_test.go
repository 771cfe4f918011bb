package registry

import (
	"math/rand"
	"strings"
	"testing"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// traveller is the guest that a VM made by def would be on its way here.
func traveller(edits ...func(*vmop.Guest)) vmop.Guest {
	g := vmop.Guest{
		Name: "far", UUID: [16]byte{15: 9}, MemoryBytes: config.DefaultMemory, CPUs: 1, Kernel: "/k",
		Disks: []vmop.GuestDisk{{Path: "/far", Format: "raw", Size: 512, Serial: "far-0"}},
		NICs:  []vmop.GuestNIC{{MAC: [6]byte{2, 5: 7}, Switch: "lan", MTU: 1500, Queues: 1}},
	}
	for _, e := range edits {
		e(&g)
	}
	return g
}

// sending has the VM x running and being sent.
func sendingWorld(t *testing.T, edits ...func(*config.VM)) (*world, Asker) {
	t.Helper()
	w := newWorld(t)
	w.running(def("x", edits...))
	return w, w.sendX()
}

func (w *world) sendX() Asker {
	w.t.Helper()
	a := w.ask(user(0), vmop.Send, vmop.SendRequest{VM: named("x")})
	w.wantNone(a)
	need[SendVM](w)
	return a
}

// failed says that x was not sent and is s now.
func (w *world) failed(s vmop.State) {
	w.t.Helper()
	w.step(VMEvent{Event: vmop.Event{ID: w.rec("x").ID, Kind: vmop.EventSendFailed, Code: vmop.ErrSend, Detail: "no way", State: s}})
}

func TestSent(t *testing.T) {
	w, a := sendingWorld(t, func(d *config.VM) { d.Restart = config.Restart{OnFailure: true} })
	g := need[SendVM](w).Guest
	if g.Name != "x" || g.UUID == ([16]byte{}) || g.CPUs != 1 || len(g.Disks) != 1 || g.NICs[0].MAC == ([6]byte{}) || g.Paused {
		t.Errorf("the guest is %+v", g)
	}
	w.wantState("x", vmop.Migrating, vmop.AdminRunning)
	if p := need[Publish](w); p.VM.State != vmop.Migrating {
		t.Errorf("published as %v", p.VM.State)
	}
	id := w.rec("x").ID
	w.step(VMEvent{Event: vmop.Event{ID: id, Kind: vmop.EventSent, Pause: 42}})
	w.wantNone(a)
	need[SaveState](w)
	if stop := need[StopVM](w); !stop.Force {
		t.Error("its process is asked, not told, to end")
	}
	if !w.r.State().Runs[0].Sent {
		t.Error("what was saved does not say that it was sent")
	}
	w.event("x", vmop.EventKilled)
	w.wantCode(a, vmop.OK)
	if res, _ := w.answerTo(a); res.Pause != 42 {
		t.Errorf("answer %+v", res)
	}
	w.wantState("x", vmop.Stopped, vmop.AdminShutdown)
	if last := w.rec("x").LastExit; last != "sent to another host" {
		t.Errorf("last exit %q", last)
	}
	forbid[Arm](w)
	w.configure(def("x", enabled)) // a reload
	forbid[StartVM](w)
	// Nor does the next daemon start it, though it knows nothing of the reload.
	next := &world{t: t, r: New(w.r.State(), rand.New(rand.NewSource(2))), now: w.now}
	next.configure(def("x", enabled))
	forbid[StartVM](next)
	next.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x")})
	need[StartVM](next)
	next.event("x", vmop.EventStarted)
	if next.r.State().Known[0].Away {
		t.Error("it is still away after a start")
	}
}

// A crash at the very end, when vmd knows that the guest is elsewhere, is none.
func TestSentAndKilled(t *testing.T) {
	for _, kind := range []vmop.EventKind{vmop.EventCrashed, vmop.EventReset, vmop.EventPoweroff} {
		w, a := sendingWorld(t)
		w.event("x", vmop.EventSent)
		w.event("x", kind)
		w.wantCode(a, vmop.OK)
		w.wantState("x", vmop.Stopped, vmop.AdminShutdown)
		forbid[StartVM](w)
	}
}

// The daemon ends, or crashes, after it has written down that a guest has gone.
func TestSentAndNewDaemon(t *testing.T) {
	w, _ := sendingWorld(t)
	w.event("x", vmop.EventSent)
	for _, there := range []bool{true, false} {
		next := &world{t: t, r: New(w.r.State(), rand.New(rand.NewSource(2))), now: w.now}
		next.step(Recover{})
		id := need[AdoptVM](next).ID
		if there {
			next.step(Adopted{ID: id, PID: 100, State: vmop.Migrating, Def: def("x")})
			if stop := need[StopVM](next); !stop.Force {
				t.Error("it is asked to end")
			}
			next.event("x", vmop.EventKilled)
		} else {
			next.event("x", vmop.EventCrashed)
		}
		next.configure(def("x", enabled))
		forbid[StartVM](next)
		next.wantState("x", vmop.Stopped, vmop.AdminShutdown)
	}
}

// vmm, or the daemon, dies while a VM is being sent: its process says what came
// of it.
func TestSendAndNewVMM(t *testing.T) {
	w, a := sendingWorld(t)
	id := w.rec("x").ID
	w.step(VMMGone{})
	w.step(Adopted{ID: id, PID: 100, State: vmop.Running, Def: def("x")})
	w.wantCode(a, vmop.ErrUnavailable)
	w.wantState("x", vmop.Running, vmop.AdminRunning)

	a = w.sendX()
	w.step(VMMGone{})
	w.step(Adopted{ID: id, PID: 100, State: vmop.Migrating, Def: def("x")})
	w.wantNone(a)
	w.wantState("x", vmop.Migrating, vmop.AdminRunning)
	w.event("x", vmop.EventSent)
	w.event("x", vmop.EventKilled)
	w.wantCode(a, vmop.OK)

	w, _ = sendingWorld(t)
	next := &world{t: t, r: New(w.r.State(), rand.New(rand.NewSource(2))), now: w.now}
	next.step(Adopted{ID: id, PID: 100, State: vmop.Migrating, Def: def("x")})
	next.wantState("x", vmop.Migrating, vmop.AdminRunning)
	next.failed(vmop.Running)
	next.wantState("x", vmop.Running, vmop.AdminRunning)
}

func TestSendFails(t *testing.T) {
	for _, c := range []struct {
		before, after vmop.State
		admin         vmop.Admin
	}{
		{vmop.Running, vmop.Running, vmop.AdminRunning},
		{vmop.Paused, vmop.Paused, vmop.AdminPaused},
		{vmop.Running, vmop.Paused, vmop.AdminPaused}, // nobody knows who has the guest
	} {
		w := newWorld(t)
		w.running(def("x"))
		if c.before == vmop.Paused {
			w.event("x", vmop.EventPaused)
		}
		a := w.sendX()
		if g := need[SendVM](w).Guest; g.Paused != (c.before == vmop.Paused) {
			t.Errorf("%v: the guest is paused %v", c.before, g.Paused)
		}
		w.failed(c.after)
		w.wantCode(a, vmop.ErrSend)
		w.wantState("x", c.after, c.admin)
		w.failed(vmop.Paused) // old news
		w.wantState("x", c.after, c.admin)
		w.sendX() // and it can be sent again
	}
}

func TestWhileBeingSent(t *testing.T) {
	for _, c := range []struct {
		typ  vmop.Type
		body any
		want vmop.Code
	}{
		{vmop.Pause, vmop.VMRequest{VM: named("x")}, vmop.ErrBusy},
		{vmop.Unpause, vmop.VMRequest{VM: named("x")}, vmop.ErrBusy},
		{vmop.Send, vmop.SendRequest{VM: named("x")}, vmop.ErrBusy},
		{vmop.Start, vmop.StartRequest{VM: named("x")}, vmop.ErrRunning},
		{vmop.Receive, vmop.ReceiveRequest{Name: "x", Guest: traveller()}, vmop.ErrRunning},
		{vmop.Break, vmop.VMRequest{VM: named("x")}, vmop.OK},
	} {
		w, _ := sendingWorld(t)
		w.wantCode(w.ask(user(0), c.typ, c.body), c.want)
		w.wantState("x", vmop.Migrating, vmop.AdminRunning)
	}
}

func TestUnsendable(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		who  vmop.Peer
		want vmop.Code
	}{
		{"not root", func(w *world) { w.running(def("x", owned(1001))) }, user(1001), vmop.ErrPermission},
		{"unknown", func(w *world) {}, user(0), vmop.ErrNotFound},
		{"stopped", func(w *world) { w.configure(def("x")) }, user(0), vmop.ErrNotRunning},
		{"starting", func(w *world) { w.configure(def("x", enabled)) }, user(0), vmop.ErrNotRunning},
		{"stopping", func(w *world) {
			w.running(def("x"))
			w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x")})
		}, user(0), vmop.ErrStopping},
		{"being paused", func(w *world) {
			w.running(def("x"))
			w.ask(user(0), vmop.Pause, vmop.VMRequest{VM: named("x")})
		}, user(0), vmop.ErrBusy},
		{"encrypted", func(w *world) { w.running(def("x", func(d *config.VM) { d.SEV = true })) }, user(0), vmop.ErrUnsupported},
		{"out of sight", func(w *world) {
			w.running(def("x"))
			w.step(VMMGone{})
		}, user(0), vmop.ErrBusy},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.do(w)
			w.wantCode(w.ask(c.who, vmop.Send, vmop.SendRequest{VM: named("x")}), c.want)
			forbid[SendVM](w)
		})
	}
}

// The client through which a VM goes leaves.
func TestSenderLeaves(t *testing.T) {
	w, a := sendingWorld(t)
	w.step(ClientGone{Client: a.Client})
	need[AbortSend](w)
	w.wantState("x", vmop.Migrating, vmop.AdminRunning)
	w.failed(vmop.Running)
	w.wantNone(a)
	w.wantState("x", vmop.Running, vmop.AdminRunning)
}

func TestStopWhileBeingSent(t *testing.T) {
	w, a := sendingWorld(t)
	stop := w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x")})
	w.wantCode(stop, vmop.OK)
	need[AbortSend](w)
	forbid[StopVM](w) // the guest may be standing still
	w.failed(vmop.Running)
	w.wantCode(a, vmop.ErrSend)
	if s := need[StopVM](w); s.Force {
		t.Error("stopped by force")
	}
	w.wantState("x", vmop.Stopping, vmop.AdminShutdown)

	w, a = sendingWorld(t)
	stop = w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x"), Force: true})
	if s := need[StopVM](w); !s.Force {
		t.Error("not stopped by force")
	}
	w.event("x", vmop.EventKilled)
	w.wantCode(a, vmop.ErrSend)
	w.wantCode(stop, vmop.OK)

	// Too late: it has gone.
	w, a = sendingWorld(t)
	stop = w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("x"), Wait: true})
	w.event("x", vmop.EventSent)
	w.event("x", vmop.EventKilled)
	w.wantCode(a, vmop.OK)
	w.wantCode(stop, vmop.OK)
	if last := w.rec("x").LastExit; last != "sent to another host" {
		t.Errorf("last exit %q", last)
	}
}

// A guest ends by itself while it is being sent.
func TestEndWhileBeingSent(t *testing.T) {
	w, a := sendingWorld(t)
	w.event("x", vmop.EventPoweroff)
	w.wantCode(a, vmop.ErrSend)
	w.wantState("x", vmop.Stopped, vmop.AdminShutdown)

	w, a = sendingWorld(t)
	w.event("x", vmop.EventReset)
	w.wantCode(a, vmop.ErrSend)
	need[StartVM](w)
}

// A VM that says it was sent, when nobody asked, is not believed.
func TestUnaskedSent(t *testing.T) {
	w := newWorld(t)
	w.running(def("x"))
	for _, kind := range []vmop.EventKind{vmop.EventSent, vmop.EventSendFailed} {
		w.event("x", kind)
		w.wantState("x", vmop.Running, vmop.AdminRunning)
		forbid[StopVM](w)
	}
}

func (w *world) receive(name string, g vmop.Guest, disks ...string) Asker {
	return w.ask(user(0), vmop.Receive, vmop.ReceiveRequest{Name: name, Guest: g, Disks: disks})
}

func TestReceive(t *testing.T) {
	w := newWorld(t)
	a := w.receive("new", traveller())
	w.wantNone(a)
	s := need[StartVM](w)
	if s.Receive == nil || s.Def.Name != "new" || s.UUID != [16]byte{15: 9} || s.Def.NICs[0].MAC != [6]byte{2, 5: 7} ||
		s.Def.Disks[0] != (config.Disk{Path: "/far", Format: config.FormatRaw}) || s.Def.NICs[0].Switch != "lan" {
		t.Errorf("started as %+v", s)
	}
	if p := need[Publish](w); p.VM.State != vmop.Starting || !p.VM.Receiving {
		t.Errorf("published as %+v", p.VM)
	}
	w.event("new", vmop.EventStarted)
	w.wantCode(a, vmop.OK)
	w.wantState("new", vmop.Running, vmop.AdminRunning)
	if w.rec("new").Receiving {
		t.Error("it is still being received")
	}
	// A reset of the guest is a start like any other, with the same addresses.
	w.event("new", vmop.EventReset)
	if s := need[StartVM](w); s.Receive != nil || s.Def.NICs[0].MAC != [6]byte{2, 5: 7} || s.UUID != [16]byte{15: 9} || s.Def.Boot != "/k" {
		t.Errorf("started again as %+v", s)
	}
}

func TestReceiveDefined(t *testing.T) {
	w := newWorld(t)
	w.configure(def("x", func(d *config.VM) { d.Owner, d.Boot = config.Owner{UID: 1001}, "/here" }))
	before := w.rec("x")
	a := w.receive("x", traveller(func(g *vmop.Guest) { g.Disks[0].Format = "qcow2" }))
	s := need[StartVM](w)
	if s.Def.Owner.UID != 1001 || s.Def.Boot != "/here" || s.Def.Disks[0] != (config.Disk{Path: "/x", Format: config.FormatQcow2}) {
		t.Errorf("started as %+v", s.Def)
	}
	w.event("x", vmop.EventStarted)
	w.wantCode(a, vmop.OK)
	if v := w.rec("x"); v.ID != before.ID || v.UUID != [16]byte{15: 9} || v.Changed {
		t.Errorf("it is %+v", v)
	}
	// The next start keeps the address that the guest came with.
	w.event("x", vmop.EventPoweroff)
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x")})
	if s := need[StartVM](w); s.Def.NICs[0].MAC != [6]byte{2, 5: 7} || s.UUID != [16]byte{15: 9} {
		t.Errorf("started as %+v", s)
	}
}

func TestReceivePaused(t *testing.T) {
	w := newWorld(t)
	w.receive("new", traveller(func(g *vmop.Guest) { g.Paused = true }))
	w.step(VMEvent{Event: vmop.Event{ID: w.rec("new").ID, Kind: vmop.EventStarted, PID: 7, State: vmop.Paused}})
	w.wantState("new", vmop.Paused, vmop.AdminPaused)
}

// A guest that comes back may be started by a reload again.
func TestReceiveBack(t *testing.T) {
	w, _ := sendingWorld(t)
	w.event("x", vmop.EventSent)
	w.event("x", vmop.EventKilled)
	// The first attempt fails: it is still away.
	g := traveller()
	a := w.receive("x", g)
	w.event("x", vmop.EventFailed)
	w.wantCode(a, vmop.ErrInternal)
	w.configure(def("x", enabled))
	forbid[StartVM](w)
	a = w.receive("x", g)
	w.event("x", vmop.EventStarted)
	w.wantCode(a, vmop.OK)
	w.event("x", vmop.EventPoweroff)
	w.configure(def("x", enabled))
	need[StartVM](w)
}

func TestReceiveFails(t *testing.T) {
	w := newWorld(t)
	a := w.receive("new", traveller())
	id := w.rec("new").ID
	w.step(VMEvent{Event: vmop.Event{ID: id, Kind: vmop.EventFailed, Code: vmop.ErrStream, Detail: "it broke"}})
	w.wantCode(a, vmop.ErrStream)
	need[EndRun](w)
	if w.has("new") {
		t.Error("it is still there")
	}
}

func TestReceiveRefused(t *testing.T) {
	edit := func(f func(*vmop.Guest)) vmop.Guest { return traveller(f) }
	for _, c := range []struct {
		name, vm string
		guest    vmop.Guest
		disks    []string
		want     vmop.Code
		detail   string
	}{
		{"runs", "busy", traveller(), nil, vmop.ErrRunning, "running"},
		{"name", "-x", traveller(), nil, vmop.ErrInvalid, "name"},
		{"no name", "", traveller(), nil, vmop.ErrInvalid, "name"},
		{"memory", "x", edit(func(g *vmop.Guest) { g.MemoryBytes = 1 << 30 }), nil, vmop.ErrInvalid, "512 MiB of memory, the guest has 1024"},
		{"odd memory", "new", edit(func(g *vmop.Guest) { g.MemoryBytes = 12345678 }), nil, vmop.ErrInvalid, "MiB"},
		{"cpus", "x", edit(func(g *vmop.Guest) { g.CPUs = 3 }), nil, vmop.ErrInvalid, "1 CPUs, the guest has 3"},
		{"no cpus", "new", edit(func(g *vmop.Guest) { g.CPUs = -1 }), nil, vmop.ErrInvalid, "CPUs"},
		{"disks", "x", edit(func(g *vmop.Guest) { g.Disks = nil }), nil, vmop.ErrInvalid, "1 disks, the guest has 0"},
		{"interfaces", "x", edit(func(g *vmop.Guest) { g.NICs = nil }), nil, vmop.ErrInvalid, "1 interfaces, the guest has 0"},
		{"cdrom", "x", edit(func(g *vmop.Guest) { g.CDROM = "/cd" }), nil, vmop.ErrInvalid, "CD-ROM"},
		{"virtio modern", "old", traveller(), nil, vmop.ErrInvalid, "virtio transitional, the guest has virtio modern"},
		{"virtio transitional", "x", edit(func(g *vmop.Guest) { g.Transitional = true }), nil, vmop.ErrInvalid, "virtio modern, the guest has virtio transitional"},
		{"local", "x", edit(func(g *vmop.Guest) { g.NICs[0].Local = true }), nil, vmop.ErrInvalid, "local"},
		{"uuid", "fixed", traveller(), nil, vmop.ErrInvalid, "uuid 01000000-0000-0000-0000-000000000000, the guest has "},
		{"no uuid", "new", edit(func(g *vmop.Guest) { g.UUID = [16]byte{} }), nil, vmop.ErrInvalid, "uuid"},
		{"lladdr", "pinned", traveller(), nil, vmop.ErrInvalid, "address 02:02:02:02:02:02, the guest's is "},
		{"format", "raw", edit(func(g *vmop.Guest) { g.Disks[0].Format = "qcow2" }), nil, vmop.ErrInvalid, "raw, the guest's is qcow2"},
		{"no format", "new", edit(func(g *vmop.Guest) { g.Disks[0].Format = "" }), nil, vmop.ErrInvalid, "format"},
		{"size", "new", edit(func(g *vmop.Guest) { g.Disks[0].Size = -512 }), nil, vmop.ErrInvalid, "bytes"},
		{"path", "new", edit(func(g *vmop.Guest) { g.Disks[0].Path = "x" }), nil, vmop.ErrInvalid, "absolute"},
		{"paths of a defined VM", "x", traveller(), []string{"/d"}, vmop.ErrInvalid, "vm.conf"},
		{"too many paths", "new", traveller(), []string{"/d", "/e"}, vmop.ErrInvalid, "1 disks, and 2 paths"},
		{"multicast", "new", edit(func(g *vmop.Guest) { g.NICs[0].MAC = [6]byte{1, 0, 0x5e} }), nil, vmop.ErrInvalid, "address 01:00:5e:00:00:00"},
		{"queues", "new", edit(func(g *vmop.Guest) { g.NICs[0].Queues = 1 << 40 }), nil, vmop.ErrInvalid, "queues"},
		{"no queues", "new", edit(func(g *vmop.Guest) { g.NICs[0].Queues = 0 }), nil, vmop.ErrInvalid, "queues"},
		{"many interfaces", "new", edit(func(g *vmop.Guest) {
			for i := range 4 {
				g.NICs = append(g.NICs, vmop.GuestNIC{MAC: [6]byte{2, 0, 0, 1, 0, byte(i)}, Queues: 1})
			}
		}), nil, vmop.ErrInvalid, "interfaces"},
		{"nothing to boot", "new", edit(func(g *vmop.Guest) { g.Kernel, g.Disks = "", nil }), nil, vmop.ErrNothingToBoot, ""},
		{"no network to boot from", "new", edit(func(g *vmop.Guest) { g.Kernel, g.Disks, g.NICs, g.NetBoot = "", nil, nil, true }), nil, vmop.ErrNothingToBoot, ""},
		{"address of another", "new", edit(func(g *vmop.Guest) { g.NICs[0].MAC = [6]byte{2, 1, 1, 1, 1, 1} }), nil, vmop.ErrShared, "address 02:01:01:01:01:01 of the guest is that of busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			mac := func(m [6]byte) func(*config.VM) { return func(d *config.VM) { d.NICs[0].MAC = m } }
			w.configure(def("x"), def("busy", enabled, mac([6]byte{2, 1, 1, 1, 1, 1})),
				def("fixed", func(d *config.VM) { d.UUID = [16]byte{1} }), def("pinned", mac([6]byte{2, 2, 2, 2, 2, 2})),
				def("old", func(d *config.VM) { d.Transitional = true }),
				def("raw", func(d *config.VM) { d.Disks[0].Format = config.FormatRaw }))
			w.event("busy", vmop.EventStarted)
			a := w.receive(c.vm, c.guest, c.disks...)
			w.wantCode(a, c.want)
			if res, _ := w.answerTo(a); !strings.Contains(res.Detail, c.detail) {
				t.Errorf("detail %q, want %q in it", res.Detail, c.detail)
			}
			forbid[StartVM](w)
			if w.has("new") {
				t.Error("a VM was made of it")
			}
		})
	}
}

// A guest without disk that booted from the network does so at the next start,
// too; and its reset ends it there as it would have here.
func TestReceiveOfNetBoot(t *testing.T) {
	w, _ := sendingWorld(t, func(d *config.VM) {
		d.Boot, d.Disks, d.BootDevice, d.NICs = "", nil, config.BootNet, make([]config.NIC, 1)
	})
	g := need[SendVM](w).Guest
	if !g.NetBoot {
		t.Fatalf("sent as %+v", g)
	}
	g.NICs[0].Queues, g.NICs[0].MAC = 1, [6]byte{2, 9, 9, 9, 9, 9}
	w = newWorld(t)
	a := w.receive("y", g)
	if s := need[StartVM](w); !s.Def.NetBoot() || s.Receive == nil {
		t.Errorf("received as %+v", s.Def)
	}
	w.event("y", vmop.EventStarted)
	w.wantCode(a, vmop.OK)
	w.event("y", vmop.EventReset)
	forbid[StartVM](w)
}

func TestReceiveIsRoots(t *testing.T) {
	w := newWorld(t)
	w.wantCode(w.ask(user(1001), vmop.Receive, vmop.ReceiveRequest{Name: "new", Guest: traveller()}), vmop.ErrPermission)
}

// A guest can go from one name to another on the same host: then its address is
// here twice for a while.
func TestReceiveFromHere(t *testing.T) {
	w, a := sendingWorld(t)
	g := need[SendVM](w).Guest
	g.Disks[0].Format, g.NICs[0].Queues = "raw", 1
	w.receive("y", g)
	need[StartVM](w)
	w.event("x", vmop.EventSent)
	w.event("x", vmop.EventKilled)
	w.wantCode(a, vmop.OK)
}
