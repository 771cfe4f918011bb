package config

// With returns c with what add, which was loaded with c as its base, adds to it:
// the global settings of add, and the switches and VMs of both. One of add
// takes the place of one of c that has its name.
func (c *Config) With(add *Config) *Config {
	m := *add
	m.Switches, m.switches, m.VMs, m.vms = nil, nil, nil, nil
	for _, from := range []*Config{c, add} {
		for _, sw := range from.Switches {
			if old := m.Switch(sw.Name); old != nil {
				*old = sw
			} else {
				m.addSwitch(sw)
			}
		}
		for _, v := range from.VMs {
			if old := m.VM(v.Name); old != nil {
				*old = v
			} else {
				m.addVM(v)
			}
		}
	}
	return &m
}

// WithoutSwitches returns c with no switches.
func (c *Config) WithoutSwitches() *Config {
	m := *c
	m.Switches, m.switches = nil, nil
	return &m
}
