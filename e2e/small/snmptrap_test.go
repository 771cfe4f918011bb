package small

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// trapOID is snmpTrapOID.0 with a notification of VM-MIB.
var trapOID = regexp.MustCompile(`\.1\.3\.6\.1\.6\.3\.1\.1\.4\.1\.0 = OID: \.1\.3\.6\.1\.2\.1\.236\.0\.(\d+)\b`)

// kinds are the last numbers of the notifications in text, in order.
func kinds(text string) (list []int) {
	for _, m := range trapOID.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(m[1])
		list = append(list, n)
	}
	return list
}

// A real snmptrapd receives each notification that a VM of vmd can cause, per VM
// and in bulk.
func TestSNMPNotifications(t *testing.T) {
	dir := setUp(t)
	halt := harness.Tiny(t, dir, "halt", "x", harness.TinyHalt)
	fault := harness.Tiny(t, dir, "fault", "x", harness.TinyFault)
	vms := define("vm", halt, "disable")
	h := newSNMPHost(t, "notifications both", vms+define("bad", fault, "disable", "restart never"))
	h.await("1.2.0", int64(2))
	const running, shuttingDown, shutdown, paused, crashed, deleted, bulk = 1, 2, 3, 4, 9, 10, 10
	await := func(kind int) {
		t.Helper()
		harness.WaitFor(t, fmt.Sprintf("notification %d", kind), func() bool { return slices.Contains(kinds(h.traps.Text()), kind) })
	}
	if got := kinds(h.traps.Text()); len(got) > 0 {
		t.Errorf("VMs that were there at the start cause %v", got)
	}
	h.vmd.Vmctl("start", "vm")
	await(running)
	h.vmd.Vmctl("pause", "vm")
	await(paused)
	h.vmd.Vmctl("unpause", "vm")
	h.vmd.Await("vm", "running")
	h.vmd.Vmctl("stop", "vm") // which this guest does not hear
	await(shuttingDown)
	h.vmd.Vmctl("stop", "-f", "vm")
	await(shutdown)
	h.vmd.VmctlAs("root", "start", "bad")
	await(crashed)
	h.vmd.WriteConfig(fmt.Sprintf("agentx path %q notifications both\n%s", h.snmpd.Socket, vms))
	h.vmd.Vmctl("reload")
	await(deleted)
	for _, kind := range []int{running, paused, shuttingDown, shutdown, crashed, deleted} {
		await(bulk + kind)
	}
	id := h.vmd.Row("vm").ID
	for _, want := range []string{
		fmt.Sprintf(`.236.1.4.1.2.%d = STRING: "vm"`, id),
		fmt.Sprintf(`.236.1.4.1.6.%d = INTEGER: 4`, id), // the state that it left
		`.236.1.11.0 = `,
	} {
		if !strings.Contains(h.traps.Text(), want) {
			t.Errorf("no trap with %s", want)
		}
	}
}

// A master that dies, restarts or hangs keeps no VM from anything, and vmd is back
// with it by itself.
func TestSNMPMasterComesAndGoes(t *testing.T) {
	dir := setUp(t)
	h := newSNMPHost(t, "", halting(t, dir, "a")+define("b", filepath.Join(dir, "a"), "disable"))
	h.await("1.2.0", int64(2))
	a, b := h.vmd.Await("a", "running"), h.vmd.Row("b")
	for name, away := range map[string]struct{ leave, back func() }{
		"killed":  {h.snmpd.Kill, h.snmpd.Start},
		"ended":   {h.snmpd.Stop, h.snmpd.Start},
		"stopped": {func() { h.snmpd.Signal(unix.SIGSTOP) }, func() { h.snmpd.Signal(unix.SIGCONT) }},
	} {
		t.Run(name, func(t *testing.T) {
			away.leave()
			h.vmd.Vmctl("start", "b")
			h.vmd.Await("b", "running")
			h.vmd.Vmctl("stop", "-fw", "b")
			away.back()
			start := time.Now()
			h.await("1.2.0", int64(2))
			t.Logf("it took vmd %v to come back", time.Since(start)) // agentx tests how long that may be
			if now := h.vmd.Row("a"); now.PID != a.PID || now.State != "running" {
				t.Errorf("a was %+v, is %+v", a, now)
			}
			// What happened in between is told.
			harness.WaitFor(t, "the traps about b", func() bool {
				return strings.Count(h.traps.Text(), fmt.Sprintf("236.1.4.1.6.%d = INTEGER: ", b.ID)) >= 2
			})
			h.traps.Reset()
		})
	}
}

// A guest whose process does not run is read like any other.
func TestSNMPDoesNotWaitForAGuest(t *testing.T) {
	dir := setUp(t)
	h := newSNMPHost(t, "", halting(t, dir, "a", "b"))
	h.vmd.Await("b", "running")
	a := h.vmd.Await("a", "running")
	h.await("1.2.0", int64(2))
	h.await(fmt.Sprintf("1.4.1.6.%d", a.ID), int64(4))
	if err := unix.Kill(a.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(a.PID, unix.SIGCONT)
	// snmpd drops a subagent that takes a second (agentXTimeout, one of six
	// tries): whoever waited for the guest would be gone.
	for range 3 {
		if got := h.get(fmt.Sprintf("1.4.1.6.%d", a.ID)); got != int64(4) {
			t.Errorf("state of the guest: %v", got)
		}
		if vars := harness.Walk(t, h.snmpd, harness.VMMIB); len(vars) < 8+2*17 {
			t.Errorf("%d variables", len(vars))
		}
	}
	if strings.Contains(h.vmd.Log(), "no session with the master agent") {
		t.Error("the session was lost")
	}
}
