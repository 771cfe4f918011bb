package registry

import (
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// Action is something to be done: one of the types below.
type Action interface{ action() }

// Answer is the one answer to a request.
type Answer struct {
	To     Asker
	Result vmop.Result
}

// Record is one VM in the answer to a List.
type Record struct {
	To Asker
	VM vmop.VM
}

// Count is one VM in the answer to a Count: the shell reads its counters.
type Count struct {
	To    Asker
	Stats vmop.Stats // as far as the registry knows
	PID   int
	NICs  []RunNIC
}

// StartVM has a VM started. The descriptors that Files names came with the
// request of From, if it is not zero, else they are those of the run before.
// With Again the guest has reset: the tty, and files that a client gave, are kept.
// With Receive there is no start: that guest comes through the socket of From.
type StartVM struct {
	ID      uint32
	UUID    [16]byte
	Def     config.VM // with all MAC addresses
	From    Asker
	Files   []string
	Again   bool
	Receive *vmop.Guest
}

// SendVM sends a VM's guest through the socket that came with From's request.
type SendVM struct {
	ID       uint32
	From     Asker
	Guest    vmop.Guest
	MaxPause uint32 // ms; 0: as is usual
}

// AbortSend ends the sending of a VM, which runs on if it is not too late.
type AbortSend struct{ ID uint32 }

// StopVM ends a VM, by its power button or at once.
type StopVM struct {
	ID    uint32
	Force bool
}

// PauseVM stops a VM's vCPUs.
type PauseVM struct{ ID uint32 }

// UnpauseVM lets a VM's vCPUs run.
type UnpauseVM struct{ ID uint32 }

// Attach connects a client to a VM's console; the shell answers.
type Attach struct {
	ID                 uint32
	To                 Asker
	ReadOnly, NoReplay bool
	Result             vmop.Result
}

// SendBreak sends a serial BREAK to a guest.
type SendBreak struct{ ID uint32 }

// AdoptVM looks for the process of a VM that ran before vmm, or the daemon, was
// restarted; an Adopted or a VMEvent follows.
type AdoptVM struct {
	ID  uint32
	PID int
}

// EndRun gives back what a VM that has no process any more held of the host.
type EndRun struct {
	ID   uint32
	Keep bool // it is about to be started again: keep tty and files
}

// Publish tells the subagent what a VM is now.
type Publish struct{ VM vmop.VM }

// Delete tells the subagent that a VM is not defined any more.
type Delete struct{ ID uint32 }

// ReadConfig reads a configuration: the daemon's own if Path is empty. A
// Configure or ConfigFailed with To follows.
type ReadConfig struct {
	Path string
	To   Asker
}

// ForgetSwitches drops the configured switches.
type ForgetSwitches struct{}

// SetVerbose sets how much is logged, by all processes.
type SetVerbose struct{ Verbose bool }

// Arm asks for a Timer after After. It replaces one of the same key.
type Arm struct {
	Key   TimerKey
	After time.Duration
}

// Disarm drops a timer.
type Disarm struct{ Key TimerKey }

// SaveState has State written down. It comes last.
type SaveState struct{}

// Quit ends the daemon: no VM runs.
type Quit struct{}

// Log is a line for the log.
type Log struct {
	Level   Level
	Message string
	ID      uint32
	Name    string
	UID     *uint32
	Detail  string
}

// Level is how much a Log matters.
type Level uint8

// The levels.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// TimerKind says what a timer is for.
type TimerKind uint8

// The timers.
const (
	TimerStarter  TimerKind = iota // the next batch of the staggered start
	TimerWait                      // Asker has waited long enough
	TimerRestart                   // VM ID, which failed, is started again
	TimerShutdown                  // guests have had their time to shut down
)

// TimerKey names a timer.
type TimerKey struct {
	Kind  TimerKind
	ID    uint32
	Asker Asker
}

func (Answer) action()         {}
func (Record) action()         {}
func (Count) action()          {}
func (StartVM) action()        {}
func (StopVM) action()         {}
func (SendVM) action()         {}
func (AbortSend) action()      {}
func (PauseVM) action()        {}
func (UnpauseVM) action()      {}
func (Attach) action()         {}
func (SendBreak) action()      {}
func (AdoptVM) action()        {}
func (EndRun) action()         {}
func (Publish) action()        {}
func (Delete) action()         {}
func (ReadConfig) action()     {}
func (ForgetSwitches) action() {}
func (SetVerbose) action()     {}
func (Arm) action()            {}
func (Disarm) action()         {}
func (SaveState) action()      {}
func (Quit) action()           {}
func (Log) action()            {}
