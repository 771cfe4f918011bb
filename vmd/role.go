package main

import (
	"vmd/internal/logging"
	"vmd/internal/privsep"
	"vmd/vmd/control"
	"vmd/vmd/priv"
	"vmd/vmd/subagent"
	"vmd/vmd/vm"
	"vmd/vmd/vmm"
)

// roles are the processes that parent and vmm spawn.
var roles = map[string]func(*privsep.Process) error{
	"priv":    priv.Run,
	"control": control.Run,
	"vmm":     vmm.Run,
	"agentx":  subagent.Run,
	"vm":      vm.Run,
}

// runRole becomes the role that this process was spawned in.
func runRole() int {
	p, err := privsep.Inherit()
	if err != nil {
		log := logging.New("vmd", false)
		log.Error().Err(err).Msg("cannot start")
		return 1
	}
	if err := roles[p.Role.Name](p); err != nil {
		p.Log.Error().Err(err).Msg("ending")
		return 1
	}
	return 0
}
