package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxPercent       = 51200   // 512 CPUs
	maxRate          = 1 << 50 // bytes per second
	maxHigh          = 1 << 50 // bytes
	maxRestarts      = 1000
	maxRestartWindow = 24 * time.Hour
)

var allowOptions = map[string]Option{
	"boot": AllowBoot, "memory": AllowMemory, "interface": AllowInterface,
	"disk": AllowDisk, "cdrom": AllowCDROM, "instance": AllowInstance,
	"cpus": AllowCPUs,
}

// allow is: allow instance ( flag | { flag [ , ] … } )
func (b *vmBlock) allow() error {
	p := b.p
	if err := p.expect("instance"); err != nil {
		return err
	}
	if !p.peek().is('{') {
		return b.allowOption()
	}
	if err := p.openBlock(); err != nil {
		return err
	}
	for {
		if err := b.allowOption(); err != nil {
			return err
		}
		switch {
		case p.peek().is(','):
			p.take()
			p.newlines()
		case p.newlines() && !p.peek().is('}'):
		case p.peek().is('}'):
			p.take()
			return nil
		default:
			return p.unexpected("a comma, the end of the line or \"}\"")
		}
	}
}

func (b *vmBlock) allowOption() (err error) {
	p := b.p
	if p.accept("owner") {
		b.vm.Allow.Owner, err = p.owner()
		b.vm.Allow.HasOwner = true
		return err
	}
	o := allowOptions[p.peek().text]
	if o == 0 || p.peek().kind != tokWord {
		return p.unexpected("an option of allow instance", slices.Sorted(maps.Keys(allowOptions))...)
	}
	p.take()
	b.vm.Allow.Options |= o
	return nil
}

// limit is: limit { cpu N% memory-high SIZE io-read SIZE io-write SIZE }
func (b *vmBlock) limit() error {
	return b.p.braces(b.limitOption)
}

func (b *vmBlock) limitOption() error {
	p, l := b.p, &b.vm.Limits
	if p.peek().kind != tokWord {
		return p.unexpected("an option of limit")
	}
	word := p.peek().text
	var dst *uint64
	min, max := int64(1), int64(maxRate)
	switch word {
	case "cpu":
	case "memory-high":
		dst, min, max = &l.MemoryHigh, MinMemory, maxHigh
	case "io-read":
		dst = &l.IORead
	case "io-write":
		dst = &l.IOWrite
	default:
		return p.unexpected("cpu, memory-high, io-read or io-write", "cpu", "memory-high", "io-read", "io-write")
	}
	p.take()
	if err := b.once("limit " + word); err != nil {
		return err
	}
	if dst == nil {
		return b.cpuLimit()
	}
	n, err := p.size("limit "+word, min, max)
	*dst = uint64(n)
	return err
}

// cpuLimit takes 50%, or 250% for two and a half CPUs.
func (b *vmBlock) cpuLimit() error {
	s, err := b.p.str("a share of a CPU such as 50%")
	if err != nil {
		return err
	}
	digits, ok := strings.CutSuffix(s, "%")
	n, err := strconv.ParseUint(digits, 10, 31)
	if !ok || err != nil || n < 1 || n > maxPercent {
		return b.p.fail("limit cpu %s is not a percentage from 1%% to %d%%", clip(s), maxPercent)
	}
	b.vm.Limits.CPUPercent = int(n)
	return nil
}

// restart is: restart ( never | on-failure [ max NUMBER in TIME ] )
func (b *vmBlock) restart() error {
	p := b.p
	if err := b.once("restart"); err != nil {
		return err
	}
	r := Restart{Set: true}
	switch {
	case p.accept("never"):
	case p.accept("on-failure"):
		r.OnFailure, r.Max, r.Window = true, DefaultRestartMax, DefaultRestartWindow
		if !p.accept("max") {
			break
		}
		n, err := p.number("restart max", 1, maxRestarts)
		if err != nil {
			return err
		}
		if err := p.expect("in"); err != nil {
			return err
		}
		if r.Window, err = p.duration("restart window", maxRestartWindow); err != nil {
			return err
		}
		r.Max = int(n)
	default:
		return p.unexpected("never or on-failure")
	}
	b.vm.Restart = r
	return nil
}
