package subagent

import (
	"time"

	"vmd/agentx"
	"vmd/internal/privsep"
	"vmd/mib"
)

// windowTime is how long changes are collected for a bulk notification.
const windowTime = time.Second

// notify sends what RFC 7666 wants sent, as far as the switches allow it.
func (s *server) notify(events []mib.Event) {
	if s.session == nil || len(events) == 0 {
		return
	}
	on := s.store.Switches()
	for _, e := range events {
		if on.PerVM {
			s.send(e.Notification())
		}
		if on.Bulk {
			s.window.add(e)
		}
	}
}

func (s *server) send(n mib.Notification) {
	objects := make([]agentx.VarBind, len(n.Objects))
	for i, o := range n.Objects {
		objects[i] = agentx.VarBind{Name: o.Name, Value: agentx.Value(o.Value)}
	}
	// While the master is away the agent keeps it. What is lost it reports.
	if err := s.session.agent.Notify(n.OID, objects); err != nil {
		s.log.Warn().Err(err).Msg("notification not sent")
	}
}

// emitBulk sends what a window has collected, unless bulk notifications were
// switched off since.
func (s *server) emitBulk(events []mib.Event) {
	if s.session == nil || !s.store.Switches().Bulk {
		return
	}
	list, left := mib.Bulk(events)
	for _, n := range list {
		s.send(n)
	}
	if left > 0 {
		s.noisy.Warn().Int("count", left).Msg("vmIndex too large for a bulk notification")
	}
}

// window collects changes for the bulk notifications of a second. It knows each
// change of a machine once, so it is bounded by the number of machines.
type window struct {
	loop   *privsep.Loop
	emit   func([]mib.Event)
	events []mib.Event
	seen   map[change]bool
	timer  *privsep.Timer
}

type change struct {
	index int32
	now   mib.OperState
}

func (w *window) add(e mib.Event) {
	c := change{e.VM.Index, e.Now}
	if w.seen[c] {
		return
	}
	if w.timer == nil {
		w.seen = make(map[change]bool)
		w.timer = w.loop.After(windowTime, w.flush)
	}
	w.seen[c] = true
	w.events = append(w.events, mib.Event{VM: &mib.VM{Index: e.VM.Index}, Left: e.Left, Now: e.Now})
}

func (w *window) flush() {
	if w.timer == nil {
		return // cleared after the timer had fired
	}
	events := w.events
	w.clear()
	w.emit(events)
}

func (w *window) clear() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer, w.events, w.seen = nil, nil, nil
}
