package mib

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func withInfo(t *testing.T) *Store {
	s := goldenStore(t)
	h := s.next.host
	h.VMInfo = true
	s.SetHost(h)
	return s
}

func vmw(arcs ...uint32) []uint32 { return append(VMInfoRoot(), arcs...) }

func TestVMInfo(t *testing.T) {
	v := withInfo(t).View()
	var got []string
	walk(t, v, func(name []uint32, val Value) {
		if rest, ok := strings.CutPrefix(dotted(name), "1.3.6.1.4.1.6876.2.1.1."); ok {
			got = append(got, fmt.Sprintf("%s = %v", rest, val))
		}
	})
	want := []string{
		`2.1 = STRING "web"`, `2.2 = STRING "db"`, `2.12 = STRING "odd"`,
		`3.1 = STRING ""`, `3.2 = STRING ""`, `3.12 = STRING ""`,
		`4.1 = STRING "OpenBSD"`, `4.2 = STRING ""`, `4.12 = STRING ""`,
		`5.1 = INTEGER 512`, `5.2 = INTEGER 512`, `5.12 = INTEGER 1`,
		`6.1 = STRING "powered on"`, `6.2 = STRING "powered off"`, `6.12 = STRING "suspended"`,
		`7.1 = INTEGER 1`, `7.2 = INTEGER 2`, `7.12 = INTEGER 12`,
		`8.1 = STRING "running"`, `8.2 = STRING "notRunning"`, `8.12 = STRING "notRunning"`,
		`9.1 = INTEGER 2`, `9.2 = INTEGER 1`, `9.12 = INTEGER 1`,
		`10.1 = STRING "01000000-0000-0000-0000-000000000001"`,
		`10.2 = STRING "01000000-0000-0000-0000-000000000002"`, `10.12 = STRING ""`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
	for _, o := range [][]uint32{vmw(), vmw(1, 1), vmw(11, 1), {1, 3, 6, 1, 4, 1, 6876, 2, 1, 2}} {
		if got := v.Get(o); got.Type != TypeNoSuchObject {
			t.Errorf("get %s: %v", dotted(o), got)
		}
	}
	if got := v.Get(vmw(2, 3)); got.Type != TypeNoSuchInstance {
		t.Errorf("get of no machine: %v", got)
	}
	if name, _ := v.Next(nil, vmw(10, 12), false, nil); len(name) != 0 {
		t.Errorf("%s comes behind the last one", dotted(name))
	}
	// From one subtree into the other, but not past the end of the range.
	if name, _ := v.Next(nil, oid(1, 10, 0), false, nil); !slices.Equal(name, vmw(2, 1)) {
		t.Errorf("behind VM-MIB comes %s", dotted(name))
	}
	if _, val := v.Next(nil, oid(1, 10, 0), false, []uint32{1, 3, 6, 1, 2, 1, 237}); val.Type != TypeEndOfMIBView {
		t.Errorf("behind the end of VM-MIB comes %v", val)
	}
}

// What is not switched on is not there.
func TestNoVMInfo(t *testing.T) {
	v := goldenStore(t).View()
	if got := v.Get(vmw(2, 1)); got.Type != TypeNoSuchObject {
		t.Errorf("get: %v", got)
	}
	if _, got := v.Next(nil, VMInfoRoot(), true, nil); got.Type != TypeEndOfMIBView {
		t.Errorf("next: %v", got)
	}
}

func TestVMInfoStates(t *testing.T) {
	s := withInfo(t)
	for state, want := range map[OperState]string{
		OperUnknown: "unknown unknown", OperOther: "unknown unknown", OperPreparing: "powered off notRunning",
		OperRunning: "powered on running", OperSuspending: "suspended notRunning",
		OperSuspended: "suspended notRunning", OperResuming: "powered on notRunning",
		OperPaused: "suspended notRunning", OperMigrating: "powered on running",
		OperShuttingDown: "powered on shuttingDown", OperShutdown: "powered off notRunning",
		OperCrashed: "powered off notRunning",
	} {
		put(t, s, plain(5, state))
		v := s.View()
		if got := v.Get(vmw(6, 5)).Text + " " + v.Get(vmw(8, 5)).Text; got != want {
			t.Errorf("state %d: %q, want %q", state, got, want)
		}
	}
}

func TestSetOutsideOfTheMIB(t *testing.T) {
	s := withInfo(t)
	if _, err := s.Test([]VarBind{{vmw(2, 1), octets("x")}}); err == nil || err.Code != ErrNotWritable {
		t.Errorf("set of vmwVmDisplayName: %v", err)
	}
}
