package parent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vmd/hv/sev"
	"vmd/internal/vmop"
	"vmd/net/addr"
	"vmd/vmd/config"
)

// TestStart is the road of one VM, from a client's request until it is gone.
func TestStart(t *testing.T) {
	v := vmDef(t, "web", func(v *config.VM) {
		v.Owner = config.Owner{UID: 4242}
		v.NICs = []config.NIC{{Local: true, Locked: true}}
	})
	d := newDaemon(t, []config.VM{v}, func(p *parent) { p.cfg.LocalPrefix = defaultPrefix })
	id := d.ask(4242, vmop.Start, vmop.StartRequest{VM: vmNamed("web")})
	m := d.expect("priv", vmop.TapOpen)
	req := decoded[vmop.TapRequest](d, m)
	if req.Alias != "vm1-if0-web" || req.Address4 != "100.64.1.2/31" || !req.Locked || req.MAC == [6]byte{} {
		t.Errorf("tap %+v", req)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{VM: 1, Name: "tap7", IfIndex: 12, MTU: 1400, MAC: [6]byte{2, 2}}, w)
	m = d.expect("priv", vmop.TapSetup)
	if req := decoded[vmop.TapRequest](d, m); req.Name != "tap7" {
		t.Errorf("set up %+v", req)
	}
	d.nothing("vmm", vmop.VMStart) // not before its network is ready
	d.send("priv", vmop.TapReady, m.ID, vmop.TapResult{VM: 1})

	g := d.started(os.Getpid())
	want := []string{"kvm", "kernel", "disk0", "tty", "ttyslave", "listen", "tap0"}
	if !slices.Equal(g.req.Files, want) {
		t.Errorf("descriptors %q, want %q", g.req.Files, want)
	}
	if n := g.req.NICs[0]; n.MTU != 1400 || n.HostMAC != [6]byte{2, 2} || n.Local == nil || n.Local.Guest != [4]byte{100, 64, 1, 3} || n.Local.HostName != "web" {
		t.Errorf("interface %+v", n)
	}
	if g.req.Cmdline != "quiet" || g.req.MemoryBytes != 64<<20 || g.req.UID != 999 {
		t.Errorf("definition %+v", g.req)
	}
	res, _ := d.result(id, vmop.OK)
	if res.ID != 1 || res.Name != "web" || !strings.HasPrefix(res.TTY, "/dev/pts/") {
		t.Errorf("result %+v", res)
	}
	rec, _ := d.vm("web")
	if rec.State != vmop.Running || rec.NICs[0].Tap != "tap7" || rec.NICs[0].IfIndex != 12 || rec.NICs[0].Address != "100.64.1.3" || rec.TTY != res.TTY {
		t.Errorf("record %+v", rec)
	}
	if _, err := diskFile.open(v.Disks[0].Path); codeOf(err) != vmop.ErrDiskLocked {
		t.Errorf("its disk is not locked: %v", err)
	}
	d.wantPage("web")

	g.close()
	d.event(vmop.Event{ID: 1, Kind: vmop.EventPoweroff, CPU: 77})
	d.until("web", is(vmop.Stopped))
	if rec, _ := d.vm("web"); rec.Past.CPU != 77 {
		t.Errorf("counters of the run: %+v", rec.Past)
	}
	d.wantNothingLeft(v.Disks[0].Path, r)
}

// wantPage waits for agentx to be given a VM's counter page.
func (d *daemon) wantPage(name string) {
	d.t.Helper()
	for {
		m := d.expect("agentx", vmop.SNMPPut)
		v := decoded[vmop.VM](d, m)
		if v.Name == name && len(m.Files) == 1 {
			m.Close()
			return
		}
		if v.Name == name && v.State == vmop.Running {
			d.t.Fatalf("%s runs without a counter page", name)
		}
	}
}

// TestStartFailures: whichever step fails, the client is told which, and nothing
// is left half done.
func TestStartFailures(t *testing.T) {
	other := disk(t)
	for _, c := range []struct {
		name   string
		want   vmop.Code
		detail string
		edit   func(*config.VM)
		host   func(*parent)
		play   func(*daemon) []*os.File // until the start has failed; the taps made
	}{
		{name: "no KVM", want: vmop.ErrHypervisor, detail: "/dev/kvm", host: func(p *parent) {
			p.host.openKVM = func() (*os.File, error) { return nil, &os.PathError{Op: "open", Path: "/dev/kvm", Err: os.ErrNotExist} }
		}},
		{name: "no SEV", want: vmop.ErrSEV, detail: "/dev/sev", edit: func(v *config.VM) { v.SEV = true }, host: func(p *parent) {
			p.host.openSEV = func(sev.Kind) (*os.File, error) {
				return nil, &os.PathError{Op: "open", Path: "/dev/sev", Err: os.ErrNotExist}
			}
		}},
		{name: "SEV in too little memory", want: vmop.ErrSEV, detail: "memory-high", edit: func(v *config.VM) {
			v.SEV, v.Limits.MemoryHigh = true, 32<<20
		}},
		{name: "memory", want: vmop.ErrMemory, detail: "MiB", edit: func(v *config.VM) { v.MemoryBytes = 2 << 30 }},
		{name: "kernel", want: vmop.ErrKernel, detail: "/no/kernel", edit: func(v *config.VM) { v.Boot = "/no/kernel" }},
		{name: "initrd", want: vmop.ErrKernel, detail: "/no/initrd", edit: func(v *config.VM) { v.Initrd = "/no/initrd" }},
		{name: "cdrom", want: vmop.ErrCDROM, detail: "/no/cd", edit: func(v *config.VM) { v.CDROM = "/no/cd" }},
		{name: "disk", want: vmop.ErrDisk, detail: "/no/disk", edit: func(v *config.VM) { v.Disks = append(v.Disks, config.Disk{Path: "/no/disk"}) }},
		{name: "locked disk", want: vmop.ErrDiskLocked, detail: other, edit: func(v *config.VM) { v.Disks = append(v.Disks, config.Disk{Path: other}) }},
		{name: "no qcow2", want: vmop.ErrDisk, detail: "qcow2", edit: func(v *config.VM) { v.Disks[0].Format = config.FormatQcow2 }},
		{name: "tty", want: vmop.ErrInternal, detail: "no ptys", host: func(p *parent) {
			p.host.openTTY = func(*config.Owner) (*tty, error) { return nil, errors.New("no ptys") }
		}},
		{name: "socket", want: vmop.ErrInternal, detail: "socket", host: func(p *parent) {
			os.Mkdir(filepath.Join(p.paths.run, "vm", "1"), 0o700)
			os.WriteFile(filepath.Join(p.paths.run, "vm", "1", "x"), nil, 0o600)
		}},
		{name: "address", want: vmop.ErrNetwork, detail: "local prefix", edit: func(v *config.VM) { v.NICs[0].Local = true }},
		{name: "tap", want: vmop.ErrNetwork, detail: "interface 0: no such bridge", play: func(d *daemon) []*os.File {
			m := d.expect("priv", vmop.TapOpen)
			d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{Code: vmop.ErrNetwork, Detail: "no such bridge"})
			return nil
		}},
		{name: "second tap", want: vmop.ErrNetwork, detail: "interface 1: busy", edit: func(v *config.VM) { v.NICs = make([]config.NIC, 3) }, play: func(d *daemon) []*os.File {
			var ends []*os.File
			for i := range 3 {
				m := d.expect("priv", vmop.TapOpen)
				r, w, err := os.Pipe()
				if err != nil {
					d.t.Fatal(err)
				}
				if ends = append(ends, r); i == 1 {
					w.Close()
					d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{Index: i, Code: vmop.ErrNetwork, Detail: "busy"})
					continue
				}
				d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{Index: i, Name: "tap1"}, w)
			}
			return ends
		}},
		{name: "tap setup", want: vmop.ErrNetwork, detail: "gone", play: func(d *daemon) []*os.File {
			m := d.expect("priv", vmop.TapOpen)
			r, w, err := os.Pipe()
			if err != nil {
				d.t.Fatal(err)
			}
			d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{Name: "tap1"}, w)
			m = d.expect("priv", vmop.TapSetup)
			d.send("priv", vmop.TapReady, m.ID, vmop.TapResult{Code: vmop.ErrNetwork, Detail: "gone"})
			return []*os.File{r}
		}},
		{name: "priv dies", want: vmop.ErrUnavailable, detail: "taps", play: func(d *daemon) []*os.File {
			d.expect("priv", vmop.TapOpen)
			d.roles["priv"].die()
			d.respawned("priv")
			return nil
		}},
		{name: "vmm refuses", want: vmop.ErrHypervisor, detail: "no jail", play: func(d *daemon) []*os.File {
			ends := d.taps(1)
			g := d.launched()
			g.close()
			d.event(vmop.Event{ID: g.req.ID, Kind: vmop.EventFailed, Code: vmop.ErrHypervisor, Detail: "no jail"})
			return ends
		}},
		{name: "bad kernel", want: vmop.ErrKernel, detail: "boot \"", play: func(d *daemon) []*os.File {
			ends := d.taps(1)
			g := d.launched()
			g.close()
			d.event(vmop.Event{ID: g.req.ID, Kind: vmop.EventFailed, Code: vmop.ErrKernel, Detail: "not a kernel"})
			return ends
		}},
		{name: "vmm dies", want: vmop.ErrUnavailable, detail: "gone", play: func(d *daemon) []*os.File {
			ends := d.taps(1)
			d.launched().close()
			d.roles["vmm"].die()
			d.respawned("vmm")
			return ends
		}},
		{name: "stopped meanwhile", want: vmop.ErrNotRunning, detail: "stopped", play: func(d *daemon) []*os.File {
			m := d.expect("priv", vmop.TapOpen)
			d.ask(0, vmop.Stop, vmop.StopRequest{VM: vmNamed("x"), Force: true})
			d.eventually("it is stopped", func() bool { r := d.p.runs[1]; return r == nil || r.failed })
			r, w, err := os.Pipe()
			if err != nil {
				d.t.Fatal(err)
			}
			d.send("priv", vmop.TapOpened, m.ID, vmop.TapResult{Name: "tap1"}, w)
			return []*os.File{r}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := vmDef(t, "x")
			if c.edit != nil {
				c.edit(&v)
			}
			held, err := diskFile.open(other)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			edits := []func(*parent){}
			if c.host != nil {
				edits = append(edits, c.host)
			}
			d := newDaemon(t, []config.VM{v}, edits...)
			id := d.ask(0, vmop.Start, vmop.StartRequest{VM: vmNamed("x")})
			var taps []*os.File
			if c.play != nil {
				taps = c.play(d)
			}
			res, _ := d.result(id, c.want)
			if !strings.Contains(res.Detail, c.detail) {
				t.Errorf("detail %q does not speak of %q", res.Detail, c.detail)
			}
			if rec, ok := d.vm("x"); !ok || rec.State != vmop.Stopped || rec.PID != 0 {
				t.Errorf("record %+v", rec)
			}
			os.RemoveAll(filepath.Join(d.p.paths.run, "vm", "1")) // of the case "socket"
			d.wantNothingLeft(v.Disks[0].Path, taps...)
		})
	}
}

// TestStopWhileOpening: a start that is stopped while its files are being opened
// ends when they are, so that the next one finds them free.
func TestStopWhileOpening(t *testing.T) {
	v := vmDef(t, "x")
	open, opening := make(chan struct{}), make(chan struct{})
	d := newDaemon(t, []config.VM{v}, func(p *parent) {
		kvm := p.host.openKVM
		p.host.openKVM = func() (*os.File, error) {
			close(opening)
			<-open
			return kvm()
		}
	})
	start := d.ask(0, vmop.Start, vmop.StartRequest{VM: vmNamed("x")})
	d.wait(opening)
	stop := d.ask(0, vmop.Stop, vmop.StopRequest{VM: vmNamed("x"), Force: true})
	again := d.ask(0, vmop.Start, vmop.StartRequest{VM: vmNamed("x")})
	d.result(again, vmop.ErrStopping)
	close(open)
	d.result(start, vmop.ErrNotRunning)
	d.result(stop, vmop.OK)
	d.nothing("priv", vmop.TapOpen)
	d.wantNothingLeft(v.Disks[0].Path)
}

// TestClientsFiles: what a client opened itself is used, and no path of its
// opened; across a guest's reset too.
func TestClientsFiles(t *testing.T) {
	parent := vmDef(t, "template", func(v *config.VM) {
		v.Allow = config.Allow{HasOwner: true, Owner: config.Owner{UID: 4242}, Options: config.AllowDisk | config.AllowBoot}
	})
	d := newDaemon(t, []config.VM{parent})
	mine, kernel := disk(t), tempFile(t, "my kernel")
	open := func(name string) *os.File {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	req := vmop.StartRequest{
		VM: vmNamed("mine"), Template: "template", Files: []string{"disk0", "kernel"},
		Define: &vmop.Definition{Kernel: "/etc/shadow", Disks: []vmop.DiskDef{{Path: "/etc/shadow", Format: "raw"}}},
	}
	id := d.ask(4242, vmop.Start, req, open(mine), open(kernel))
	taps := d.taps(1)
	g := d.started(os.Getpid())
	d.result(id, vmop.OK)
	for name, path := range map[string]string{"disk0": mine, "kernel": kernel} {
		if !sameFile(t, g.files[name], path) {
			t.Errorf("%s is not the file that the client opened", name)
		}
	}
	tty, _ := d.vm("mine")
	g.close()
	d.event(vmop.Event{ID: g.req.ID, Kind: vmop.EventReset})
	taps = append(taps, d.taps(1)...)
	g = d.started(os.Getpid())
	if !sameFile(t, g.files["disk0"], mine) {
		t.Error("after a reset the disk is another file")
	}
	if g.files["kernel"] != nil {
		t.Error("after a reset the kernel for one boot is used again")
	}
	if rec, _ := d.vm("mine"); rec.TTY != tty.TTY {
		t.Errorf("tty %s, was %s", rec.TTY, tty.TTY)
	}
	g.close()
	d.event(vmop.Event{ID: g.req.ID, Kind: vmop.EventPoweroff})
	d.until("mine", deleted)
	d.expect("agentx", vmop.SNMPDelete)
	d.wantNothingLeft(mine, taps...)

	// Descriptors that are not what their names say, or too few.
	for _, c := range []struct {
		files []string
		fds   []*os.File
		want  vmop.Code
	}{
		{[]string{"disk0"}, nil, vmop.ErrInvalid},
		{[]string{"disk0", "disk0"}, []*os.File{open(mine), open(mine)}, vmop.ErrInvalid},
		{[]string{"../disk0"}, []*os.File{open(mine)}, vmop.ErrInvalid},
		{nil, []*os.File{open(mine)}, vmop.ErrInvalid},
		{[]string{"kernel"}, []*os.File{open(kernel)}, vmop.ErrInvalid}, // no disk0
	} {
		req.Files = c.files
		d.result(d.ask(4242, vmop.Start, req, c.fds...), c.want)
	}
	d.wantNothingLeft(mine)
}

// TestLostFiles: files of a client that were lost with the daemon before are not
// opened by their names: those are the client's word.
func TestLostFiles(t *testing.T) {
	secret := disk(t)
	r := &run{names: []string{"disk0"}, given: map[string]*os.File{}}
	o := opener{run: r}
	err := o.openOne("disk0", secret, diskFile)
	wantError(t, err, vmop.ErrDisk, secret)
	if len(o.files) > 0 {
		t.Error("opened all the same")
	}
}

func sameFile(t *testing.T, f *os.File, path string) bool {
	t.Helper()
	if f == nil {
		return false
	}
	a, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(a, b)
}

var defaultPrefix = addr.Default4
