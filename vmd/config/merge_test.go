package config

import "testing"

func TestWith(t *testing.T) {
	var a, b Config
	a.Parallel, b.Parallel = 1, 2
	a.addSwitch(Switch{Name: "s", Interface: "br0"})
	a.addSwitch(Switch{Name: "t", Interface: "br1"})
	b.addSwitch(Switch{Name: "t", Interface: "br2"})
	b.addSwitch(Switch{Name: "u", Interface: "br3"})
	a.addVM(VM{Name: "x"})
	b.addVM(VM{Name: "y"})
	m := a.With(&b)
	if m.Parallel != 2 || len(m.Switches) != 3 || len(m.VMs) != 2 {
		t.Fatalf("%+v", m)
	}
	for name, want := range map[string]string{"s": "br0", "t": "br2", "u": "br3"} {
		if sw := m.Switch(name); sw == nil || sw.Interface != want {
			t.Errorf("switch %s: %+v, want %s", name, sw, want)
		}
	}
	if m.VM("x") == nil || m.VM("y") == nil {
		t.Errorf("VMs %+v", m.VMs)
	}
	if n := m.WithoutSwitches(); n.Switch("s") != nil || n.VM("x") == nil || m.Switch("s") == nil {
		t.Errorf("without switches: %+v", n)
	}
	if a.Switch("t").Interface != "br1" {
		t.Error("With changed its receiver")
	}
}
