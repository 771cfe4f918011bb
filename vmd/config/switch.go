package config

// switchBlock is a switch while its block is read.
type switchBlock struct {
	Switch
	disabled bool
}

// switchStatement is: switch STRING… { option … }
func (p *parser) switchStatement() (err error) {
	sw := switchBlock{Switch: Switch{File: p.lex.name, Line: p.last.line, Up: true}}
	if sw.Name, err = p.strs("the name of a switch"); err != nil {
		return err
	}
	defer func() {
		if err != nil && p.cfg.Switch(sw.Name) == nil {
			p.badSwitches[sw.Name] = true
		}
	}()
	if sw.Name == "" || len(sw.Name) > MaxName || hasControl(sw.Name) {
		return p.fail("switch name %s must have 1 to %d printing bytes", clip(sw.Name), MaxName)
	}
	if err := p.block(func() error { return p.switchOption(&sw) }); err != nil {
		return err
	}
	if sw.Interface == "" {
		return p.failAt(sw.Line, "switch %s has no interface", clip(sw.Name))
	}
	if sw.disabled {
		return nil
	}
	if old := p.cfg.Switch(sw.Name); old != nil {
		return p.failAt(sw.Line, "switch %s is already defined at %s:%d", clip(sw.Name), old.File, old.Line)
	}
	p.cfg.addSwitch(sw.Switch)
	return nil
}

func (p *parser) switchOption(sw *switchBlock) (err error) {
	switch {
	case p.accept("enable"):
		sw.disabled = false
	case p.accept("disable"):
		sw.disabled = true
	case p.accept("group"):
		sw.Group, err = p.group()
	case p.accept("interface"):
		s, err := p.strs("the name of a bridge")
		if err != nil {
			return err
		}
		if why := bridgeError(s); why != "" {
			return p.fail("switch interface %s: %s", clip(s), why)
		}
		sw.Interface = s
	case p.accept("locked"):
		sw.Locked = true
		return p.expect("lladdr")
	case p.accept("rdomain"):
		sw.RDomain, err = p.rdomain()
	case p.accept("up"):
		sw.Up = true
	case p.accept("down"):
		sw.Up = false
	default:
		return p.unexpected("an option of a switch", "disable", "down", "enable", "group", "interface", "locked", "rdomain", "up")
	}
	return err
}

// group parses the name of an interface group.
func (p *parser) group() (string, error) {
	s, err := p.strs("the name of a group")
	if err != nil {
		return "", err
	}
	if why := groupError(s); why != "" {
		return "", p.fail("group %s: %s", clip(s), why)
	}
	return s, nil
}

func (p *parser) rdomain() (RDomain, error) {
	n, err := p.number("rdomain", 0, MaxRDomain)
	return RDomain{ID: int(n), Set: err == nil}, err
}
