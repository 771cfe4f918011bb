// Package vm is the process of one guest: it builds a machine of the
// descriptors it was given, runs it, and says how it ended. What it runs is
// hostile from its first instruction on, and may have taken this process over;
// so it holds this guest's files and nothing else.
//
//	user   one of its own where the host offers a range, else _vmd
//	root   empty; no network, processes or IPC of the host's
//	holds  its disks, taps, pty, counter page, a KVM VM; a socket to vmm, and
//	       one to listen on for a later vmm
//	trusts vmm; not the guest, nor the files
//
// It does not end because vmm did: the guest runs on, and waits on its own
// socket for the next vmm.
package vm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"vmd/hv/machine"
	"vmd/hv/sev"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/vmmci"
	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
)

// The process's own memory. A VM process allocates next to nothing once its
// guest runs; the limit is there for when it does.
const (
	gcPercent   = 50
	memoryLimit = 64 << 20
)

// warnPeriod is how long a burst of warnings about a guest silences the rest.
const warnPeriod = time.Minute

// vm is the state of the process. Only its loop touches it.
type vm struct {
	*privsep.Process
	spec    vmop.VMStartRequest
	files   files
	page    *counters.Page
	machine *machine.Machine
	control *vmmci.Device
	balloon *viomb.Device // nil for a guest with encrypted memory
	console *console
	started int64
	state   vmop.State

	drives     []*drive
	queues     []int            // of each interface: pairs
	announcers map[int]*os.File // copies of taps, for announce

	incoming *incoming // until the guest has come
	outgoing *outgoing // while it is on its way
	sent     bool      // it runs on another host; pause is how long it stood still
	pause    time.Duration
	unlocked bool // it may run on another host: its disks are nobody's until that is known

	manager  *imsg.Conn // whoever manages us; nil while nobody does
	shutdown shutdown
}

// Run is the role. It returns when the guest has ended.
func Run(p *privsep.Process) error {
	spec, fs, err := receiveSpec(p.Parent)
	if err != nil {
		return err
	}
	v := &vm{Process: p, spec: spec, files: fs, manager: p.Parent, console: newConsole(), announcers: map[int]*os.File{}}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(spec.CPUs + 2)
	p.UID, p.GID = spec.UID, spec.GID
	if spec.Receive != nil {
		p.Role.Promises = append(slices.Clone(p.Role.Promises), "kvm-receive")
	}
	if spec.SEV {
		p.Role.Promises = append(slices.Clone(p.Role.Promises), "kvm-encrypt")
		p.Role.Locked = sev.LockedMemory(spec.MemoryBytes)
	}
	if err := p.Confine(); err != nil {
		return v.fail(vmop.ErrInternal, err)
	}
	if spec.Receive != nil {
		return v.takeGuest()
	}
	if err := v.build(); err != nil {
		return v.fail(codeOf(err), err)
	}
	return v.run()
}

// receiveSpec takes the definition and the descriptors that vmm sends first.
func receiveSpec(c *imsg.Conn) (vmop.VMStartRequest, files, error) {
	var spec vmop.VMStartRequest
	m, err := c.Recv()
	if err != nil {
		return spec, nil, fmt.Errorf("receive the VM's definition: %w", err)
	}
	defer m.Close()
	if vmop.Type(m.Type) != vmop.VMSpec {
		return spec, nil, fmt.Errorf("receive the VM's definition: got message type %d", m.Type)
	}
	if err := imsg.Unmarshal(m.Payload, &spec); err != nil {
		return spec, nil, fmt.Errorf("receive the VM's definition: %w", err)
	}
	fs, err := takeFiles(&m, spec.Files)
	return spec, fs, err
}

// fail reports why the guest could not be started.
func (v *vm) fail(code vmop.Code, err error) error {
	v.manager.Send(uint16(vmop.VMEvent), 0, vmop.Event{
		ID: v.spec.ID, Kind: vmop.EventFailed, Code: code, Detail: err.Error(),
	})
	v.manager.Flush()
	return err
}

// run serves until the machine has ended, then says how.
func (v *vm) run() error {
	if err := v.machine.Start(); err != nil {
		return v.fail(vmop.ErrHypervisor, err)
	}
	v.serving(vmop.Running)
	v.Loop.Read(v.manager, v.handle, v.orphaned(v.manager))
	if err := v.Loop.Run(); err != nil {
		return err
	}
	return v.ended()
}

// serving is where a guest's life here begins.
func (v *vm) serving(s vmop.State) {
	v.started, v.state = counters.Monotonic(), s
	// One copy of the pty stays here, for a vmd that has lost its own.
	if tty, err := v.files.dup("tty"); err != nil {
		v.Log.Error().Err(err).Msg("console without a tty")
	} else if tty != nil {
		v.console.attach(tty, false, true)
	}
	v.report(vmop.Event{Kind: vmop.EventStarted, State: s, Encryption: v.encryption()})
	v.listen()
	debug.FreeOSMemory() // what building the machine took
	if err := trimProgram(); err != nil {
		v.Log.Debug().Err(err).Msg("process stays larger than it need be")
	}
	go func() {
		<-v.machine.Done()
		v.Loop.Post(func() { v.Loop.Stop(nil) })
	}()
}

// drainTime is how long a guest's last words are kept for viewers that read
// slowly.
const drainTime = 500 * time.Millisecond

// ended reports the machine's end and lets go of everything.
func (v *vm) ended() error {
	v.endSending()
	exit := v.machine.Exit()
	kind := v.shutdown.result(exit.Cause)
	err := exit.Err
	switch {
	case err != nil:
		v.Log.Error().Err(err).Msg("guest failed")
	case exit.Cause == machine.TripleFault:
		// A reset, for some systems on purpose; but it is to be told apart.
		err = errors.New(exit.Cause.String())
		v.Log.Warn().Err(err).Msg("guest reset itself")
	}
	done := v.console.finish()
	if cerr := v.machine.Close(); cerr != nil {
		v.Log.Warn().Err(cerr).Msg("machine did not close cleanly")
	}
	select {
	case <-done:
	case <-time.After(drainTime):
	}
	v.tell(kind, 0, err)
	if v.manager != nil {
		v.manager.Flush()
	}
	return nil
}
