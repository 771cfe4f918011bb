package parent

import (
	"time"

	"github.com/rs/zerolog"

	"vmd/internal/vmop"
	"vmd/vmd/parent/registry"
)

// do carries out one decision of the registry.
func (p *parent) do(a registry.Action) {
	switch a := a.(type) {
	case registry.Answer:
		p.answer(a.To, a.Result)
	case registry.Record:
		p.record(a.To, a.VM)
	case registry.Count:
		p.count(a)
	case registry.StartVM:
		p.startVM(a)
	case registry.StopVM:
		p.stopVM(a)
	case registry.SendVM:
		p.sendVM(a)
	case registry.AbortSend:
		p.toVM(a.ID, vmop.VMAbort)
	case registry.PauseVM:
		p.toVM(a.ID, vmop.VMPause)
	case registry.UnpauseVM:
		p.toVM(a.ID, vmop.VMUnpause)
	case registry.SendBreak:
		p.toVM(a.ID, vmop.VMBreak)
	case registry.Attach:
		p.attach(a)
	case registry.AdoptVM:
		p.adoptVM(a.ID, a.PID)
	case registry.EndRun:
		p.endRun(a)
	case registry.Publish:
		p.publish(a.VM)
	case registry.Delete:
		p.unpublish(a.ID)
	case registry.ReadConfig:
		p.readConfig(readConfig{path: a.Path, to: a.To})
	case registry.ForgetSwitches:
		p.cfg = p.cfg.WithoutSwitches()
	case registry.SetVerbose:
		p.setVerbose(a.Verbose)
	case registry.Arm:
		p.arm(a)
	case registry.Disarm:
		p.disarm(a.Key)
	case registry.SaveState:
		p.saveSoon()
	case registry.Quit:
		p.dirty = true // what waits for its turn, too
		p.saveState()
		p.log.Info().Msg("terminating")
		p.endRoles()
	case registry.Log:
		p.logAction(a)
	}
}

// toVM passes on a message that says nothing but which VM. When vmm is not
// there the registry asks again of the next one.
func (p *parent) toVM(id uint32, typ vmop.Type) {
	_ = p.send("vmm", typ, 0, vmop.VMID{ID: id})
}

func (p *parent) arm(a registry.Arm) {
	p.disarm(a.Key)
	p.timers[a.Key] = p.loop.After(a.After, func() {
		delete(p.timers, a.Key)
		p.step(registry.Timer{Key: a.Key})
	})
}

func (p *parent) disarm(k registry.TimerKey) {
	if t := p.timers[k]; t != nil {
		t.Stop()
		delete(p.timers, k)
	}
}

var levels = map[registry.Level]zerolog.Level{
	registry.Debug: zerolog.DebugLevel, registry.Info: zerolog.InfoLevel,
	registry.Warn: zerolog.WarnLevel, registry.Error: zerolog.ErrorLevel,
}

// A VM's owner, and its process, can have it paused and unpaused all day: of one
// VM this many lines are logged in a while, and then only errors.
const (
	vmLines  = 100
	vmPeriod = 10 * time.Second
)

// logger is where a is logged.
func (p *parent) logger(a *registry.Log) zerolog.Logger {
	switch {
	case a.UID != nil: // a request that was denied
		return p.noisy
	case a.ID == 0 || a.Level == registry.Error:
		return p.log
	}
	if p.lines[a.ID] == nil {
		p.lines[a.ID] = &zerolog.BurstSampler{Burst: vmLines, Period: vmPeriod}
	}
	return p.log.Sample(p.lines[a.ID])
}

func (p *parent) logAction(a registry.Log) {
	if levels[a.Level] < p.log.GetLevel() {
		return
	}
	log := p.logger(&a)
	e := log.WithLevel(levels[a.Level])
	if a.Name != "" {
		e = e.Str("vm", a.Name)
	}
	if a.ID != 0 {
		e = e.Uint32("id", a.ID)
	}
	if a.UID != nil {
		e = e.Uint32("uid", *a.UID)
	}
	if a.Detail != "" {
		e = e.Str("detail", a.Detail)
	}
	e.Msg(a.Message)
}
