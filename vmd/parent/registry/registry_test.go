package registry

import (
	"fmt"
	"testing"
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// TestPermissions is a matrix: who x what x kind of VM.
func TestPermissions(t *testing.T) {
	root, owner, member, other := user(0), user(1001), user(1002, 50), user(1003, 51)
	type row struct {
		name                       string
		running                    bool
		typ                        vmop.Type
		body                       any
		root, owner, member, other vmop.Code
	}
	const ok, perm = vmop.OK, vmop.ErrPermission
	start := func(m vmop.Definition) vmop.StartRequest {
		return vmop.StartRequest{VM: named("x"), Define: &m}
	}
	rows := []row{
		{"list", true, vmop.List, vmop.ListRequest{}, ok, ok, ok, ok},
		{"start", false, vmop.Start, vmop.StartRequest{VM: named("x")}, ok, ok, ok, perm},
		{"start running", true, vmop.Start, vmop.StartRequest{VM: named("x")}, vmop.ErrRunning, vmop.ErrRunning, vmop.ErrRunning, perm},
		{"start cpus", false, vmop.Start, start(vmop.Definition{CPUs: 2}), ok, ok, ok, perm},
		{"start memory", false, vmop.Start, start(vmop.Definition{MemoryBytes: 1 << 30}), vmop.ErrNameTaken, vmop.ErrNameTaken, vmop.ErrNameTaken, perm},
		{"stop", true, vmop.Stop, vmop.StopRequest{VM: named("x")}, ok, ok, ok, perm},
		{"stop stopped", false, vmop.Stop, vmop.StopRequest{VM: named("x")}, vmop.ErrNotRunning, vmop.ErrNotRunning, vmop.ErrNotRunning, perm},
		{"wait stopped", false, vmop.Wait, vmop.WaitRequest{VM: named("x")}, vmop.ErrNotRunning, vmop.ErrNotRunning, vmop.ErrNotRunning, perm},
		{"pause stopped", false, vmop.Pause, vmop.VMRequest{VM: named("x")}, vmop.ErrNotRunning, vmop.ErrNotRunning, vmop.ErrNotRunning, perm},
		{"unpause stopped", false, vmop.Unpause, vmop.VMRequest{VM: named("x")}, vmop.ErrNotRunning, vmop.ErrNotRunning, vmop.ErrNotRunning, perm},
		{"break", true, vmop.Break, vmop.VMRequest{VM: named("x")}, ok, ok, ok, perm},
		{"console stopped", false, vmop.Console, vmop.ConsoleRequest{VM: named("x")}, vmop.ErrNotRunning, vmop.ErrNotRunning, vmop.ErrNotRunning, perm},
		{"create", false, vmop.Start, vmop.StartRequest{VM: named("new"), Define: &vmop.Definition{Disks: []vmop.DiskDef{{Path: "/n"}}}}, ok, perm, perm, perm},
		{"start unknown", false, vmop.Start, vmop.StartRequest{VM: named("new")}, vmop.ErrNotFound, perm, perm, perm},
		{"instance", false, vmop.Start, vmop.StartRequest{VM: named("new"), Template: "x", Define: &vmop.Definition{}}, ok, vmop.ErrInstance, vmop.ErrInstance, vmop.ErrInstance},
		{"unknown template", false, vmop.Start, vmop.StartRequest{VM: named("new"), Template: "nosuch"}, vmop.ErrTemplate, vmop.ErrTemplate, vmop.ErrTemplate, vmop.ErrTemplate},
		{"log", false, vmop.Log, vmop.LogRequest{Verbose: true}, ok, perm, perm, perm},
		{"reset", false, vmop.Reset, vmop.ResetRequest{VMs: true}, ok, perm, perm, perm},
		{"stop unknown", false, vmop.Stop, vmop.StopRequest{VM: named("nosuch")}, vmop.ErrNotFound, vmop.ErrNotFound, vmop.ErrNotFound, vmop.ErrNotFound},
		{"load relative", false, vmop.Load, vmop.LoadRequest{Path: "x.conf"}, vmop.ErrInvalid, perm, perm, perm},
		{"wrong body", false, vmop.Stop, "stop", vmop.ErrInvalid, vmop.ErrInvalid, vmop.ErrInvalid, vmop.ErrInvalid},
	}
	for _, row := range rows {
		for _, who := range []struct {
			name string
			peer vmop.Peer
			want vmop.Code
		}{{"root", root, row.root}, {"owner", owner, row.owner}, {"member", member, row.member}, {"other", other, row.other}} {
			t.Run(row.name+"/"+who.name, func(t *testing.T) {
				w := newWorld(t)
				d := def("x", owned(1001), group(50))
				if row.running {
					w.running(d)
				} else {
					w.configure(d)
				}
				a := w.ask(who.peer, row.typ, row.body)
				if _, starts := find[StartVM](w); starts && row.typ == vmop.Start {
					if who.want != vmop.OK {
						t.Fatalf("started, want %v", who.want)
					}
					return
				}
				w.wantCode(a, who.want)
			})
		}
	}
}

// TestRunningOwner: while a VM runs, its owner is the one it was started with.
func TestRunningOwner(t *testing.T) {
	w := newWorld(t)
	w.running(def("x", owned(1001)))
	w.configure(def("x", owned(2002), enabled))
	w.wantCode(w.ask(user(2002), vmop.Stop, vmop.StopRequest{VM: named("x")}), vmop.ErrPermission)
	w.wantCode(w.ask(user(1001), vmop.Stop, vmop.StopRequest{VM: named("x")}), vmop.OK)
	w.event("x", vmop.EventPoweroff)
	w.ask(user(2002), vmop.Start, vmop.StartRequest{VM: named("x")})
	need[StartVM](w)
}

func TestStaggeredStart(t *testing.T) {
	w := newWorld(t)
	var vms []config.VM
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		vms = append(vms, def(n, enabled))
	}
	vms[1].Enabled = false
	started := func() (names string) {
		for _, a := range w.acts {
			if s, ok := a.(StartVM); ok {
				names += s.Def.Name
			}
		}
		return names
	}
	w.step(Configure{VMs: vms, Parallel: 2, Delay: 30 * time.Second})
	if got := started(); got != "ac" {
		t.Fatalf("first batch %q, want ac", got)
	}
	if arm := need[Arm](w); arm.Key.Kind != TimerStarter || arm.After != 30*time.Second {
		t.Fatalf("timer %+v", arm)
	}
	w.wantState("d", vmop.Waiting, vmop.AdminRunning)
	w.wantState("b", vmop.Stopped, vmop.AdminShutdown)
	// A stopped turn is cancelled, a start by hand takes it.
	w.wantCode(w.ask(user(0), vmop.Stop, vmop.StopRequest{VM: named("d")}), vmop.OK)
	w.wantState("d", vmop.Stopped, vmop.AdminShutdown)
	w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("e")})
	w.wantState("e", vmop.Starting, vmop.AdminRunning)
	w.step(Timer{Key: TimerKey{Kind: TimerStarter}})
	if got := started(); got != "" {
		t.Fatalf("second batch %q, want none", got)
	}
	forbid[Arm](w)
	// A failed start uses up a slot, nothing waits for it, and it can be retried.
	id := w.rec("a").ID
	w.step(VMEvent{Event: vmop.Event{ID: id, Kind: vmop.EventFailed, Code: vmop.ErrDisk, Detail: "no disk"}})
	w.wantState("a", vmop.Stopped, vmop.AdminRunning)
	if end := need[EndRun](w); end.ID != id || end.Keep {
		t.Fatalf("%+v", end)
	}
	// Every reload begins a fresh batch at once.
	w.step(Configure{VMs: vms, Parallel: 2, Delay: 30 * time.Second})
	if got := started(); got != "a" {
		t.Fatalf("after reload %q, want a: d was stopped by an operator", got)
	}
}

func TestStartAnswers(t *testing.T) {
	w := newWorld(t)
	w.configure(def("x"))
	a := w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x")})
	w.wantNone(a)
	b := w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x")})
	w.wantCode(b, vmop.ErrRunning)
	w.event("x", vmop.EventStarted)
	w.wantCode(a, vmop.OK)
	if res, _ := w.answerTo(a); res.TTY != "/dev/pts/7" || res.ID != 1 || res.Name != "x" {
		t.Fatalf("result %+v", res)
	}
	w.event("x", vmop.EventPoweroff)
	a = w.ask(user(0), vmop.Start, vmop.StartRequest{VM: vmop.Ref{ID: 1}})
	w.step(VMEvent{Event: vmop.Event{ID: 1, Kind: vmop.EventFailed, Code: vmop.ErrDiskLocked, Detail: "in use"}})
	w.wantCode(a, vmop.ErrDiskLocked)
	w.wantState("x", vmop.Stopped, vmop.AdminShutdown)
}

// TestAdHoc: a VM that a client defined is gone when it has stopped, with the
// id kept for its name.
func TestAdHoc(t *testing.T) {
	for _, end := range []vmop.EventKind{vmop.EventPoweroff, vmop.EventKilled, vmop.EventCrashed, vmop.EventFailed} {
		w := newWorld(t)
		req := vmop.StartRequest{VM: named("x"), Define: &vmop.Definition{Disks: []vmop.DiskDef{{Path: "/d", Format: "raw"}}}}
		w.ask(user(0), vmop.Start, req)
		s := need[StartVM](w)
		if s.Def.MemoryBytes != config.DefaultMemory || s.Def.CPUs != 1 {
			t.Fatalf("defaults: %+v", s.Def)
		}
		if end != vmop.EventFailed {
			w.event("x", vmop.EventStarted)
		}
		w.event("x", end)
		if w.has("x") {
			t.Fatalf("event %d: still defined", end)
		}
		need[Delete](w)
		w.ask(user(0), vmop.Start, req)
		if again := need[StartVM](w); again.ID != s.ID || again.UUID != s.UUID {
			t.Fatalf("id %d uuid %x, were %d %x", again.ID, again.UUID, s.ID, s.UUID)
		}
	}
}

func TestAdHocRefused(t *testing.T) {
	disk := []vmop.DiskDef{{Path: "/d"}}
	for _, c := range []struct {
		name string
		vm   vmop.Ref
		m    vmop.Definition
		want vmop.Code
	}{
		{"nothing to boot", named("x"), vmop.Definition{MemoryBytes: 1 << 30}, vmop.ErrNothingToBoot},
		{"no name", vmop.Ref{}, vmop.Definition{Disks: disk}, vmop.ErrInvalid},
		{"digits", named("12"), vmop.Definition{Disks: disk}, vmop.ErrInvalid},
		{"id", vmop.Ref{ID: 7}, vmop.Definition{Disks: disk}, vmop.ErrNotFound},
		{"cpus", named("x"), vmop.Definition{Disks: disk, CPUs: 65}, vmop.ErrInvalid},
		{"memory", named("x"), vmop.Definition{Disks: disk, MemoryBytes: 1 << 50}, vmop.ErrInvalid},
		{"disks", named("x"), vmop.Definition{Disks: []vmop.DiskDef{{Path: "/1"}, {Path: "/2"}, {Path: "/3"}, {Path: "/4"}, {Path: "/5"}}}, vmop.ErrInvalid},
		{"format", named("x"), vmop.Definition{Disks: []vmop.DiskDef{{Path: "/d", Format: "vmdk"}}}, vmop.ErrInvalid},
		{"interfaces", named("x"), vmop.Definition{Disks: disk, NICCount: 5}, vmop.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.wantCode(w.ask(user(0), vmop.Start, vmop.StartRequest{VM: c.vm, Define: &c.m}), c.want)
			forbid[StartVM](w)
			if len(w.r.All()) != 0 || len(w.r.known) != 0 {
				t.Fatal("something is left of a refused definition")
			}
		})
	}
}

func TestInstances(t *testing.T) {
	parent := def("p", owned(900), group(90), func(d *config.VM) {
		d.CDROM = "/cd"
		d.NICs[0] = config.NIC{Switch: "s", MAC: [6]byte{2, 2, 2, 2, 2, 2}, Tap: "tap3"}
		d.Allow = config.Allow{Options: config.AllowDisk, Owner: config.Owner{UID: 1001}, HasOwner: true}
	})
	disk := &vmop.Definition{Disks: []vmop.DiskDef{{Path: "/mine"}}}
	for _, c := range []struct {
		name  string
		who   vmop.Peer
		m     *vmop.Definition
		files []string
		want  vmop.Code
	}{
		{"allowed", user(1001), disk, []string{"disk0"}, vmop.OK},
		{"root", user(0), &vmop.Definition{MemoryBytes: 1 << 30}, nil, vmop.OK},
		{"nothing said", user(1001), nil, nil, vmop.OK},
		{"stranger", user(1002), disk, []string{"disk0"}, vmop.ErrInstance},
		{"owner of the parent", user(900), disk, []string{"disk0"}, vmop.ErrInstance},
		{"memory", user(1001), &vmop.Definition{MemoryBytes: 1 << 30}, nil, vmop.ErrPermission},
		{"parent's disk", user(1001), &vmop.Definition{Disks: []vmop.DiskDef{{Path: "/p"}}}, []string{"disk0"}, vmop.ErrShared},
		{"path without descriptor", user(1001), disk, nil, vmop.ErrInvalid},
		// What they may not choose they may not give either.
		{"kernel without path", user(1001), nil, []string{"kernel"}, vmop.ErrInvalid},
		{"initrd without path", user(1001), disk, []string{"disk0", "initrd"}, vmop.ErrInvalid},
		{"CD without path", user(1001), nil, []string{"cdrom"}, vmop.ErrInvalid},
		{"one disk more", user(1001), disk, []string{"disk0", "disk1"}, vmop.ErrInvalid},
		{"root too", user(0), nil, []string{"kernel"}, vmop.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.configure(parent)
			a := w.ask(c.who, vmop.Start, vmop.StartRequest{VM: named("i"), Template: "p", Define: c.m, Files: c.files})
			if c.want != vmop.OK {
				w.wantCode(a, c.want)
				if w.has("i") {
					t.Fatal("registered all the same")
				}
				return
			}
			s := need[StartVM](w)
			if n := s.Def.NICs[0]; n.Switch != "s" || n.Tap != "" || n.MAC == parent.NICs[0].MAC || n.MAC == ([6]byte{}) {
				t.Errorf("interface %+v", n)
			}
			if s.Def.Boot != "/k" || s.Def.CDROM != "/cd" {
				t.Errorf("definition %+v", s.Def)
			}
			want := config.Owner{UID: c.who.UID, GID: 90, HasGID: true}
			if c.who.UID == 0 {
				want = parent.Owner
			}
			if s.Def.Owner != want {
				t.Errorf("owner %+v, want %+v", s.Def.Owner, want)
			}
			b := w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("i"), Template: "p"})
			w.wantCode(b, vmop.ErrNameTaken)
		})
	}
}

// TestKernelByOwner: an owner who is not root may bring a kernel for one boot,
// as a descriptor only; a guest reset goes back to the configured one.
func TestKernelByOwner(t *testing.T) {
	w := newWorld(t)
	w.configure(def("x", owned(1001), func(d *config.VM) { d.Initrd, d.Cmdline = "/i", "quiet" }))
	m := vmop.StartRequest{VM: named("x"), Define: &vmop.Definition{Kernel: "/mine", CPUs: 4}}
	w.wantCode(w.ask(user(1001), vmop.Start, m), vmop.ErrInvalid)
	m.Files = []string{"kernel"}
	w.ask(user(1001), vmop.Start, m)
	s := need[StartVM](w)
	if s.Def.Boot != "/mine" || s.Def.Initrd != "" || s.Def.Cmdline != "" || s.Def.CPUs != 4 || len(s.Files) != 1 {
		t.Fatalf("%+v", s)
	}
	w.event("x", vmop.EventStarted)
	w.now += time.Minute
	w.event("x", vmop.EventReset)
	s = need[StartVM](w)
	if s.Def.Boot != "/k" || s.Def.Initrd != "/i" || s.Def.Cmdline != "quiet" || s.Def.CPUs != 4 || len(s.Files) != 0 || !s.Again {
		t.Fatalf("after the reset: %+v", s)
	}
	w.event("x", vmop.EventStarted)
	w.event("x", vmop.EventPoweroff)
	w.ask(user(1001), vmop.Start, vmop.StartRequest{VM: named("x")})
	if s = need[StartVM](w); s.Def.CPUs != 1 {
		t.Fatalf("CPUs of the boot before: %+v", s.Def)
	}
}

func TestAdHocKernelAfterReset(t *testing.T) {
	for _, c := range []struct {
		disks []vmop.DiskDef
		boot  string
		files int
	}{
		{nil, "/k", 2}, // nothing else to boot from
		{[]vmop.DiskDef{{Path: "/d"}}, "", 1},
	} {
		w := newWorld(t)
		files := []string{"kernel", "initrd"}
		if c.disks != nil {
			files = []string{"kernel", "initrd", "disk0"}
		}
		w.ask(user(0), vmop.Start, vmop.StartRequest{VM: named("x"), Define: &vmop.Definition{Kernel: "/k", Initrd: "/i", Disks: c.disks}, Files: files})
		w.event("x", vmop.EventStarted)
		w.now += time.Minute
		w.event("x", vmop.EventReset)
		if s := need[StartVM](w); s.Def.Boot != c.boot || len(s.Files) != c.files {
			t.Fatalf("%v: boot %q files %v", c.disks, s.Def.Boot, s.Files)
		}
	}
}

// The owner of a VM may give it another kernel for one boot, but no other disk.
func TestDescriptorInPlaceOfADisk(t *testing.T) {
	for _, name := range []string{"disk0", "cdrom", "kernel", "initrd"} {
		w := newWorld(t)
		w.configure(def("x", owned(1001)))
		w.wantCode(w.ask(user(1001), vmop.Start, vmop.StartRequest{VM: named("x"), Files: []string{name}}), vmop.ErrInvalid)
		w.ask(user(1001), vmop.Start, vmop.StartRequest{VM: named("x"), Define: &vmop.Definition{Kernel: "/k"}, Files: []string{"kernel"}})
		if _, ok := find[StartVM](w); !ok {
			t.Error("not started with a kernel of the owner's")
		}
	}
}

// Who may make instances can still not make as many as they like.
func TestInstancesWithoutEnd(t *testing.T) {
	w := newWorld(t)
	w.configure(def("p", func(d *config.VM) {
		d.Allow = config.Allow{Owner: config.Owner{GID: 90, HasGID: true}, HasOwner: true}
	}))
	instance := func(who vmop.Peer, i int) Asker {
		return w.ask(who, vmop.Start, vmop.StartRequest{VM: named(fmt.Sprintf("u%d-%d", who.UID, i)), Template: "p"})
	}
	for i := range maxInstances {
		instance(user(1001, 90), i)
		if _, ok := find[StartVM](w); !ok {
			t.Fatalf("instance %d was not started", i)
		}
	}
	w.wantCode(instance(user(1001, 90), maxInstances), vmop.ErrBusy)
	for _, who := range []vmop.Peer{user(1002, 90), user(0)} {
		instance(who, 0)
		if _, ok := find[StartVM](w); !ok {
			t.Errorf("user %d is kept from what they may", who.UID)
		}
	}
	w.event("u1001-7", vmop.EventFailed) // which makes room
	instance(user(1001, 90), maxInstances)
	if _, ok := find[StartVM](w); !ok {
		t.Error("there is room again, and it is not given")
	}
}
