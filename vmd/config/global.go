package config

import (
	"net/netip"
	"time"
)

const (
	maxParallel = 65535
	maxDelay    = 365 * 24 * 60 * 60 // seconds
)

// localStatement is:
//
//	local prefix A/N
//	local inet6 [prefix A/N]
//	local dns A
func (p *parser) localStatement() error {
	if p.accept("dns") {
		return p.localDNS()
	}
	if !p.accept("inet6") {
		if !p.peek().keyword("prefix") {
			return p.unexpected(`"dns", "inet6" or "prefix"`)
		}
		p.take()
		s, err := p.str("an IPv4 prefix")
		if err != nil {
			return err
		}
		if p.cfg.LocalPrefix, err = prefix4(s); err != nil {
			return p.fail("local prefix %s: %v", clip(s), err)
		}
		return nil
	}
	p.cfg.LocalInet6 = true
	if !p.accept("prefix") {
		return nil
	}
	s, err := p.str("an IPv6 prefix")
	if err != nil {
		return err
	}
	if p.cfg.LocalPrefix6, err = prefix6(s); err != nil {
		return p.fail("local inet6 prefix %s: %v", clip(s), err)
	}
	return nil
}

// maxDNS is how many name servers guests are told; resolvers ask no more
// (resolv.conf(5), MAXNS).
const maxDNS = 3

// localDNS adds a name server for guests with a local interface.
func (p *parser) localDNS() error {
	s, err := p.str("an IPv4 address")
	if err != nil {
		return err
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		return p.fail("local dns %s: not the IPv4 address of a host", clip(s))
	}
	if len(p.cfg.LocalDNS) == maxDNS {
		return p.fail("too many name servers (limit is %d)", maxDNS)
	}
	p.cfg.LocalDNS = append(p.cfg.LocalDNS, a)
	return nil
}

// socketStatement is: socket owner OWNER
func (p *parser) socketStatement() error {
	if err := p.expect("owner"); err != nil {
		return err
	}
	o, err := p.owner()
	if err != nil {
		return err
	}
	// Without a group it is group 0, as the socket must have one.
	o.HasGID = true
	p.cfg.SocketOwner = o
	return nil
}

// staggeredStatement is: staggered start parallel NUMBER delay NUMBER
func (p *parser) staggeredStatement() error {
	for _, w := range []string{"start", "parallel"} {
		if err := p.expect(w); err != nil {
			return err
		}
	}
	n, err := p.number("parallel", 1, maxParallel)
	if err != nil {
		return err
	}
	if err := p.expect("delay"); err != nil {
		return err
	}
	d, err := p.number("delay", 0, maxDelay)
	if err != nil {
		return err
	}
	p.cfg.Parallel, p.cfg.Delay = int(n), time.Duration(d)*time.Second
	return nil
}
