package vm

import (
	"time"

	"vmd/hv/machine"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// How long a guest may take: to notice its power button, and to power off
// after that. They are those of OpenBSD's vmd for its vmmci device.
const (
	ackTime      = 3 * time.Second
	completeTime = 120 * time.Second
)

// pressAgain is how often the button of a guest is pressed that has noticed
// it, but does not go: its kernel listens before there is a program to tell.
const pressAgain = 10 * time.Second

// shutdown is where an orderly stop has got to.
type shutdown struct {
	asked  bool // by the manager: a reset counts as a stop now
	forced bool // by the manager, or a timer that ran out
	seen   bool // the guest has noticed
	timer  *privsep.Timer
}

// stop asks the guest to power off, or switches it off.
func (v *vm) stop(r vmop.VMStopRequest) {
	if r.Force {
		v.kill("stopped by force")
		return
	}
	if v.shutdown.asked {
		return
	}
	v.shutdown.asked = true
	v.state = vmop.Stopping
	v.tell(vmop.EventStopping, vmop.OK, nil)
	v.machine.PowerButton()
	v.shutdown.timer = v.Loop.After(ackTime, func() {
		if !v.shutdown.seen {
			v.kill("guest does not listen to its power button")
		}
	})
}

// buttonSeen runs on the loop when the guest has noticed its power button.
func (v *vm) buttonSeen() {
	if !v.shutdown.asked || v.shutdown.seen {
		return
	}
	v.shutdown.seen = true
	v.shutdown.timer.Stop()
	v.shutdown.timer = v.Loop.After(completeTime, func() { v.kill("guest did not power off in time") })
	v.Loop.After(pressAgain, v.press)
}

// press presses the power button once more, and again.
func (v *vm) press() {
	v.machine.PowerButton()
	v.Loop.After(pressAgain, v.press)
}

// kill switches the machine off.
func (v *vm) kill(why string) {
	v.Log.Info().Str("reason", why).Msg("guest switched off")
	v.shutdown.forced = true
	v.machine.Stop()
}

// result is what the end of a machine means for its VM.
func (s *shutdown) result(c machine.Cause) vmop.EventKind {
	switch {
	case c == machine.Killed || s.forced:
		return vmop.EventKilled
	case c == machine.PowerOff:
		return vmop.EventPoweroff
	case c != machine.Reset && c != machine.TripleFault:
		return vmop.EventCrashed
	case s.asked:
		return vmop.EventPoweroff // some systems cannot do better
	}
	return vmop.EventReset
}
