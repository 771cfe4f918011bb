package config

import "fmt"

// finish does what needs the whole file: instances, switches, and what must be
// unique.
func (p *parser) finish() {
	p.instances()
	uuids := make(map[[16]byte]*VM)
	macs := make(map[[6]byte]*VM)
	for i := range p.cfg.VMs {
		v := &p.cfg.VMs[i]
		if p.badVMs[v.Name] {
			continue
		}
		p.checkSwitches(v)
		p.checkUUID(v, uuids)
		p.checkMACs(v, macs)
	}
	if len(p.errors) == 0 {
		for _, m := range p.macros.unused() {
			p.warn(m)
		}
	}
}

// about makes a message about a VM.
func about(v *VM, format string, args ...any) Message {
	text := fmt.Sprintf(format, args...)
	return Message{File: v.File, Line: v.Line, Text: fmt.Sprintf("vm %s: %s", clip(v.Name), text)}
}

// instances completes every instance, parents first, whatever their order in
// the file.
func (p *parser) instances() {
	done := make(map[string]bool)
	for i := range p.cfg.VMs {
		// From v up to the first VM that is complete, then down again.
		var path []*VM
		onPath := make(map[string]bool)
		for v := &p.cfg.VMs[i]; v != nil && v.Parent != "" && !done[v.Name]; v = p.cfg.VM(v.Parent) {
			if onPath[v.Name] {
				p.bad(about(v, "it is an instance of itself"), v)
				break
			}
			onPath[v.Name] = true
			path = append(path, v)
		}
		for j := len(path) - 1; j >= 0; j-- {
			done[path[j].Name] = true
			p.instance(path[j])
		}
	}
}

// instance completes one whose parent is complete, or bad, or missing.
func (p *parser) instance(v *VM) {
	if p.badVMs[v.Name] {
		return
	}
	if p.badVMs[v.Parent] {
		p.badVMs[v.Name] = true // its parent's error is enough
		return
	}
	parent := p.cfg.VM(v.Parent)
	if parent == nil && p.base != nil {
		parent = p.base.VM(v.Parent)
	}
	if parent == nil {
		p.bad(about(v, "there is no vm %s to make an instance of%s", clip(v.Parent), meant(v.Parent, p.names())), v)
		return
	}
	// The file is root's.
	if err := v.Instantiate(parent, 0); err != nil {
		p.bad(about(v, "%v", err), v)
		return
	}
	if err := v.Validate(); err != nil {
		p.bad(about(v, "%v", err), v)
	}
}

// names are those of all VMs that the file defines, while there is room for
// messages about them.
func (p *parser) names() (names []string) {
	if len(p.errors) > maxMessages {
		return nil
	}
	for i := range p.cfg.VMs {
		names = append(names, p.cfg.VMs[i].Name)
	}
	return names
}

func (p *parser) switchNames() (names []string) {
	if len(p.warnings) > maxMessages {
		return nil
	}
	for i := range p.cfg.Switches {
		names = append(names, p.cfg.Switches[i].Name)
	}
	return names
}

// bad reports an error of v; what depends on v stays silent.
func (p *parser) bad(m Message, v *VM) {
	p.report(m)
	p.badVMs[v.Name] = true
}

// checkSwitches looks up the switch of each interface.
func (p *parser) checkSwitches(v *VM) {
	for i := range v.NICs {
		n := &v.NICs[i]
		if n.Switch == "" || p.badSwitches[n.Switch] {
			continue
		}
		sw := p.cfg.Switch(n.Switch)
		if sw == nil && p.base != nil {
			sw = p.base.Switch(n.Switch)
		}
		if sw == nil {
			p.warn(about(v, "interface %d: there is no enabled switch %s%s", i, clip(n.Switch), meant(n.Switch, p.switchNames())))
			continue
		}
		if err := n.checkRDomain(sw); err != nil {
			p.bad(about(v, "interface %d: %v", i, err), v)
		}
	}
}

// checkRDomain refuses what Linux cannot do: a tap has one master, so on a
// switch it is in the bridge's VRF and no other.
func (n *NIC) checkRDomain(sw *Switch) error {
	if !n.RDomain.Set || n.RDomain == sw.RDomain || !sw.RDomain.Set && n.RDomain.ID == 0 {
		return nil
	}
	where := "no rdomain"
	if sw.RDomain.Set {
		where = fmt.Sprintf("rdomain %d", sw.RDomain.ID)
	}
	return fmt.Errorf("rdomain %d differs from that of switch %s (%s), which decides on Linux", n.RDomain.ID, clip(sw.Name), where)
}

func (p *parser) checkUUID(v *VM, seen map[[16]byte]*VM) {
	if v.UUID == [16]byte{} {
		return
	}
	if old := seen[v.UUID]; old != nil {
		p.bad(about(v, "its uuid is that of vm %s at %s:%d", clip(old.Name), old.File, old.Line), v)
		return
	}
	seen[v.UUID] = v
}

func (p *parser) checkMACs(v *VM, seen map[[6]byte]*VM) {
	for i := range v.NICs {
		m := v.NICs[i].MAC
		if m == [6]byte{} {
			continue
		}
		if old := seen[m]; old != nil {
			p.warn(about(v, "interface %d: its lladdr is that of vm %s at %s:%d too", i, clip(old.Name), old.File, old.Line))
			continue
		}
		seen[m] = v
	}
}
