package parent

import (
	"crypto/rand"
	"fmt"
	"time"

	"vmd/vmd/parent/registry"
	"vmd/vmd/parent/statefile"
)

// savedState is what the state file holds. Runs are of one boot of the host.
type savedState struct {
	BootID string
	registry.State
	Raw           rawDisks
	Notifications *keptNotifications `json:"Switches,omitempty"`
}

// loadState makes the registry of what was saved.
func (p *parent) loadState() error {
	var s savedState
	old, err := statefile.Load(p.paths.stateFile(), &s)
	if err != nil {
		return fmt.Errorf("%w; the numbers of VMs are in it: restore it, or remove it to number them anew", err)
	}
	if old != nil {
		p.log.Error().Err(old).Msg("using the state before it")
	}
	if s.BootID != bootID() {
		s.Runs, s.Notifications = nil, nil
	}
	p.raw, p.notifications = s.Raw, s.Notifications
	p.reg = registry.New(s.State, rand.Reader)
	return nil
}

// saveAgain is when a state that could not be saved is saved again.
const saveAgain = time.Second

// saveSoon saves the state when what is going on now has been done: one save
// for many changes.
func (p *parent) saveSoon() {
	if !p.dirty {
		p.dirty = true
		p.loop.Post(p.saveState)
	}
}

// saveState saves the state if it has changed. A disk that is full has room
// again some day, and by then nothing need change any more for it to be saved:
// so it tries again.
func (p *parent) saveState() {
	if !p.dirty {
		return
	}
	p.dirty = false
	if err := statefile.Save(p.paths.stateFile(), savedState{bootID(), p.reg.State(), p.raw, p.notifications}); err != nil {
		p.log.Error().Err(err).Msg("state not saved; trying again")
		if p.saving != nil {
			p.saving.Stop()
		}
		p.saving = p.loop.After(saveAgain, p.saveSoon)
	}
}
