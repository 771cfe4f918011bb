package vswitch

// Switch is what the bridge of a switch shall be.
type Switch struct {
	Bridge string
	Alias  string // "" leaves the description as it is
	VRF    uint32 // 0 leaves the bridge where it is
	Groups []string
	Down   bool
}

// SetSwitch sets up a bridge, in the order that vmd(8) has: routing domain,
// description, group, up or down.
func (c *Conn) SetSwitch(s Switch) (Link, error) {
	b, err := c.bridge(s.Bridge)
	if err != nil {
		return Link{}, err
	}
	if s.VRF != 0 {
		v, err := c.vrf(s.VRF)
		if err != nil {
			return Link{}, err
		}
		if err := c.enslave(b, v); err != nil {
			return Link{}, err
		}
	}
	if err := c.alias(b, s.Alias); err != nil {
		return Link{}, err
	}
	if err := c.group(b, s.Groups); err != nil {
		return Link{}, err
	}
	if err := c.setUp(b, !s.Down); err != nil {
		return Link{}, err
	}
	return c.Link(s.Bridge)
}
