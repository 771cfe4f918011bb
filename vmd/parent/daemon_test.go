package parent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// up has a VM of the configuration running and returns its process.
func (d *daemon) up(name string) *guest {
	d.t.Helper()
	id := d.ask(0, vmop.Start, vmop.StartRequest{VM: vmNamed(name)})
	d.taps(1)
	g := d.started(os.Getpid())
	d.result(id, vmop.OK)
	return g
}

// TestRolesAreReplaced: a role that dies is started again and told everything.
func TestRolesAreReplaced(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x"), vmDef(t, "y")}, func(p *parent) {
		p.cfg = p.cfg.With(&config.Config{Parallel: 1, SocketOwner: p.cfg.SocketOwner, Switches: []config.Switch{{Name: "lan", Interface: "br0"}}, VMs: p.cfg.VMs})
	})
	d.up("x")
	waiting := d.ask(0, vmop.Wait, vmop.WaitRequest{VM: vmNamed("x")})
	d.on(func() {})

	d.roles["priv"].die()
	d.respawned("priv")
	if sw := decoded[vmop.SwitchRequest](d, d.expect("priv", vmop.SwitchSetup)); sw.Name != "lan" || sw.Bridge != "br0" || sw.Alias != "switch1-lan" {
		t.Errorf("switch %+v", sw)
	}

	d.roles["agentx"].die()
	d.respawned("agentx")
	d.expect("agentx", vmop.SNMPSetup)
	d.wantPage("x")
	d.expect("agentx", vmop.SNMPLoaded)

	d.roles["control"].die()
	d.respawned("control")
	m := d.expect("control", vmop.ControlSetup)
	l, err := net.FileListener(m.TakeFile(0))
	if err != nil || l.Addr().String() != d.p.paths.socket {
		t.Fatalf("listener %v, %v", l, err)
	}
	l.Close()
	d.on(func() {
		if len(d.p.pending) > 0 || len(d.p.clients) > 0 {
			t.Error("clients of the control before are still waited for")
		}
	})
	d.event(vmop.Event{ID: 1, Kind: vmop.EventPoweroff})
	d.until("x", is(vmop.Stopped))
	d.nothing("control", vmop.ClientAnswer) // for request waiting
	_ = waiting
}

// TestRestartIsSlowedDown: a role that dies at once, always, is not started as
// fast as the host can.
func TestRestartIsSlowedDown(t *testing.T) {
	d := newDaemon(t, nil)
	for range deathLimit {
		d.roles["agentx"].die()
		d.respawned("agentx")
	}
	last := time.Now()
	d.roles["agentx"].die()
	d.respawned("agentx")
	if d := time.Since(last); d < deathPause {
		t.Errorf("started again after %v", d)
	}
}

// TestVMMDies: VMs outlive vmm; the next one is given them, and what was asked
// of them in the meantime.
func TestVMMDies(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x"), vmDef(t, "y")})
	x, y := d.up("x"), d.up("y")
	tty := x.req.ID
	pause := d.ask(0, vmop.Pause, vmop.VMRequest{VM: vmNamed("x")})
	d.expect("vmm", vmop.VMPause)
	y.close() // its process dies with vmm
	d.roles["vmm"].die()
	d.respawned("vmm")
	m := d.expect("vmm", vmop.VMAdopt)
	if a := decoded[vmop.VMAdoptRequest](d, m); a.ID != tty || a.PID != os.Getpid() {
		t.Errorf("adopt %+v", a)
	}
	conn := x.accept(t) // the connection is to the VM's process
	if err := conn.Send(1, 2, nil); err != nil {
		t.Fatal(err)
	}
	ours, err := imsg.New(m.TakeFile(0))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := ours.Recv(); err != nil || m.ID != 2 {
		t.Errorf("connection: %+v, %v", m, err)
	}
	d.send("vmm", vmop.VMHello, 1, vmop.Hello{Definition: x.req, PID: os.Getpid(), State: vmop.Running})
	d.expect("vmm", vmop.VMPause) // asked again
	d.event(vmop.Event{ID: 1, Kind: vmop.EventPaused})
	d.result(pause, vmop.OK)
	d.until("y", func(v *vmop.VM) bool { return v.State == vmop.Crashed && v.Admin == vmop.AdminRunning })
}

// TestVMMDiesTwice: a vmm that ends before it has been given the VMs is no sign
// that they are gone.
func TestVMMDiesTwice(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	d.up("x")
	d.on(func() {
		spawn := d.p.spawn
		d.p.spawn = func(name string, verbose bool) (*process, error) {
			d.p.spawn = spawn
			proc, err := spawn(name, verbose)
			if err == nil {
				proc.conn.Close()
			}
			return proc, err
		}
	})
	d.roles["vmm"].die()
	d.respawned("vmm")
	d.respawned("vmm")
	if a := decoded[vmop.VMAdoptRequest](d, d.expect("vmm", vmop.VMAdopt)); a.ID != 1 || a.PID != os.Getpid() {
		t.Errorf("adopt %+v", a)
	}
	if v, _ := d.vm("x"); v.State != vmop.Running {
		t.Errorf("it is %v: %s", v.State, v.LastExit)
	}
}

// TestDaemonDies: a new daemon finds the VMs of the one before, with their ids
// and terminals, and does not start them twice; those that died are reported.
func TestDaemonDies(t *testing.T) {
	enabled := func(v *config.VM) { v.Enabled = true }
	x, y := vmDef(t, "x", enabled), vmDef(t, "y")
	d := newDaemon(t, []config.VM{y, x})
	d.taps(1)
	gx := d.started(os.Getpid())
	d.until("x", is(vmop.Running))
	gy := d.up("y")
	before, _ := d.vm("x")
	yBefore, _ := d.vm("y")
	d.on(d.p.saveState)
	d.stop() // without a word to anybody, as kill -9 would
	gy.close()

	n := d.again(t, []config.VM{x, y})
	ready := n.run()
	m := n.expect("vmm", vmop.VMAdopt)
	if a := decoded[vmop.VMAdoptRequest](n, m); a.ID != before.ID || a.PID != os.Getpid() {
		t.Errorf("adopt %+v", a)
	}
	select {
	case <-ready:
		t.Fatal("ready before it is known what runs")
	default:
	}
	page, err := counters.Create("x")
	if err != nil {
		t.Fatal(err)
	}
	pty, err := newPTY()
	if err != nil {
		t.Fatal(err)
	}
	n.send("vmm", vmop.VMHello, uint64(before.ID), vmop.Hello{
		Definition: gx.req, PID: os.Getpid(), State: vmop.Running, Files: []string{"counters", "tty", "ttyslave"},
	}, page, pty.master, pty.slave)
	n.wait(ready)
	n.nothing("priv", vmop.TapOpen) // nothing is started
	after, _ := n.vm("x")
	if after.ID != before.ID || after.UUID != before.UUID || after.State != vmop.Running || after.TTY != before.TTY || after.NICs[0] != before.NICs[0] || after.Changed {
		t.Errorf("x is %+v, was %+v", after, before)
	}
	n.until("y", func(v *vmop.VM) bool { return v.State == vmop.Crashed && v.ID == yBefore.ID })
	// The guest resets: its pty is the one that came with the hello.
	gx.close()
	n.event(vmop.Event{ID: before.ID, Kind: vmop.EventReset})
	n.taps(1)
	g := n.started(os.Getpid())
	n.until("x", func(v *vmop.VM) bool { return v.PID != 0 && v.TTY == pty.name })
	if _, err := unix.IoctlGetInt(int(g.files["tty"].Fd()), unix.TIOCGPTN); err != nil {
		t.Errorf("its tty is no pty: %v", err)
	}
}

// again returns a daemon, not yet at work, on the directories of d.
func (d *daemon) again(t *testing.T, vms []config.VM) *daemon {
	t.Helper()
	n := &daemon{t: t, p: fakeParent(t), roles: map[string]*fake{}, spawn: make(chan *fake, 16), ended: make(chan struct{})}
	n.p.paths, n.p.cfg.VMs, n.p.host = d.p.paths, vms, d.p.host
	n.p.host.openKVM = func() (*os.File, error) { return n.pipe("kvm") }
	n.p.host.openTTY = func(*config.Owner) (*tty, error) { return n.tty() }
	if err := n.p.loadState(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestOtherBoot: after a boot of the host no VM can be running.
func TestOtherBoot(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	d.up("x")
	d.on(d.p.saveState)
	d.stop()
	b, err := os.ReadFile(d.p.paths.stateFile())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(strings.TrimSpace(bootID()))) {
		t.Fatalf("no boot id in %s", b)
	}
	p := fakeParent(t)
	p.paths = d.p.paths
	if err := p.loadState(); err != nil || len(p.reg.Alive()) != 1 {
		t.Fatalf("%v %v", p.reg.Alive(), err)
	}
	saved := savedState{BootID: "another", State: p.reg.State()}
	if err := saveAs(p, saved); err != nil {
		t.Fatal(err)
	}
	if err := p.loadState(); err != nil || len(p.reg.Alive()) != 0 {
		t.Errorf("%v %v", p.reg.Alive(), err)
	}
}

func TestReload(t *testing.T) {
	d := newDaemon(t, nil, func(p *parent) { p.opt.Optional = false })
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(d.p.opt.ConfigPath, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := disk(t)
	res, _ := d.result(d.ask(0, vmop.Reload, nil), vmop.ErrConfig)
	if !strings.Contains(res.Detail, "vm.conf") {
		t.Errorf("missing file: %q", res.Detail)
	}
	write("vm \"a\" {\n disk \"" + image + "\"\n disable\n}\nvm \"b\" {\n memory nonsense\n}\n")
	res, _ = d.result(d.ask(0, vmop.Reload, nil), vmop.ErrConfig)
	if !strings.Contains(res.Detail, "vm.conf:6:") {
		t.Errorf("bad file: %q", res.Detail)
	}
	if _, ok := d.vm("a"); ok {
		t.Error("half of a bad file is in force")
	}
	write("vm \"a\" {\n disk \"" + image + "\"\n disable\n}\n")
	d.result(d.ask(0, vmop.Reload, nil), vmop.OK)
	if v, ok := d.vm("a"); !ok || v.ID != 1 {
		t.Errorf("a is %+v", v)
	}
	extra := filepath.Join(t.TempDir(), "extra.conf")
	if err := os.WriteFile(extra, []byte("vm \"c\" {\n disk \""+image+"\"\n disable\n}\nswitch \"s\" {\n interface bridge7\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.result(d.ask(0, vmop.Load, vmop.LoadRequest{Path: extra}), vmop.OK)
	if sw := decoded[vmop.SwitchRequest](d, d.expect("priv", vmop.SwitchSetup)); sw.Bridge != "bridge7" {
		t.Errorf("switch %+v", sw)
	}
	_, a := d.vm("a")
	_, c := d.vm("c")
	if !a || !c {
		t.Errorf("after the load: a %v, c %v", a, c)
	}
	d.result(d.ask(1000, vmop.Reload, nil), vmop.ErrPermission)
	d.result(d.ask(0, vmop.Reset, vmop.ResetRequest{Switches: true}), vmop.OK)
	d.on(func() {
		if len(d.p.cfg.Switches) > 0 {
			t.Error("switches are still there")
		}
	})
}

func TestConsole(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x", func(v *config.VM) { v.Owner.UID = 4242 })})
	d.up("x")
	d.result(d.ask(1, vmop.Console, vmop.ConsoleRequest{VM: vmNamed("x")}), vmop.ErrPermission)
	id := d.ask(4242, vmop.Console, vmop.ConsoleRequest{VM: vmNamed("x"), ReadOnly: true})
	m := d.expect("vmm", vmop.VMConsole)
	if r := decoded[vmop.VMConsoleRequest](d, m); r.ID != 1 || !r.ReadOnly || r.NoReplay {
		t.Errorf("request %+v", r)
	}
	theirs := m.TakeFile(0)
	_, ours := d.result(id, vmop.OK)
	defer ours.Close()
	io.WriteString(theirs, "hello")
	theirs.Close()
	if b, err := io.ReadAll(ours); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestEnd: a signal stops all guests, whoever waits is told, and only then do
// the roles end, in peace.
func TestEnd(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x"), vmDef(t, "y")})
	d.up("x")
	d.up("y")
	wait := d.ask(0, vmop.Wait, vmop.WaitRequest{VM: vmNamed("y")})
	d.on(func() {}) // it has arrived: ask is in order, but on comes by another way
	d.result(d.ask(0, vmop.Break, vmop.VMRequest{VM: vmNamed("x")}), vmop.OK)
	d.expect("vmm", vmop.VMBreak)
	d.on(func() { d.p.signal(unix.SIGTERM) })
	for range 2 {
		if r := decoded[vmop.VMStopRequest](d, d.expect("vmm", vmop.VMStop)); r.Force {
			t.Errorf("%+v", r)
		}
	}
	d.event(vmop.Event{ID: 1, Kind: vmop.EventPoweroff})
	d.until("x", is(vmop.Stopped))
	d.on(func() { d.p.signal(unix.SIGTERM) })
	if r := decoded[vmop.VMStopRequest](d, d.expect("vmm", vmop.VMStop)); r.ID != 2 || !r.Force {
		t.Errorf("second signal: %+v", r)
	}
	d.event(vmop.Event{ID: 2, Kind: vmop.EventKilled})
	d.result(wait, vmop.OK)
	for _, f := range d.roles {
		for m := range f.got { // until the parent has closed its end
			m.Close()
		}
		select {
		case <-f.exited:
			t.Errorf("%s was killed", f.name)
		default:
		}
		f.die()
	}
	if d.wait(d.ended); d.err != nil {
		t.Error(d.err)
	}
	var s savedState
	if err := loadAs(d.p, &s); err != nil || len(s.Runs) > 0 || len(s.Known) != 2 {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestDialMaster(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "master")
	if _, err := dialMaster(path); err == nil || !strings.HasSuffix(masterMissing(err), "no such file or directory; is snmpd running, with \"master agentx\" in snmpd.conf?") {
		t.Errorf("connected to nothing: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dialMaster(path); err == nil || !strings.Contains(err.Error(), "not a socket") || masterMissing(err) != err.Error() {
		t.Errorf("a file: %v", err)
	}
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if os.Getuid() == 0 {
		f, err := dialMaster(path)
		if err != nil {
			t.Fatalf("root's socket: %v", err)
		}
		f.Close()
		if err := os.Chown(path, 4242, -1); err != nil {
			t.Fatal(err)
		}
		if f, err := dialMaster(path); err != nil {
			t.Errorf("in root's directory: %v", err)
		} else {
			f.Close()
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := dialMaster(path); err == nil {
		t.Error("anybody could have put that there")
	}
}

// FuzzRequest: whatever control passes on gets exactly one answer.
func FuzzRequest(f *testing.F) {
	for _, v := range []any{vmop.ListRequest{}, vmop.StartRequest{VM: vmNamed("x"), Files: []string{"kernel"}},
		vmop.StopRequest{VM: vmNamed("x"), Wait: true}, vmop.ResetRequest{VMs: true}, vmop.LoadRequest{Path: "x"},
		vmop.SendRequest{VM: vmNamed("x")}, vmop.ReceiveRequest{Name: "y"}} {
		raw, err := imsg.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		for t := vmop.List; t <= vmop.Receive; t++ {
			f.Add(uint16(t), uint32(0), raw)
			f.Add(uint16(t), uint32(1000), raw)
		}
	}
	f.Fuzz(func(t *testing.T, typ uint16, uid uint32, raw []byte) {
		p := fakeParent(t)
		p.roles["control"] = &role{} // nobody hears the answers
		p.cfg.VMs = []config.VM{{Name: "x", Boot: "/nowhere", CPUs: 1, MemoryBytes: 1 << 20}}
		p.step(registry.Configure{VMs: p.cfg.VMs, Parallel: 1})
		ours, theirs, err := imsg.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		p.clients[1] = &client{theirs, vmop.Peer{UID: uid}}
		p.request(vmop.Envelope{Client: 1, Type: vmop.Type(typ), Body: raw}, &imsg.Msg{ID: 5})
		if n := len(p.pending); n > 1 {
			t.Fatalf("%d requests of one", n)
		}
		p.clientGone(1)
		if len(p.pending) > 0 {
			t.Fatal("a request outlives its client")
		}
	})
}

// A connection may have ended before its process is known to have: what is sent
// then says so in words for a client.
func TestSendToARoleThatEnds(t *testing.T) {
	d := newDaemon(t, nil)
	var err error
	d.on(func() {
		d.p.roles["priv"].proc.conn.Close()
		err = d.p.send("priv", vmop.TapOpen, 1, vmop.TapRequest{})
	})
	if !errors.Is(err, errNoProcess) {
		t.Errorf("got %v", err)
	}
}
