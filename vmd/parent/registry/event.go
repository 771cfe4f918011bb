package registry

import (
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// Event is something that happened: one of the types below.
type Event interface{ event() }

// Asker is who waits for an answer: a connection to control and the client's
// number for its request. The zero Asker is nobody.
type Asker struct {
	Client  uint64
	Request uint64
}

// Request is what a client asks. Body is the struct that vmop names beside Type,
// by value. Peer.Groups are the groups of the user, the primary one included.
type Request struct {
	From Asker
	Peer vmop.Peer
	Type vmop.Type
	Body any
}

// ClientGone says that nobody waits for answers to Client any more.
type ClientGone struct{ Client uint64 }

// Configure brings a configuration that was read without an error. With Load it
// is added to what there is, else it replaces it.
type Configure struct {
	VMs      []config.VM
	Parallel int
	Delay    time.Duration
	Load     bool
	To       Asker
}

// ConfigFailed says that the configuration asked for could not be read.
type ConfigFailed struct {
	To     Asker
	Code   vmop.Code
	Detail string
}

// VMEvent is news of a VM, from vmm or, for a start that did not get that far,
// from the shell. Started is what the shell did for it (with EventStarted);
// Totals are the counters of a run that ended.
type VMEvent struct {
	vmop.Event
	Started Started
	Totals  vmop.Totals
}

// Started is what the host gave a VM.
type Started struct {
	TTY  string
	NICs []RunNIC
}

// Adopted says that VM ID still has its process and is looked after again. Name
// and Def are what the process says of itself, for a VM nobody remembers.
type Adopted struct {
	ID      uint32
	PID     int
	State   vmop.State
	Started time.Duration
	Def     config.VM
}

// VMMGone says that there is a new vmm, which knows of no VM.
type VMMGone struct{}

// Recover begins to look for the VMs that ran when the state was saved.
type Recover struct{}

// Timer says that the time of an Arm has come.
type Timer struct{ Key TimerKey }

// Shutdown asks for the end of all VMs, then of the daemon.
type Shutdown struct{ Force bool }

func (Request) event()      {}
func (ClientGone) event()   {}
func (Configure) event()    {}
func (ConfigFailed) event() {}
func (VMEvent) event()      {}
func (Adopted) event()      {}
func (VMMGone) event()      {}
func (Recover) event()      {}
func (Timer) event()        {}
func (Shutdown) event()     {}
