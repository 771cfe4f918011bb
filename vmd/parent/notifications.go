package parent

import (
	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// keptNotifications are the two notification switches of the MIB as a manager
// has set them, until the master agent or the host starts again, or what they
// were set over changes in vm.conf.
type keptNotifications struct {
	vmop.SNMPSwitches
	OverPerVM, OverBulk bool // as vm.conf had them
}

// notificationsSet is what a manager has set; nil if it does not count now.
func (p *parent) notificationsSet() *vmop.SNMPSwitches {
	a, k := &p.cfg.AgentX, p.notifications
	if k == nil || a.ReadOnly || k.OverPerVM != a.PerVM || k.OverBulk != a.Bulk {
		return nil
	}
	s := k.SNMPSwitches
	return &s
}

// keepNotifications takes note of what agentx says a manager has set, and saves
// it: at most once a second, however often agentx says so.
func (p *parent) keepNotifications(m imsg.Msg) {
	var s vmop.SNMPSwitches
	if err := imsg.Unmarshal(m.Payload, &s); err != nil {
		p.protest("agentx", err)
		return
	}
	a := &p.cfg.AgentX
	p.notifications = nil
	if s.PerVM != a.PerVM || s.Bulk != a.Bulk {
		p.notifications = &keptNotifications{s, a.PerVM, a.Bulk}
	}
	if p.pacing != nil {
		return
	}
	p.saveSoon()
	saved := p.notifications
	p.pacing = p.loop.After(saveAgain, func() {
		p.pacing = nil
		if p.notifications != saved {
			p.saveSoon()
		}
	})
}
