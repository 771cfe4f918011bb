package parent

import (
	"testing"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/statefile"
)

// What a manager has set is there for the next agentx, and for the next daemon of
// this boot, unless vm.conf has come to say something else.
func TestNotificationsAreKept(t *testing.T) {
	d := newDaemon(t, nil, func(p *parent) { p.cfg.AgentX.PerVM = true })
	set := vmop.SNMPSwitches{PerVM: true, Bulk: true, Master: 1e9}
	d.send("agentx", vmop.SNMPKeep, 0, set)
	saved := func() (s savedState) {
		d.t.Helper()
		if _, err := statefile.Load(d.p.paths.stateFile(), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	d.eventually("the switches are saved", func() bool { return saved().Notifications != nil })
	d.roles["agentx"].die()
	d.respawned("agentx")
	if c := decoded[vmop.SNMPConfig](d, d.expect("agentx", vmop.SNMPSetup)); c.Switches == nil || *c.Switches != set {
		t.Errorf("the next agentx is told %+v", c.Switches)
	}

	// Set again within the second, they are saved at the end.
	set.PerVM = false
	d.send("agentx", vmop.SNMPKeep, 0, set)
	d.eventually("the last of them are saved", func() bool { k := saved().Notifications; return k != nil && k.SNMPSwitches == set })

	next := fakeParent(t)
	next.paths.state = d.p.paths.state
	next.cfg.AgentX.PerVM = true
	load := func() *vmop.SNMPSwitches {
		t.Helper()
		if err := next.loadState(); err != nil {
			t.Fatal(err)
		}
		return next.snmpConfig().Switches
	}
	if got := load(); got == nil || *got != set {
		t.Errorf("the next daemon has %+v", got)
	}
	for what, change := range map[string]func(*config.AgentX){
		"notifications": func(a *config.AgentX) { a.Bulk = true },
		"readonly":      func(a *config.AgentX) { a.ReadOnly = true },
	} {
		was := next.cfg.AgentX
		change(&next.cfg.AgentX)
		if got := load(); got != nil {
			t.Errorf("with another %s the next daemon has %+v", what, got)
		}
		next.cfg.AgentX = was
	}
	other := saved()
	other.BootID = "another"
	if err := statefile.Save(next.paths.stateFile(), other); err != nil {
		t.Fatal(err)
	}
	if got := load(); got != nil {
		t.Errorf("after a boot there is %+v", got)
	}

	// What vm.conf has anyway is not kept.
	set.PerVM, set.Bulk = true, false
	d.send("agentx", vmop.SNMPKeep, 0, set)
	d.eventually("they are forgotten", func() bool { return saved().Notifications == nil })
	d.send("agentx", vmop.SNMPKeep, 0, "text")
	d.on(func() {
		if d.p.notifications != nil {
			t.Errorf("kept %+v", d.p.notifications)
		}
	})
}

// An agentx that has been taken over and has us keep something all the time does
// not have us write to the disk all the time.
func TestNotificationsAreSavedAtAPace(t *testing.T) {
	d := newDaemon(t, nil)
	keep := func(bulk bool) {
		body, err := imsg.Marshal(vmop.SNMPSwitches{Bulk: bulk})
		if err != nil {
			t.Fatal(err)
		}
		d.p.keepNotifications(imsg.Msg{Payload: body})
	}
	d.on(func() {
		keep(true)
		if !d.p.dirty {
			t.Error("the first is not saved")
		}
		d.p.dirty = false // it is
		for i := range 100 {
			keep(i%2 == 0)
		}
		if d.p.dirty {
			t.Error("others are saved in the same second")
		}
	})
}
