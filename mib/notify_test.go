package mib

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Section by section the edges of RFC 7666's state diagram, and the short cuts.
// "name<left" is a notification and its vmOperState.
func TestCompare(t *testing.T) {
	const none OperState = 0
	cases := []struct {
		old, now OperState
		want     string
	}{
		{none, OperPreparing, ""},
		{OperPreparing, OperShutdown, "vmShutdown<3"},
		{none, OperShutdown, "vmShutdown<3"},
		{none, OperRunning, "vmShutdown<3 vmRunning<11"},
		{none, OperMigrating, "vmShutdown<3 vmMigrating<11"},
		{none, OperUnknown, ""},
		{OperShutdown, OperRunning, "vmRunning<11"},
		{OperShutdown, OperMigrating, "vmMigrating<11"},
		{OperShutdown, none, "vmDeleted<11"},
		{OperRunning, OperSuspending, "vmSuspending<4"},
		{OperSuspending, OperSuspended, "vmSuspended<5"},
		{OperSuspended, OperResuming, "vmResuming<6"},
		{OperResuming, OperRunning, "vmRunning<7"},
		{OperRunning, OperPaused, "vmPaused<4"},
		{OperPaused, OperRunning, "vmRunning<8"},
		{OperRunning, OperShuttingDown, "vmShuttingdown<4"},
		{OperShuttingDown, OperShutdown, "vmShutdown<10"},
		{OperRunning, OperShutdown, "vmShutdown<4"}, // killed
		{OperPaused, OperShutdown, "vmShutdown<8"},
		{OperRunning, OperMigrating, "vmMigrating<4"},
		{OperMigrating, OperRunning, "vmRunning<9"},
		{OperMigrating, OperShutdown, "vmShutdown<9"},
		{OperRunning, OperCrashed, "vmCrashed<4"},
		{OperPaused, OperCrashed, "vmCrashed<8"},
		{OperCrashed, OperShutdown, "vmShutdown<12"},
		{OperCrashed, OperRunning, "vmRunning<12"},
		{OperRunning, none, "vmShutdown<4 vmDeleted<11"},
		{OperShuttingDown, none, "vmShutdown<10 vmDeleted<11"},
		{OperCrashed, none, "vmDeleted<12"},
		{OperRunning, OperRunning, ""},
		{OperRunning, OperUnknown, ""},
		{OperUnknown, OperRunning, "vmRunning<1"},
		{OperRunning, OperOther, ""},
		{none, none, ""},
	}
	for _, c := range cases {
		var old, now *VM
		if c.old != none {
			vm := plain(9, c.old)
			old = &vm
		}
		if c.now != none {
			vm := plain(9, c.now)
			now = &vm
		}
		var got []string
		for _, e := range Compare(old, now) {
			got = append(got, describe(t, e.Notification()))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%d to %d: %q, want %q", c.old, c.now, s, c.want)
		}
	}
}

var notificationNames = []string{
	"", "vmRunning", "vmShuttingdown", "vmShutdown", "vmPaused", "vmSuspending", "vmSuspended",
	"vmResuming", "vmMigrating", "vmCrashed", "vmDeleted",
}

// describe checks the objects of a per-VM notification of machine 9.
func describe(t *testing.T, n Notification) string {
	t.Helper()
	name := notificationNames[n.OID[len(root)+1]]
	want := []string{"1.4.1.2.9", "1.4.1.3.9", "1.4.1.6.9"}
	if name == "vmDeleted" {
		want = append(want, "1.4.1.8.9")
	}
	var got []string
	for _, b := range n.Objects {
		got = append(got, dotted(b.Name[len(root):]))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: objects (-want +got):\n%s", name, d)
	}
	if n.Objects[0].Value.Text != "vm9" || len(n.Objects[1].Value.Text) != 16 {
		t.Errorf("%s: %v", name, n.Objects)
	}
	return fmt.Sprintf("%s<%d", name, n.Objects[2].Value.Int())
}

func TestAffectedVMs(t *testing.T) {
	cases := []struct {
		list []int32
		want string
	}{
		{[]int32{1}, "\x80"},
		{[]int32{8}, "\x01"},
		{[]int32{9}, "\x00\x80"},
		{[]int32{1, 3, 16}, "\xa0\x01"},
	}
	for _, c := range cases {
		if got := affectedVMs(c.list); got != c.want {
			t.Errorf("%v: % x, want % x", c.list, got, c.want)
		}
	}
}

func TestBulk(t *testing.T) {
	event := func(index int32, left, now OperState) Event {
		vm := plain(index, now)
		return Event{VM: &vm, Left: left, Now: now}
	}
	out, left := Bulk([]Event{
		event(16, OperShutdown, OperRunning),
		event(3, OperRunning, OperPaused),
		event(3, OperPaused, OperRunning),
		event(1, OperShutdown, OperRunning),
		event(1, OperRunning, OperPaused),
		event(1, OperPaused, OperRunning),
		event(MaxBulkIndex+1, OperPaused, OperRunning),
		{VM: &VM{Index: 9}, Left: OperShutdown},
	})
	var got []string
	for _, n := range out {
		got = append(got, fmt.Sprintf("%s %s=%x", dotted(n.OID[len(root):]), dotted(n.Objects[0].Name[len(root):]), n.Objects[0].Value.Text))
	}
	want := []string{"0.11 1.11.0=a001", "0.14 1.11.0=a0", "0.20 1.11.0=0080"}
	if d := cmp.Diff(want, got); d != "" || left != 1 {
		t.Errorf("bulk, %d left (-want +got):\n%s", left, d)
	}
	if out, left := Bulk(nil); out != nil || left != 0 {
		t.Errorf("bulk of nothing: %v, %d", out, left)
	}
}

func TestBulkSplits(t *testing.T) {
	var events []Event
	for i := range int32(maxBulkVMs + 5) {
		events = append(events, Event{VM: &VM{Index: i + 1}, Left: OperRunning, Now: OperCrashed})
	}
	out, _ := Bulk(events)
	if len(out) != 2 {
		t.Fatalf("%d notifications, want 2", len(out))
	}
	if n := len(out[0].Objects[0].Value.Text); n != maxBulkVMs/8 {
		t.Errorf("first list has %d octets, want %d", n, maxBulkVMs/8)
	}
	if s := out[1].Objects[0].Value.Text; s[:maxBulkVMs/8] != strings.Repeat("\x00", maxBulkVMs/8) || s[maxBulkVMs/8:] != "\xf8" {
		t.Errorf("second list ends in % x", s[maxBulkVMs/8:])
	}
}
