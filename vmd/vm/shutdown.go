package vm

import (
	"time"

	"vmd/hv/boot"
	"vmd/hv/machine"
	"vmd/hv/pci"
	"vmd/hv/virtio/vmmci"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// How long a guest may take: to notice that it is to stop, and to power off
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
	went   bool // the guest announced its end, and halted
	timer  *privsep.Timer
}

// addControl gives the guest the device by which OpenBSD's is told to stop, and
// tells of it. A kernel that is known to be of another kind has no driver for
// it: it would only look at its registers for nothing.
func (v *vm) addControl() error {
	if wanted, err := v.wantsControl(); err != nil || !wanted {
		return err
	}
	v.control = vmmci.New(vmmci.Config{
		Acked: func(c vmmci.Command) {
			if c != vmmci.SyncRTC {
				v.Loop.Post(v.noticed)
			}
		},
		Announced: func() { v.Loop.Post(v.announced) },
	})
	return v.machine.AddLegacy(pci.SlotVMMCI, "vmmci0", v.control, vmmci.ID)
}

// wantsControl says whether the guest has, or may have, a driver for it. One with
// encrypted memory has no device of virtio 0.9, which this one is.
func (v *vm) wantsControl() (bool, error) {
	if v.spec.SEV {
		return false, nil
	}
	if v.spec.Receive != nil {
		return v.spec.Receive.Control, nil
	}
	k, err := v.image("kernel")
	return err == nil && (k == nil || boot.Identify(*k) == boot.OpenBSD), err
}

// tellDriver sends a command to the guest's vmmci driver, if it has the device.
func (v *vm) tellDriver(c vmmci.Command) {
	if v.control != nil {
		v.control.Send(c)
	}
}

// stop asks the guest to power off, or switches it off.
func (v *vm) stop(r vmop.VMStopRequest) {
	if v.sent { // the manager has taken note
		v.machine.Stop()
		return
	}
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
	// Both, for we cannot know which it listens to. A guest that heeds vmmci is
	// asked to reboot: without ACPI it could not switch itself off, and a reset
	// counts as a stop now.
	v.machine.PowerButton()
	v.tellDriver(vmmci.Reboot)
	v.shutdown.timer = v.Loop.After(ackTime, func() {
		if !v.shutdown.seen {
			v.kill("guest does not listen to its power button")
		}
	})
}

// announced runs on the loop when the guest says that it shuts down. It may
// still reset itself, or power off; if it only halts it is off, too.
func (v *vm) announced() {
	if v.shutdown.asked || v.shutdown.went {
		return
	}
	v.shutdown.went = true
	v.Loop.After(ackTime, func() {
		if v.moving() == nil { // else it may have gone, and halts where it is
			v.Log.Info().Msg("guest has halted")
			v.machine.Stop()
		}
	})
}

// noticed runs on the loop when the guest has noticed that it is to stop.
func (v *vm) noticed() {
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
	case c == machine.Killed && s.went && !s.forced:
		return vmop.EventPoweroff
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
