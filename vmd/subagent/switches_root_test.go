package subagent

import (
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"vmd/internal/vmop"
)

// lastKept waits for the role to have its parent keep these switches.
func (h *testHost) lastKept(perVM, bulk bool) vmop.SNMPSwitches {
	h.t.Helper()
	var last []vmop.SNMPSwitches
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		h.mu.Lock()
		last = h.kept
		h.mu.Unlock()
		if n := len(last); n > 0 && last[n-1].PerVM == perVM && last[n-1].Bulk == bulk {
			return last[n-1]
		}
	}
	h.t.Fatalf("kept %+v, want %v and %v", last, perVM, bulk)
	return vmop.SNMPSwitches{}
}

// ages waits until snmpd has run for so long that another run of it can be told
// from this one.
func (h *testHost) ages() {
	h.t.Helper()
	for {
		r, err := h.client.Get([]string{".1.3.6.1.2.1.1.3.0"})
		if err != nil {
			h.t.Fatal(err)
		}
		if gosnmp.ToBigInt(r.Variables[0].Value).Int64() > 200 { // hundredths of a second
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// What a manager sets outlives the role, and not the master agent (RFC 7666,
// vmPerVMNotificationsEnabled).
func TestSwitchesOutliveTheRole(t *testing.T) {
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true})
	h.begin(named(3, "web"))
	h.await("1.2.0=1")
	h.set(0, 0, 9, 2, 10, 1)
	set := h.lastKept(false, true)

	h.end()
	h.config.Switches = &set
	h.spawn()
	h.begin(named(3, "web"))
	h.await("1.2.0=1")
	h.await("1.9.0=2")
	h.await("1.10.0=1")
	h.await("1.9.0=2") // and they stay when the session is up

	h.ages()
	h.snmpd.Restart()
	h.await("1.9.0=1")
	h.await("1.10.0=2")
	h.lastKept(true, false)

	// The master restarts while there is no role.
	h.set(0, 0, 9, 2)
	set = h.lastKept(false, false)
	h.ages()
	h.end()
	h.snmpd.Restart()
	h.config.Switches = &set
	h.spawn()
	h.begin(named(3, "web"))
	h.await("1.9.0=1")

	// A configuration that says something else undoes it.
	h.set(0, 0, 9, 2, 10, 1)
	h.lastKept(false, true)
	h.configure(func(c *vmop.SNMPConfig) { c.Bulk = true })
	h.lastKept(true, true)
	h.await("1.9.0=1")
}
