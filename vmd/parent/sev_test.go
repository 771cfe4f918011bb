package parent

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/sev"
	"vmd/internal/counters"
	"vmd/internal/vmop"
	"vmd/vmd/config"
)

func encryptedDef(t *testing.T, es bool) config.VM {
	return vmDef(t, "x", func(v *config.VM) { v.SEV, v.SEVES = true, es })
}

// comesUp has the one VM start with a process that says e of its memory.
func (d *daemon) comesUp(e *vmop.Encryption) *guest {
	d.t.Helper()
	id := d.ask(0, vmop.Start, vmop.StartRequest{VM: vmNamed("x")})
	d.taps(1)
	g := d.launched()
	page, err := counters.Create("test")
	if err != nil {
		d.t.Fatal(err)
	}
	d.event(vmop.Event{ID: g.req.ID, Kind: vmop.EventStarted, PID: os.Getpid(), Encryption: e}, page)
	d.result(id, vmop.OK)
	return g
}

// The process of a guest that is to be encrypted has /dev/sev and may hold its
// memory in place; what it says of the launch is shown while it runs.
func TestEncryptedGuest(t *testing.T) {
	for _, es := range []bool{false, true} {
		v := encryptedDef(t, es)
		var asked sev.Kind
		var unlocked []int
		d := newDaemon(t, []config.VM{v}, func(p *parent) { p.host.unlock = func(pid int) error { unlocked = append(unlocked, pid); return nil } })
		d.on(func() {
			d.p.host.openSEV = func(k sev.Kind) (*os.File, error) { asked = k; return d.pipe("sev") }
		})
		want := vmop.Encryption{ES: es, Digest: [32]byte{1, 2, 3, 31: 4}}
		g := d.comesUp(&want)
		if !g.req.SEV || g.req.SEVES != es || !slices.Contains(g.req.Files, "sev") {
			t.Errorf("definition: SEV %v, SEV-ES %v, descriptors %q", g.req.SEV, g.req.SEVES, g.req.Files)
		}
		if kind := map[bool]sev.Kind{false: sev.SEV, true: sev.ES}[es]; asked != kind {
			t.Errorf("asked the platform for %v, want %v", asked, kind)
		}
		var pid int
		d.on(func() { pid = d.p.roles["vmm"].proc.pid })
		if !slices.Equal(unlocked, []int{pid}) {
			t.Errorf("processes %v may lock memory, want vmm, %d", unlocked, pid)
		}
		if rec, _ := d.vm("x"); rec.Encryption == nil || *rec.Encryption != want {
			t.Errorf("record %+v, want %+v", rec.Encryption, want)
		}
		g.close()
		d.event(vmop.Event{ID: 1, Kind: vmop.EventPoweroff})
		if rec := d.until("x", is(vmop.Stopped)); rec.Encryption != nil {
			t.Errorf("it is stopped and encrypted: %+v", rec.Encryption)
		}
		d.wantNothingLeft(v.Disks[0].Path)
	}
}

// A guest that nobody wanted encrypted is not shown as if it were, whatever its
// process says, and gets no /dev/sev.
func TestPlainGuestClaimsEncryption(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")}, func(p *parent) {
		p.host.openSEV = func(sev.Kind) (*os.File, error) { t.Error("opened /dev/sev"); return nil, errors.New("no") }
		p.host.unlock = func(int) error { t.Error("may lock memory"); return nil }
	})
	g := d.comesUp(&vmop.Encryption{ES: true})
	if g.req.SEV || g.req.SEVES || slices.Contains(g.req.Files, "sev") {
		t.Errorf("definition %+v", g.req)
	}
	if rec, _ := d.vm("x"); rec.Encryption != nil {
		t.Errorf("record %+v", rec.Encryption)
	}
}

// What was launched outlives vmd.
func TestEncryptionIsRemembered(t *testing.T) {
	d := newDaemon(t, []config.VM{encryptedDef(t, false)}, func(p *parent) { p.host.unlock = func(int) error { return nil } })
	d.on(func() { d.p.host.openSEV = func(sev.Kind) (*os.File, error) { return d.pipe("sev") } })
	want := vmop.Encryption{Digest: [32]byte{9, 8, 7}}
	d.comesUp(&want)
	d.on(d.p.saveState)
	d.stop()
	p := fakeParent(t)
	p.paths = d.p.paths
	if err := p.loadState(); err != nil {
		t.Fatal(err)
	}
	if alive := p.reg.State().Runs; len(alive) != 1 || alive[0].Encryption == nil || *alive[0].Encryption != want {
		t.Errorf("runs %+v", alive)
	}
}

// The limit that is lifted is the hard one, of which each process takes what it
// is told to.
func TestMayLock(t *testing.T) {
	var before, after unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_MEMLOCK, nil, &before); err != nil {
		t.Fatal(err)
	}
	err := mayLock(os.Getpid())
	if err != nil && errors.Is(err, unix.EPERM) && before.Max != unix.RLIM_INFINITY {
		t.Skip("may not raise limits here")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_MEMLOCK, nil, &after); err != nil {
		t.Fatal(err)
	}
	if after.Max != unix.RLIM_INFINITY || after.Cur != before.Cur {
		t.Errorf("limit %+v, was %+v", after, before)
	}
	if err := mayLock(1 << 30); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process that does not exist: %v", err)
	}
}

// While there is no vmm, whose limits were to be lifted, a guest does not start.
func TestEncryptedGuestWithoutVMM(t *testing.T) {
	d := newDaemon(t, []config.VM{encryptedDef(t, false)}, func(p *parent) {
		p.host.unlock = func(int) error { return nil }
	})
	d.on(func() {
		d.p.host.openSEV = func(sev.Kind) (*os.File, error) { return d.pipe("sev") }
		spawn := d.p.spawn
		d.p.spawn = func(name string, verbose bool) (*process, error) {
			if name == "vmm" {
				return nil, errors.New("no memory")
			}
			return spawn(name, verbose)
		}
	})
	d.roles["vmm"].die()
	d.eventually("no vmm", func() bool { return d.p.roles["vmm"].proc == nil })
	id := d.ask(0, vmop.Start, vmop.StartRequest{VM: vmNamed("x")})
	d.taps(1)
	if res, _ := d.result(id, vmop.ErrUnavailable); res.Detail != errNoProcess.Error() {
		t.Errorf("the answer is %q", res.Detail)
	}
}
