// Package fleet asks hosts for their VMs over SNMP: VM-MIB (RFC 7666), which
// vmd serves through each host's master agent. It can read and nothing else.
//
// What a host answers is not trusted: there is a limit to how much it may say
// and how long it may take, and its strings are made fit for a terminal.
package fleet

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// VM is a row of a host's vmTable.
type VM struct {
	ID         uint32
	Name       string
	UUID       [16]byte // zero: not known
	Admin      int32    // vmAdminState
	Oper       int32    // vmOperState
	Autostart  bool
	Persistent bool
	CPUs       int
	Memory     uint64 // bytes it is defined with
	Allocated  uint64 // bytes it has now
	Uptime     time.Duration
	CPUTime    time.Duration
}

// States of VirtualMachineOperState, and one of VirtualMachineAdminState
// (RFC 7666).
const (
	operRunning      = 4
	operSuspending   = 5
	operResuming     = 7
	operPaused       = 8
	operMigrating    = 9
	operShuttingDown = 10
	operShutdown     = 11

	adminRunning = 1
)

// states are the words of vmctl status where it has one, else those of the MIB.
var states = [...]string{"unknown", "unknown", "other", "preparing", "running", "suspending", "suspended",
	"resuming", "paused", "migrating", "stopping", "stopped", "crashed"}

// State is the VM's state in a word. A VM that shall run, but has not been
// started, waits for its turn.
func (v *VM) State() string {
	switch {
	case v.Oper < 0 || int(v.Oper) >= len(states):
		return states[0]
	case v.Oper == operShutdown && v.Admin == adminRunning:
		return "waiting"
	}
	return states[v.Oper]
}

// Live reports whether the VM has a process.
func (v *VM) Live() bool {
	switch v.Oper {
	case operRunning, operSuspending, operResuming, operPaused, operMigrating, operShuttingDown:
		return true
	}
	return false
}

// Answer is what one host said.
type Answer struct {
	Host string // as it was asked for
	VMs  []VM   // those that run first, in the order in which they were started
	Err  error
}

// maxParallel is how many hosts are asked at a time.
const maxParallel = 32

// Ask asks all hosts at once and returns their answers in the same order. A
// host that does not answer costs its own time limit, and no other host's answer.
func Ask(ctx context.Context, c *Config, hosts []string) []Answer {
	answers := make([]Answer, len(hosts))
	turn := make(chan struct{}, maxParallel)
	var wg sync.WaitGroup
	for i, host := range hosts {
		wg.Add(1)
		turn <- struct{}{}
		go func() {
			defer wg.Done()
			vms, err := ask(ctx, c, host)
			inOrder(vms)
			answers[i] = Answer{host, vms, err}
			<-turn
		}()
	}
	wg.Wait()
	return answers
}

func inOrder(vms []VM) {
	slices.SortFunc(vms, func(a, b VM) int {
		switch {
		case a.Live() != b.Live():
			if a.Live() {
				return -1
			}
			return 1
		case a.Live() && a.Uptime != b.Uptime:
			return cmp.Compare(b.Uptime, a.Uptime)
		}
		return cmp.Compare(a.ID, b.ID)
	})
}
