package config

import "slices"

// local is: local interface …
func (b *vmBlock) local() error {
	if err := b.p.expect("interface"); err != nil {
		return err
	}
	return b.nic(true)
}

// interfaces is: interfaces NUMBER
func (b *vmBlock) interfaces() error {
	if b.vm.MinNICs != 0 {
		return b.p.fail("interfaces is given more than once")
	}
	n, err := b.p.number("interfaces", 0, MaxNICs)
	b.vm.MinNICs = int(n)
	return err
}

// nic is: interface [ STRING ] [ { option … } | option option [ , ] … ]
func (b *vmBlock) nic(local bool) error {
	p := b.p
	if len(b.vm.NICs) >= MaxNICs {
		return p.fail("too many interfaces (limit is %d)", MaxNICs)
	}
	n := NIC{Local: local}
	if p.moreString() {
		switch name := p.take().text; {
		case name == "tap": // the next free one
		case isTap(name):
			n.Tap = name
		default:
			return p.fail("interface %s is neither tap nor tap and a number", clip(name))
		}
	}
	if err := b.nicOptions(&n); err != nil {
		return err
	}
	b.vm.NICs = append(b.vm.NICs, n)
	return nil
}

// nicOptions parses what follows the name. Between braces, white space parts
// the options; without, a comma may follow each but the first.
func (b *vmBlock) nicOptions(n *NIC) error {
	p := b.p
	option := func() error { return p.nicOption(n) }
	if p.peek().is('{') {
		return p.braces(option)
	}
	for first := true; nicKeyword(p.peek()); first = false {
		if err := option(); err != nil {
			return err
		}
		if !first && p.peek().is(',') {
			p.take()
		}
	}
	return nil
}

func nicKeyword(t token) bool {
	if t.kind != tokWord {
		return false
	}
	return slices.Contains(nicWords, t.text)
}

// nicWords begin the options of an interface.
var nicWords = []string{"down", "group", "lladdr", "locked", "rdomain", "switch", "up"}

func (p *parser) nicOption(n *NIC) (err error) {
	switch {
	case p.accept("switch"):
		s, err := p.strs("the name of a switch")
		if err != nil {
			return err
		}
		if len(s) > MaxName {
			return p.fail("switch name %s is longer than %d bytes", clip(s), MaxName)
		}
		n.Switch = s
	case p.accept("group"):
		n.Group, err = p.group()
	case p.accept("locked"):
		if err := p.expect("lladdr"); err != nil {
			return err
		}
		n.Locked = true
		return p.lladdr(n)
	case p.accept("lladdr"):
		return p.lladdr(n)
	case p.accept("rdomain"):
		n.RDomain, err = p.rdomain()
	case p.accept("up"):
		n.Down = false
	case p.accept("down"):
		n.Down = true
	default:
		return p.unexpected("an option of an interface", nicWords...)
	}
	return err
}

// lladdr parses the address that may follow the keyword.
func (p *parser) lladdr(n *NIC) error {
	if !p.moreString() {
		n.MAC = [6]byte{}
		return nil
	}
	s := p.take().text
	m, ok := mac(s)
	if !ok {
		return p.fail("lladdr %s is not six hexadecimal numbers with colons between", clip(s))
	}
	if m[0]&1 != 0 {
		p.warnf("lladdr %s is a multicast address", clip(s))
	}
	n.MAC = m
	return nil
}
