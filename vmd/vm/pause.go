package vm

import (
	"errors"
	"fmt"

	"vmd/hv/virtio/vmmci"
	"vmd/internal/vmop"
)

// errMoving says that a guest is somebody else's, or about to be.

var errMoving = errors.New("it is being sent to another host")

func (v *vm) moving() error {
	if v.outgoing != nil || v.sent {
		return errMoving
	}
	return nil
}

func (v *vm) pauseGuest(vmop.VMID) {
	err := v.moving()
	if err == nil {
		err = v.machine.Pause()
	}
	if err == nil {
		v.state = vmop.Paused
	}
	v.reply(vmop.EventPaused, err)
}

func (v *vm) unpause(vmop.VMID) {
	err := v.moving()
	if err == nil && v.unlocked {
		if err := v.tryDrives(); err != nil {
			v.tell(vmop.EventError, vmop.ErrDiskLocked, fmt.Errorf("the guest runs on another host, by the look of it: %w", err))
			return
		}
		v.unlocked = false
	}
	if err == nil {
		err = v.machine.Resume()
	}
	if err == nil {
		v.tellDriver(vmmci.SyncRTC) // its clock stood still
		v.state = vmop.Running
	}
	v.reply(vmop.EventUnpaused, err)
}

func (v *vm) reply(kind vmop.EventKind, err error) {
	if err != nil {
		v.tell(vmop.EventError, vmop.ErrHypervisor, err)
		return
	}
	v.tell(kind, vmop.OK, nil)
}
