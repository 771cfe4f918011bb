package parent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// readConfig is a configuration to be read: the daemon's own if path is empty.
type readConfig struct {
	path string
	to   registry.Asker
}

// readConfig reads one after the other, beside the loop. A reload that nobody
// waits for and that is still to come is as good as two.
func (p *parent) readConfig(r readConfig) {
	if len(p.reading) > 1 && r == (readConfig{}) && slices.Contains(p.reading[1:], r) {
		return
	}
	p.reading = append(p.reading, r)
	if len(p.reading) == 1 {
		p.readNext()
	}
}

func (p *parent) readNext() {
	r := p.reading[0]
	path, opt := p.opt.ConfigPath, config.Options{Macros: p.opt.Macros, Optional: p.opt.Optional}
	if r.path != "" {
		path, opt.Optional, opt.Base = r.path, false, p.cfg
	}
	go func() {
		c, err := config.Load(path, opt)
		p.loop.Post(func() {
			p.wasRead(r, c, err)
			if p.reading = p.reading[1:]; len(p.reading) > 0 {
				p.readNext()
			}
		})
	}()
}

// maxDetail bounds what a client is told of a file's errors.
const maxDetail = 8 << 10

// wasRead takes over a configuration, or nothing of it.
func (p *parent) wasRead(r readConfig, c *config.Config, err error) {
	if err != nil {
		var list *config.Error
		if errors.As(err, &list) {
			p.logMessages(list.Messages)
		}
		detail := err.Error()
		if len(detail) > maxDetail {
			detail = detail[:maxDetail]
		}
		p.log.Error().Str("file", cmp.Or(r.path, p.opt.ConfigPath)).Msg("configuration not changed")
		p.step(registry.ConfigFailed{To: r.to, Code: vmop.ErrConfig, Detail: detail})
		return
	}
	p.logMessages(c.Warnings)
	p.apply(c, r)
}

func (p *parent) logMessages(ms []config.Message) {
	for _, m := range ms {
		p.log.Warn().Msg(m.String())
	}
}

// apply makes c the configuration, or adds it, and tells everybody.
func (p *parent) apply(c *config.Config, r readConfig) {
	load := r.path != ""
	vms := c.VMs
	if load {
		c = p.cfg.With(c)
	}
	first := !p.applied
	p.cfg, p.applied = c, true
	if err := p.ownSocket(); err != nil {
		p.log.Error().Err(err).Msg("control socket keeps its owner")
	}
	p.setupPriv()
	p.send("agentx", vmop.SNMPSetup, 0, p.snmpConfig())
	p.step(registry.Configure{VMs: vms, Parallel: c.Parallel, Delay: c.Delay, Load: load, To: r.to})
	if first {
		p.send("agentx", vmop.SNMPLoaded, 0, nil)
	}
	p.lookAtImages(vms)
	p.log.Info().Int("vms", len(c.VMs)).Int("switches", len(c.Switches)).Msg("configuration loaded")
}

// setupPriv has all switches set up, as far as their bridges are there.
func (p *parent) setupPriv() {
	if !p.applied {
		return
	}
	for i := range p.cfg.Switches {
		sw := &p.cfg.Switches[i]
		req := vmop.SwitchRequest{
			Name: sw.Name, Bridge: sw.Interface, Down: !sw.Up,
			Alias: clip(fmt.Sprintf("switch%d-%s", i+1, sw.Name)),
			VRF:   vrf(sw.RDomain),
		}
		if sw.Group != "" {
			req.Groups = []string{sw.Group}
		}
		p.send("priv", vmop.SwitchSetup, uint64(i), req)
	}
}

// maxAlias is the longest description of an interface, as OpenBSD has it.
const maxAlias = 63

func clip(s string) string {
	if len(s) > maxAlias {
		s = s[:maxAlias]
	}
	return s
}

// vrf is the routing table that an rdomain stands for; 0 is the host's own.
func vrf(d config.RDomain) uint32 {
	if !d.Set {
		return 0
	}
	return uint32(d.ID)
}
