package parent

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// socket is a stream socket for a request, and its other end.
func socket(t *testing.T) (theirs, ours *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours = os.NewFile(uintptr(fds[1]), "ours")
	t.Cleanup(func() { ours.Close() })
	return os.NewFile(uintptr(fds[0]), "theirs"), ours
}

func TestSend(t *testing.T) {
	v := vmDef(t, "x")
	d := newDaemon(t, []config.VM{v})
	g := d.up("x")
	theirs, ours := socket(t)
	id := d.ask(0, vmop.Send, vmop.SendRequest{VM: vmNamed("x"), MaxPause: 70, WithDisks: true}, theirs)
	m := d.expect("vmm", vmop.VMSend)
	r := decoded[vmop.VMSendRequest](d, m)
	if r.ID != 1 || r.MaxPause != 70 || !r.Guest.WithDisks || r.Guest.Name != "x" || len(m.Files) != 1 ||
		len(r.Guest.Disks) != 1 || r.Guest.Disks[0].Path != v.Disks[0].Path {
		t.Errorf("vmm is asked for %+v", r)
	}
	m.Close()
	d.wantClosed(ours) // nobody else had kept the stream
	d.until("x", is(vmop.Migrating))
	d.event(vmop.Event{ID: 1, Kind: vmop.EventSent, Pause: 42})
	if stop := decoded[vmop.VMStopRequest](d, d.expect("vmm", vmop.VMStop)); !stop.Force {
		t.Error("its process is not ended")
	}
	var saved savedState
	if err := loadAs(d.p, &saved); err != nil || len(saved.Runs) != 1 || !saved.Runs[0].Sent {
		d.eventually("it is written down", func() bool {
			return loadAs(d.p, &saved) == nil && len(saved.Runs) == 1 && saved.Runs[0].Sent
		})
	}
	g.close()
	d.event(vmop.Event{ID: 1, Kind: vmop.EventKilled})
	if res, _ := d.result(id, vmop.OK); res.Pause != 42 {
		t.Errorf("answer %+v", res)
	}
	d.wantNothingLeft(v.Disks[0].Path)
}

// A client that leaves ends what it began.
func TestSenderLeaves(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	d.up("x")
	theirs, _ := socket(t)
	d.ask(0, vmop.Send, vmop.SendRequest{VM: vmNamed("x")}, theirs)
	m := d.expect("vmm", vmop.VMSend)
	m.Close()
	d.send("control", vmop.ClientGone, 0, vmop.ClientID{Client: 7})
	d.expect("vmm", vmop.VMAbort)
	d.event(vmop.Event{ID: 1, Kind: vmop.EventSendFailed, Code: vmop.ErrSend, State: vmop.Running})
	d.until("x", is(vmop.Running))
}

// Without vmm there is nobody to ask; the next one says that it runs on.
func TestSendAndVMMDies(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	d.up("x")
	theirs, ours := socket(t)
	id := d.ask(0, vmop.Send, vmop.SendRequest{VM: vmNamed("x")}, theirs)
	m := d.expect("vmm", vmop.VMSend)
	m.Close()
	d.roles["vmm"].die()
	d.respawned("vmm")
	m = d.expect("vmm", vmop.VMAdopt)
	m.Close()
	var def vmop.VMStartRequest
	d.on(func() { r := d.p.runs[1]; def = vmop.VMStartRequest{ID: 1, Name: "x", UUID: r.uuid} })
	d.send("vmm", vmop.VMHello, 1, vmop.Hello{Definition: def, PID: os.Getpid(), State: vmop.Running})
	d.result(id, vmop.ErrUnavailable)
	d.until("x", is(vmop.Running))
	d.wantClosed(ours)
}

func TestStreamIsASocket(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	d.up("x")
	packets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(packets[1])
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range [][]*os.File{nil, {null}, {os.NewFile(uintptr(packets[0]), "packets")}} {
		d.result(d.ask(0, vmop.Send, vmop.SendRequest{VM: vmNamed("x")}, files...), vmop.ErrInvalid)
	}
	a, _ := socket(t)
	b, _ := socket(t)
	d.result(d.ask(0, vmop.Receive, vmop.ReceiveRequest{Name: "y"}, a, b), vmop.ErrInvalid)
}

// comer is a guest that fits v.
func comer(v *config.VM) vmop.Guest {
	return vmop.Guest{
		Name: "far", UUID: [16]byte{1}, MemoryBytes: v.MemoryBytes, CPUs: 1, Kernel: "/not/here",
		Disks: []vmop.GuestDisk{{Path: v.Disks[0].Path, Format: "raw", Size: 4096, Serial: "far-0"}},
		NICs:  []vmop.GuestNIC{{MAC: [6]byte{2, 5: 9}, MTU: 1400, Queues: 3}},
	}
}

// TestReceive: a guest comes whose disk is still its sender's.
func TestReceive(t *testing.T) {
	v := vmDef(t, "x")
	held, err := diskFile.open(v.Disks[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	d := newDaemon(t, []config.VM{v})
	theirs, ours := socket(t)
	id := d.ask(0, vmop.Receive, vmop.ReceiveRequest{Name: "x", Guest: comer(&v)}, theirs)
	m := d.expect("priv", vmop.TapOpen)
	if req := decoded[vmop.TapRequest](d, m); req.Queues != 3 || req.MAC != [6]byte{2, 5: 9} {
		t.Errorf("tap %+v", req)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{VM: 1, Name: "tap7", IfIndex: 12, MTU: 1500}, w)
	m = d.expect("priv", vmop.TapSetup)
	d.send("priv", vmop.TapReady, m.ID, vmop.TapResult{VM: 1})
	if rec, _ := d.vm("x"); rec.State != vmop.Starting || !rec.Receiving {
		t.Errorf("meanwhile it is %+v", rec)
	}
	g := d.started(os.Getpid())
	want := []string{"stream", "kvm", "disk0", "tty", "ttyslave", "listen", "tap0"}
	if !slices.Equal(g.req.Files, want) {
		t.Errorf("descriptors %q, want %q", g.req.Files, want)
	}
	if g.req.Receive == nil || g.req.Receive.Kernel != "/not/here" || g.req.UUID != [16]byte{1} || g.req.Disks[0].Serial != "far-0" {
		t.Errorf("definition %+v", g.req)
	}
	d.result(id, vmop.OK)
	g.close()
	d.wantClosed(ours)
	d.event(vmop.Event{ID: 1, Kind: vmop.EventPoweroff})
	d.until("x", is(vmop.Stopped))
	held.Close()
	d.wantNothingLeft(v.Disks[0].Path, r)
}

// TestReceiveDisks: disks that come along are made, and go if their guest does
// not come.
func TestReceiveDisks(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		for _, comes := range []bool{true, false} {
			v := vmDef(t, "tmpl")
			guest := comer(&v)
			guest.WithDisks = true
			guest.Disks[0].Format, guest.Disks[0].Size = format, 3<<20
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "new")
			d := newDaemon(t, nil)
			theirs, _ := socket(t)
			id := d.ask(0, vmop.Receive, vmop.ReceiveRequest{Name: "y", Guest: guest, Disks: []string{path}}, theirs)
			taps := d.taps(1)
			g := d.launched()
			if f := g.files["disk0"]; !sameFile(t, f, path) {
				t.Error("its disk is another file")
			} else if h, err := imageHeader(f); format == "qcow2" && (err != nil || h.Size != 3<<20) {
				t.Errorf("made %+v, %v", h, err)
			} else if st, _ := f.Stat(); st.Mode().Perm() != 0o600 || format == "raw" && st.Size() != 3<<20 {
				t.Errorf("made %v of %d bytes", st.Mode(), st.Size())
			}
			if _, err := diskFile.open(path); codeOf(err) != vmop.ErrDiskLocked {
				t.Errorf("it is not locked: %v", err)
			}
			g.close()
			e := vmop.Event{ID: g.req.ID, Kind: vmop.EventFailed, Code: vmop.ErrStream, Detail: "the stream ended too early"}
			if comes {
				e = vmop.Event{ID: g.req.ID, Kind: vmop.EventStarted, PID: os.Getpid()}
			}
			d.event(e)
			if comes {
				d.result(id, vmop.OK)
				d.event(vmop.Event{ID: g.req.ID, Kind: vmop.EventPoweroff})
				d.until("y", deleted)
			} else {
				d.result(id, vmop.ErrStream)
			}
			if _, err := os.Stat(path); (err == nil) != comes {
				t.Errorf("%s, comes %v: %v", format, comes, err)
			}
			if comes {
				d.wantNothingLeft(path, taps...)
			}
		}
	}
}

// A disk that is there is never written over, nor taken away.
func TestReceiveDiskExists(t *testing.T) {
	v := vmDef(t, "tmpl")
	guest := comer(&v)
	guest.WithDisks = true
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	old := tempFile(t, "precious")
	d := newDaemon(t, nil)
	for _, path := range []string{old, link, "/no/such/dir/x"} {
		theirs, ours := socket(t)
		res, _ := d.result(d.ask(0, vmop.Receive, vmop.ReceiveRequest{Name: "y", Guest: guest, Disks: []string{path}}, theirs), vmop.ErrDisk)
		if !strings.Contains(res.Detail, path) {
			t.Errorf("detail %q", res.Detail)
		}
		d.wantClosed(ours)
	}
	if b, err := os.ReadFile(old); string(b) != "precious" {
		t.Errorf("it is %q, %v now", b, err)
	}
}

func TestReceiveNoDisk(t *testing.T) {
	v := vmDef(t, "tmpl")
	guest := comer(&v)
	guest.Disks[0].Path = "/no/such/disk"
	d := newDaemon(t, nil)
	theirs, ours := socket(t)
	res, _ := d.result(d.ask(0, vmop.Receive, vmop.ReceiveRequest{Name: "y", Guest: guest}, theirs), vmop.ErrDisk)
	if !strings.Contains(res.Detail, "/no/such/disk") {
		t.Errorf("detail %q", res.Detail)
	}
	d.wantClosed(ours)
	if _, ok := d.vm("y"); ok {
		t.Error("the VM is still there")
	}
}

// FuzzReceive: whatever a guest claims to be, what is started of it is a whole
// definition that fits it.
func FuzzReceive(f *testing.F) {
	v := config.VM{Name: "x", Boot: "/nowhere", Disks: []config.Disk{{Path: "/d"}}, NICs: make([]config.NIC, 1)}
	v.SetDefaults()
	g := comer(&v)
	odd := g
	odd.Disks, odd.NICs, odd.CDROM = nil, nil, "/cd"
	for _, r := range []vmop.ReceiveRequest{
		{Name: "x", Guest: g}, {Name: "y", Guest: g, Disks: []string{"/other"}}, {Name: "y", Guest: odd}, {},
	} {
		raw, err := imsg.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		body, err := decode(vmop.Receive, raw)
		if err != nil {
			return
		}
		reg := registry.New(registry.State{}, rand.Reader)
		reg.Step(0, registry.Configure{VMs: []config.VM{v}, Parallel: 1})
		started := false
		for _, a := range reg.Step(1, registry.Request{From: registry.Asker{Client: 1, Request: 1}, Type: vmop.Receive, Body: body}) {
			s, ok := a.(registry.StartVM)
			if !ok {
				continue
			}
			started = true
			if err := s.Def.Validate(); err != nil {
				t.Errorf("started with a definition that is none: %v", err)
			}
			if s.Receive == nil || len(s.Receive.Disks) != len(s.Def.Disks) || len(s.Receive.NICs) != len(s.Def.NICs) {
				t.Errorf("%+v does not fit %+v", s.Receive, s.Def)
			}
		}
		if n := len(reg.Alive()); started != (n == 1) {
			t.Errorf("started %v, and %d run", started, n)
		}
	})
}
