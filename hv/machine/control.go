package machine

import "errors"

// phase is what the vCPUs are to do.
type phase uint8

const (
	built phase = iota // not started yet
	running
	paused
	ended
)

// ErrEnded says that the machine does not run: its run is over, or has not
// begun.
var ErrEnded = errors.New("the guest is not running")

// mayRun is called by v's thread before it enters the guest. It waits while the
// machine is paused and returns false once its run is over.
func (m *Machine) mayRun(v *vcpu) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase == paused {
		m.parked++
		m.changed.Broadcast()
		for m.phase == paused {
			m.changed.Wait()
		}
		m.parked--
		if m.phase == running {
			v.kvm.ClockPaused()
		}
	}
	if m.phase != running {
		return false
	}
	// Under the lock, so that no kick of a later Pause is undone.
	v.kvm.Clear()
	return true
}

// vcpuDone is the last that v's thread does.
func (m *Machine) vcpuDone(v *vcpu) {
	m.mu.Lock()
	v.sample()
	v.tid.Store(0)
	m.alive--
	m.changed.Broadcast()
	m.mu.Unlock()
}

// Pause stops every vCPU and returns when all have left the guest and no device
// has a request in flight. Pausing twice is pausing once.
func (m *Machine) Pause() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	_, err := m.pause()
	return err
}

// pause is Pause for who has ctl, and says whether the machine ran before.
func (m *Machine) pause() (news bool, err error) {
	news, err = m.park()
	if err != nil || !news {
		return news, err
	}
	m.drainPorts()
	for _, f := range m.virtio {
		f.Pause()
	}
	m.stopClocks()
	return true, nil
}

// park stops the vCPUs, and says whether they ran before.
func (m *Machine) park() (news bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.phase {
	case paused:
		return false, nil
	case running:
	default:
		return false, ErrEnded
	}
	m.phase = paused
	m.kickAll()
	for m.phase == paused && m.parked < m.alive {
		m.changed.Wait()
	}
	if m.phase != paused {
		return false, ErrEnded
	}
	return true, nil
}

// Resume lets the guest go on after Pause, with its clocks as they were. A guest
// with a kvmclock is told that it stood still.
func (m *Machine) Resume() error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if m.moving {
		return errMoving
	}
	return m.resume()
}

// resume is Resume for who has ctl.
func (m *Machine) resume() error {
	if p := m.current(); p == running {
		return nil
	} else if p != paused {
		return ErrEnded
	}
	m.startClocks()
	for _, f := range m.virtio {
		f.Resume()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase != paused {
		return ErrEnded
	}
	m.phase = running
	m.changed.Broadcast()
	return nil
}

func (m *Machine) current() phase {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.phase
}

// Stop ends the run from outside: the cause is Killed, unless the guest was
// first. It does not wait; Done tells.
func (m *Machine) Stop() { m.end(Killed, nil) }

// end ends the run. The first cause counts. It may be called on a vCPU's
// thread, by a device.
func (m *Machine) end(c Cause, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exit.Cause != 0 {
		return
	}
	m.exit = Exit{Cause: c, Err: err}
	started := m.phase != built
	m.phase = ended
	if !started {
		close(m.done)
		return
	}
	m.kickAll()
	m.changed.Broadcast()
}

// kickAll has m.mu.
func (m *Machine) kickAll() {
	for _, v := range m.vcpus {
		v.kick()
	}
}

// Done is closed when the run is over: no vCPU runs and no device works any
// more.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit says how the run ended. It is for after Done.
func (m *Machine) Exit() Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}
