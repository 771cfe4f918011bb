package cmd

import (
	"vmd/internal/nearest"
	"vmd/internal/vmop"
)

// nearName is the name of a VM that the one which was asked for may have been
// meant to be; "" if there is none.
func (t *tool) nearName() string {
	if t.asked.Name == "" {
		return ""
	}
	if t.near == nil {
		var names []string
		for _, vm := range t.knownVMs() {
			names = append(names, vm.Name)
		}
		near := plain(nearest.Word(t.asked.Name, names))
		t.near = &near
	}
	return *t.near
}

// missingHint is what to do about a request of type r for a VM that is not
// there, or does not run. Some answers do not even say that, as programs know
// their words.
func (t *tool) missingHint(c vmop.Code, r vmop.Type) string {
	if name := t.nearName(); c == vmop.ErrNotFound && name != "" {
		return "did you mean " + name + "?"
	}
	switch r {
	case vmop.Console, vmop.Pause, vmop.Unpause, vmop.Send:
	default:
		return ""
	}
	if c == vmop.ErrNotFound {
		return "there is no such VM: vmctl status lists what there is"
	}
	return "the VM is not running"
}
