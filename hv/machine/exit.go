package machine

import (
	"fmt"
	"sync/atomic"
)

// Cause says why a guest's run has ended.
type Cause uint8

// Causes of an Exit.
const (
	PowerOff    Cause = 1 + iota // the guest switched itself off (ACPI S5)
	Reset                        // the guest asked for a reset
	TripleFault                  // a vCPU shut down; on a PC that is a reset too
	Killed                       // Stop was called
	Error                        // the machine could not go on; Err says why
)

func (c Cause) String() string {
	switch c {
	case PowerOff:
		return "power off"
	case Reset:
		return "reset"
	case TripleFault:
		return "triple fault"
	case Killed:
		return "killed"
	case Error:
		return "error"
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// Exit is how a guest's run has ended.
type Exit struct {
	Cause Cause
	Err   error // set if Cause is Error
}

// ExitKind groups the reasons for which a vCPU left the guest.
type ExitKind uint8

// Kinds of exits.
const (
	ExitIO     ExitKind = iota // port access
	ExitMMIO                   // memory access without RAM behind it
	ExitSignal                 // we, or Go's runtime, interrupted it
	ExitOther
	NumExitKinds
)

// VCPUCounters are words that the machine adds to while the vCPU runs, with
// atomic operations. They may lie in memory shared with other processes, and
// vCPUs may share words. A nil word counts nowhere.
type VCPUCounters struct {
	Time  *uint64 // nanoseconds of host CPU time that the vCPU's thread used
	Exits [NumExitKinds]*uint64
}

// withDefaults gives every nil word a place.
func (c VCPUCounters) withDefaults() VCPUCounters {
	if c.Time == nil {
		c.Time = new(uint64)
	}
	for i := range c.Exits {
		if c.Exits[i] == nil {
			c.Exits[i] = new(uint64)
		}
	}
	return c
}

func (c *VCPUCounters) count(k ExitKind) { atomic.AddUint64(c.Exits[k], 1) }
