package subagent

import (
	"time"

	"vmd/internal/counters"
	"vmd/internal/vmop"
	"vmd/mib"
)

// What managers set counts for as long as the master agent runs, and not longer
// (RFC 7666, vmPerVMNotificationsEnabled: not across a re-initialization of the
// management system, such as the SNMP agent). This role and the daemon come and
// go meanwhile, so parent keeps it.

// restoreSwitches takes over what a manager has set before this role was there.
func (s *server) restoreSwitches() {
	s.kept = s.store.Switches()
	if w := s.config.Switches; w != nil && !s.config.ReadOnly {
		s.master = w.Master
		s.kept = mib.Switches{PerVM: w.PerVM, Bulk: w.Bulk}
		s.store.SetSwitches(s.kept)
	}
}

// keepSwitches tells parent of the switches when they have changed.
func (s *server) keepSwitches() {
	now := s.store.Switches()
	if now == s.kept {
		return
	}
	s.kept = now
	keep := vmop.SNMPSwitches{PerVM: now.PerVM, Bulk: now.Bulk, Master: s.master}
	if err := s.parent.Send(uint16(vmop.SNMPKeep), 0, keep); err != nil {
		s.log.Error().Err(err).Msg("parent not told of the notification switches")
	}
}

// masterStarted notes the run of the master that a session is with, which may be
// another than before.
func (s *server) masterStarted(at int64, another bool) {
	s.master = at
	if another {
		s.store.ResetSwitches()
		s.keepSwitches()
	}
}

// masterUp is how long the master that we know of runs by now.
func (s *server) masterUp() time.Duration {
	if s.master == 0 {
		return 0
	}
	return time.Duration(counters.Monotonic() - s.master)
}
