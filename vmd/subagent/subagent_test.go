package subagent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
	"vmd/mib"
)

func web() vmop.VM {
	return vmop.VM{
		ID: 3, Name: "web", UUID: [16]byte{1, 15: 9}, State: vmop.Running, Admin: vmop.AdminRunning,
		Autostart: true, Persistent: true, CPUs: 2, MemoryBytes: 512 << 20, Started: int64(time.Hour),
		Disks: []vmop.Disk{{Path: "/var/vm/web.qcow2", Format: "qcow2", Size: 20 << 30, Used: 1 << 30}},
		NICs:  []vmop.NIC{{MAC: [6]byte{2, 0, 0, 0, 0, 1}, Tap: "tap3", IfIndex: 17, BridgeIndex: 5}},
		Past: vmop.Totals{CPU: 7, VCPU: []uint64{3, 4}, Disks: []vmop.DiskTotals{
			{ReadOps: 1, WriteOps: 2, ReadBytes: 3, WriteBytes: 4, ReadNanos: 5, WriteNanos: 6}}},
	}
}

func TestRecord(t *testing.T) {
	m := &machine{vm: web()}
	got, err := m.record()
	if err != nil {
		t.Fatal(err)
	}
	want := &mib.VM{
		Index: 3, Name: "web", UUID: [16]byte{1, 15: 9}, Admin: mib.AdminRunning, Oper: mib.OperRunning,
		AutoStart: mib.AutoStartEnabled, Persistent: mib.PersistentYes, CPUs: 2, Memory: 512 << 20, Started: time.Hour,
		Disks: []mib.Disk{{Source: mib.SourceSparse, SourceName: "qcow2", Path: "/var/vm/web.qcow2",
			Access: mib.AccessReadWrite, Media: mib.MediaHard, MediaName: "virtio-blk", Defined: 20 << 30, Allocated: 1 << 30}},
		NICs: []mib.NIC{{IfIndex: 17, Parent: 5, Model: "virtio", MAC: []byte{2, 0, 0, 0, 0, 1}}},
		Base: mib.Totals{CPUTime: 7, VCPUs: []uint64{3, 4}, Disks: []mib.DiskCounters{{
			ReadOps: 1, WriteOps: 2, ReadBytes: 3, WriteBytes: 4, ReadWait: 5, WriteWait: 6}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("record (-want +got):\n%s", d)
	}
}

func TestStates(t *testing.T) {
	for state, want := range map[vmop.State]mib.OperState{
		vmop.Stopped: mib.OperShutdown, vmop.Waiting: mib.OperShutdown, vmop.Starting: mib.OperShutdown,
		vmop.Running: mib.OperRunning, vmop.Paused: mib.OperPaused, vmop.Stopping: mib.OperShuttingDown,
		vmop.Crashed: mib.OperCrashed, vmop.Migrating: mib.OperMigrating, vmop.Migrating + 1: mib.OperUnknown,
	} {
		if got := operState(&vmop.VM{State: state}); got != want {
			t.Errorf("%v is %d, want %d", state, got, want)
		}
	}
	if got := operState(&vmop.VM{State: vmop.Starting, Receiving: true}); got != mib.OperMigrating {
		t.Errorf("a VM that is being received is %d", got)
	}
	for admin, want := range map[vmop.Admin]mib.AdminState{
		vmop.AdminShutdown: mib.AdminShutdown, vmop.AdminRunning: mib.AdminRunning,
		vmop.AdminPaused: mib.AdminPaused, 9: mib.AdminShutdown,
	} {
		if got := adminState(admin); got != want {
			t.Errorf("admin state %d is %d, want %d", admin, got, want)
		}
	}
}

func TestDisks(t *testing.T) {
	cases := []struct {
		in   vmop.Disk
		want mib.Disk
	}{
		{vmop.Disk{Format: "raw"}, mib.Disk{Source: mib.SourceRaw, SourceName: "raw", Access: mib.AccessReadWrite, Media: mib.MediaHard, MediaName: "virtio-blk"}},
		{vmop.Disk{Format: "block", ReadOnly: true}, mib.Disk{Source: mib.SourceBlock, SourceName: "block", Access: mib.AccessReadOnly, Media: mib.MediaHard, MediaName: "virtio-blk"}},
		{vmop.Disk{Format: "raw", CDROM: true}, mib.Disk{Source: mib.SourceRaw, SourceName: "raw", Access: mib.AccessReadOnly, Media: mib.MediaOptical, MediaName: "virtio-scsi"}},
		{vmop.Disk{Format: "new"}, mib.Disk{Source: mib.SourceOther, SourceName: "new", Access: mib.AccessReadWrite, Media: mib.MediaHard, MediaName: "virtio-blk"}},
	}
	for _, c := range cases {
		if got := disk(&c.in); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestHost(t *testing.T) {
	h := host(vmop.SNMPConfig{Started: 1000, Changed: 1500, Version: "1.0", CPUs: []int32{0, 2}})
	if h.Start != 1000 || h.LastChange != 500 || h.Version != "1.0" || len(h.PhysCPUs) != 2 {
		t.Errorf("host %+v", h)
	}
	if h := host(vmop.SNMPConfig{Started: 1000}); h.LastChange != 0 || len(h.PhysCPUs) != runtime.NumCPU() {
		t.Errorf("host without changes: %+v", h)
	}
	if _, err := (&machine{vm: vmop.VM{ID: math.MaxInt32 + 1}}).record(); err == nil {
		t.Error("an id above the MIB's range is taken")
	}
}

// newPage is the counter page of a VM process: what it writes, and what the
// others read.
func newPage(t testing.TB) (*counters.Page, *os.File) {
	t.Helper()
	f, err := counters.Create("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p, err := counters.Map(f)
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

// share returns another descriptor of f, for a message to take.
func share(t testing.TB, f *os.File) *os.File {
	t.Helper()
	g, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestRun(t *testing.T) {
	page, f := newPage(t)
	r, err := openRun(f, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	atomic.StoreUint64(&page.VCPU[1], 42)
	atomic.StoreUint64(&page.Disk[0].WriteNS, 43)
	if r.VCPUTime(1) != 42 || r.Disk(0).WriteWait != 43 || r.VCPUTime(1<<30) != 0 || r.Disk(-1) != (mib.DiskCounters{}) {
		t.Errorf("vcpu %d, disk %+v", r.VCPUTime(1), r.Disk(0))
	}
	was := r.CPUTime()
	if was == 0 {
		t.Error("no CPU time of a process that runs")
	}
	r.pid = math.MaxInt32 // it ends
	if got := r.CPUTime(); got < was {
		t.Errorf("CPU time %d of a process that is gone, was %d", got, was)
	}
	if m := affinity(os.Getpid(), 2); len(m) != 2 {
		t.Errorf("masks of a process: %v", m)
	}
	if m := affinity(math.MaxInt32, 2); m != nil {
		t.Errorf("masks of a process that is gone: %v", m)
	}
	junk, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer junk.Close()
	if _, err := openRun(junk, 1); err == nil {
		t.Error("a file that is no counter page is taken")
	}
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop := privsep.NewLoop()
		emitted := make(chan []mib.Event, 10)
		w := window{loop: loop, emit: func(e []mib.Event) { emitted <- e }}
		done := make(chan error)
		go func() { done <- loop.Run() }()
		change := func(index int32, now mib.OperState) {
			loop.Post(func() { w.add(mib.Event{VM: &mib.VM{Index: index}, Left: mib.OperShutdown, Now: now}) })
			synctest.Wait()
		}
		change(1, mib.OperRunning)
		time.Sleep(windowTime / 2)
		change(2, mib.OperRunning)
		change(1, mib.OperPaused)
		change(1, mib.OperRunning) // flapping: the list has it already
		time.Sleep(windowTime/2 - 1)
		synctest.Wait()
		if len(emitted) != 0 {
			t.Error("a window before the second is over")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		change(3, mib.OperRunning)
		time.Sleep(windowTime)
		synctest.Wait()
		if len(emitted) != 2 {
			t.Fatalf("%d windows, want 2", len(emitted))
		}
		if one, two := <-emitted, <-emitted; len(one) != 3 || len(two) != 1 || two[0].VM.Index != 3 {
			t.Errorf("windows %+v, %+v", one, two)
		}
		change(4, mib.OperRunning)
		loop.Post(w.clear)
		time.Sleep(2 * windowTime)
		synctest.Wait()
		if len(emitted) != 0 {
			t.Error("a window that was cleared is sent")
		}
		loop.Stop(nil)
		<-done
	})
}

// role is the role in this process, with the test as its parent.
type role struct {
	t      *testing.T
	server *server
	parent *imsg.Conn
	done   chan error
}

func startRole(t *testing.T) *role {
	t.Helper()
	a, b, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	mine, err := imsg.New(a)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := imsg.New(b)
	if err != nil {
		t.Fatal(err)
	}
	r := &role{t: t, parent: mine, done: make(chan error, 1)}
	r.server = newServer(&privsep.Process{Parent: theirs, Loop: privsep.NewLoop(), Log: zerolog.Nop()})
	go func() { r.done <- r.server.run() }()
	t.Cleanup(func() {
		mine.Close()
		if err := <-r.done; err != nil {
			t.Errorf("role: %v", err)
		}
	})
	return r
}

func (r *role) send(kind vmop.Type, id uint64, v any, files ...*os.File) {
	r.t.Helper()
	if err := r.parent.Send(uint16(kind), id, v, files...); err != nil {
		r.t.Fatal(err)
	}
}

// look runs f on the role's loop, after everything that was sent before.
func (r *role) look(f func(*server)) {
	r.t.Helper()
	r.send(vmop.SetLog, 0, vmop.LogRequest{})
	// Messages are handled in order; wait until this one is.
	level := zerolog.Disabled
	for level == zerolog.Disabled {
		seen := make(chan zerolog.Level)
		r.server.loop.Post(func() {
			level := r.server.log.GetLevel()
			if level != zerolog.Disabled {
				r.server.setLog(zerolog.Nop())
				f(r.server)
			}
			seen <- level
		})
		level = <-seen
		runtime.Gosched()
	}
}

func (r *role) dialRequest() uint64 {
	r.t.Helper()
	m, err := r.parent.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	defer m.Close()
	if vmop.Type(m.Type) != vmop.SNMPDial || m.ID == 0 {
		r.t.Fatalf("message %d, id %d, want a dial", m.Type, m.ID)
	}
	return m.ID
}

func TestRecordsReachTheStore(t *testing.T) {
	r := startRole(t)
	page, f := newPage(t)
	vm := web()
	vm.PID = os.Getpid()
	r.send(vmop.SNMPSetup, 0, vmop.SNMPConfig{PerVM: true})
	r.send(vmop.SNMPPut, 0, vm, share(t, f))
	r.send(vmop.SNMPPut, 0, vmop.VM{ID: 1 << 31})
	r.send(vmop.SNMPLoaded, 0, nil)
	reads := append(mib.Root(), 1, 7, 1, 13, 3, 1)
	get := func() (n uint64) {
		r.look(func(s *server) { n = s.store.View().Get(reads).Number })
		return n
	}
	atomic.StoreUint64(&page.Disk[0].ReadOps, 10)
	if n := get(); n != 11 {
		t.Errorf("%d reads, want 1 of the past and 10 of this run", n)
	}
	vm.State = vmop.Paused
	r.send(vmop.SNMPPut, 0, vm) // the same run: no page comes along
	atomic.StoreUint64(&page.Disk[0].ReadOps, 20)
	if n := get(); n != 21 {
		t.Errorf("%d reads, want 21", n)
	}
	vm.State, vm.Admin, vm.PID = vmop.Stopped, vmop.AdminShutdown, 0
	vm.Past.Disks[0].ReadOps = 21
	r.send(vmop.SNMPPut, 0, vm)
	if n := get(); n != 21 {
		t.Errorf("%d reads when stopped, want 21", n)
	}
	r.send(vmop.SNMPDelete, 0, vmop.VMID{ID: 3})
	r.look(func(s *server) {
		if n := s.store.Snapshot().Len(); n != 0 {
			t.Errorf("%d VMs, want none", n)
		}
	})
}

func TestMessagesInError(t *testing.T) {
	r := startRole(t)
	r.send(vmop.SNMPDelete, 0, vmop.VMID{ID: 3}) // before there is a store
	r.send(vmop.SNMPLoaded, 0, nil)              // without a setup: switched off
	r.send(vmop.SNMPSetup, 0, "text")
	r.send(vmop.SNMPPut, 0, nil)
	r.send(vmop.SNMPDelete, 0, vmop.VMID{})
	r.send(vmop.Type(9999), 0, nil)
	vm := web()
	vm.CPUs = 1 << 40
	r.send(vmop.SNMPPut, 0, vm)
	vm.CPUs = 1
	r.send(vmop.SNMPPut, 0, vm)
	r.look(func(s *server) {
		if n := s.store.Snapshot().Len(); n != 1 || s.session != nil {
			t.Errorf("%d VMs, session %v", n, s.session)
		}
	})
}

// socket is a connection as parent makes one: a descriptor, and our end of it.
func socket(t *testing.T) (net.Conn, *os.File) {
	t.Helper()
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	mine, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mine.Close() })
	return mine, f
}

// wantOpen reads the beginning of a session.
func wantOpen(t *testing.T, c net.Conn) {
	t.Helper()
	head := make([]byte, 20)
	if _, err := c.Read(head); err != nil || head[1] != 1 {
		t.Errorf("first octets % x, %v; want an Open", head, err)
	}
}

func TestParentDials(t *testing.T) {
	r := startRole(t)
	on := vmop.SNMPConfig{Enabled: true, Path: "/run/agentx"}
	r.send(vmop.SNMPSetup, 0, on)
	r.send(vmop.SNMPLoaded, 0, nil)
	id := r.dialRequest()
	failed := on
	failed.Detail = "no such file"
	r.send(vmop.SNMPSetup, id+1, on) // somebody else's: ignored
	r.send(vmop.SNMPSetup, id, failed)
	id = r.dialRequest() // half a second later
	c, f := socket(t)
	r.send(vmop.SNMPSetup, id, on, f)
	wantOpen(t, c)

	other := on
	other.Path = "/run/other" // the session ends, another begins
	r.send(vmop.SNMPSetup, 0, other)
	id = r.dialRequest()
	d, f := socket(t)
	r.send(vmop.SNMPSetup, id, other, f)
	wantOpen(t, d)

	other.Enabled = false
	r.send(vmop.SNMPSetup, 0, other)
	buf := make([]byte, 100)
	for { // Close, then the end
		if _, err := d.Read(buf); err != nil {
			break
		}
	}
	r.look(func(s *server) {
		if s.session != nil {
			t.Error("a session although it is switched off")
		}
	})
}

// A connection that comes when nobody waits for it any more is closed.
func TestLateDial(t *testing.T) {
	r := startRole(t)
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error)
	go func() {
		_, err := r.server.dial(ctx)
		failed <- err
	}()
	id := r.dialRequest()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("dial returns %v", err)
	}
	c, f := socket(t)
	r.send(vmop.SNMPSetup, id, vmop.SNMPConfig{}, f)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
	r.look(func(s *server) {
		if len(s.dials.waiting) != 0 {
			t.Errorf("%d dials wait", len(s.dials.waiting))
		}
	})
}

func TestSwitchesSurviveAReload(t *testing.T) {
	r := startRole(t)
	c := vmop.SNMPConfig{PerVM: true}
	r.send(vmop.SNMPSetup, 0, c)
	r.send(vmop.SNMPLoaded, 0, nil)
	want := func(when string, w mib.Switches) {
		t.Helper()
		r.look(func(s *server) {
			if got := s.store.Switches(); got != w {
				t.Errorf("%s: %+v, want %+v", when, got, w)
			}
		})
	}
	want("at start", mib.Switches{PerVM: true})
	r.look(func(s *server) {
		name := append(mib.Root(), 1, 10, 0)
		set, err := s.store.Test([]mib.VarBind{{Name: name, Value: mib.Value{Type: mib.TypeInteger, Number: 1}}})
		if err != nil {
			t.Error(err)
			return
		}
		set.Commit()
	})
	c.Version = "2"
	r.send(vmop.SNMPSetup, 0, c)
	want("after a reload", mib.Switches{PerVM: true, Bulk: true})
	c.PerVM = false
	r.send(vmop.SNMPSetup, 0, c)
	want("after a change of the configuration", mib.Switches{})
}
