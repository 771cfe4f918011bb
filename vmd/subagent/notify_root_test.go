package subagent

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vmd/agentx"
	"vmd/internal/testenv"
	"vmd/internal/vmop"
	"vmd/mib"
)

// trapLine is what snmptrapd prints of a notification of VM-MIB: behind its
// sysUpTime its own number and its objects.
var trapLine = regexp.MustCompile(`(?m)^\.1\.3\.6\.1\.2\.1\.1\.3\.0 = Timeticks: \(\d+\) \S+\t` +
	`\.1\.3\.6\.1\.6\.3\.1\.1\.4\.1\.0 = OID: \.1\.3\.6\.1\.2\.1\.236\.(.*)$`)

// traps are the notifications of VM-MIB that r has received, without what they
// have in common.
func traps(r *testenv.TrapReceiver) (list []string) {
	for _, m := range trapLine.FindAllStringSubmatch(r.Text(), -1) {
		list = append(list, strings.ReplaceAll(strings.TrimSpace(m[1]), "\t.1.3.6.1.2.1.236.", "; "))
	}
	return list
}

func awaitTraps(t *testing.T, r *testenv.TrapReceiver, want []string) {
	t.Helper()
	var got []string
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = traps(r); len(got) >= len(want) {
			break
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("notifications (-want +got):\n%s", d)
	}
}

// A real snmptrapd receives all twenty notifications of the MIB with their
// objects, of which vmd's own states cause not all.
func TestAllNotifications(t *testing.T) {
	r := testenv.Snmptrapd(t)
	m := testenv.Snmpd(t, "trap2sink "+r.Addr+" public")
	store := mib.NewStore(mib.Config{Clock: func() time.Duration { return time.Hour }})
	agent := agentx.New(agentx.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", m.Socket)
		},
		Handler: handler{store, func() {}}, Subtree: mib.Root(), Description: "test",
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { agent.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	s := &server{store: store, session: &session{agent: agent}}

	vm := &mib.VM{Index: 9, Name: "web", UUID: [16]byte{1, 15: 0xff}, Persistent: mib.PersistentNo}
	var events []mib.Event
	var want, bulk []string
	for i, now := range []mib.OperState{ // in the order of the notifications
		mib.OperRunning, mib.OperShuttingDown, mib.OperShutdown, mib.OperPaused, mib.OperSuspending,
		mib.OperSuspended, mib.OperResuming, mib.OperMigrating, mib.OperCrashed, 0,
	} {
		left := mib.OperState(i + 1)
		if left == now {
			left = mib.OperUnknown
		}
		events = append(events, mib.Event{VM: vm, Left: left, Now: now})
		w := fmt.Sprintf(`0.%d; 1.4.1.2.9 = STRING: "web"; `+
			`1.4.1.3.9 = Hex-STRING: 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 FF ; 1.4.1.6.9 = INTEGER: %d`, i+1, left)
		if now == 0 {
			w += "; 1.4.1.8.9 = INTEGER: 3"
		}
		want = append(want, w)
		bulk = append(bulk, fmt.Sprintf("0.%d; 1.11.0 = Hex-STRING: 00 80", i+11))
	}
	for _, e := range events {
		s.send(e.Notification())
	}
	list, left := mib.Bulk(events)
	for _, n := range list {
		s.send(n)
	}
	if left != 0 {
		t.Errorf("%d are left", left)
	}
	awaitTraps(t, r, append(want, bulk...))
}

// step is a change of a VM, and the per-VM notifications that it causes: their
// last arcs, each with the state that was left (RFC 7666, vmRunning and the others).
type step struct {
	state vmop.State
	want  []string
}

// Every change of state that a VM of vmd goes through causes what RFC 7666 has for
// it and nothing else, and so it does in bulk.
func TestNotificationsOfEveryChange(t *testing.T) {
	r := testenv.Snmptrapd(t)
	h := newHost(t, vmop.SNMPConfig{Enabled: true, PerVM: true}, "trap2sink "+r.Addr+" public")
	there := named(1, "there")
	h.begin(there) // which is no news
	h.await("1.2.0=1")
	steps := []step{
		{vmop.Stopped, []string{"3 left 3"}}, // new: preparing, as it were, and then shutdown
		{vmop.Waiting, nil},
		{vmop.Starting, nil},
		{vmop.Running, []string{"1 left 11"}},
		{vmop.Running, nil},
		{vmop.Paused, []string{"4 left 4"}},
		{vmop.Running, []string{"1 left 8"}},
		{vmop.Stopping, []string{"2 left 4"}},
		{vmop.Stopped, []string{"3 left 10"}},
		{vmop.Running, []string{"1 left 11"}},
		{vmop.Stopped, []string{"3 left 4"}}, // by force
		{vmop.Running, []string{"1 left 11"}},
		{vmop.Paused, []string{"4 left 4"}},
		{vmop.Stopped, []string{"3 left 8"}},
		{vmop.Running, []string{"1 left 11"}},
		{vmop.Crashed, []string{"9 left 4"}},
		{vmop.Starting, []string{"3 left 12"}},
		{vmop.Running, []string{"1 left 11"}},
		{vmop.Stopping, []string{"2 left 4"}},
		{vmop.Crashed, []string{"9 left 10"}},
		{vmop.Stopped, []string{"3 left 12"}},
		{vmop.Running, []string{"1 left 11"}},
		{vmop.Migrating, []string{"8 left 4"}},
		{vmop.Running, []string{"1 left 9"}}, // it was not sent after all
		{vmop.Paused, []string{"4 left 4"}},
		{vmop.Migrating, []string{"8 left 8"}},
		{vmop.Stopped, []string{"3 left 9"}},
	}
	var want []string
	add := func(id int, list ...string) {
		for _, w := range list {
			var kind, left int
			fmt.Sscanf(w, "%d left %d", &kind, &left)
			s := fmt.Sprintf(`0.%d; 1.4.1.2.%d = STRING: "vm"; 1.4.1.3.%d = Hex-STRING: %s%02X ; 1.4.1.6.%d = INTEGER: %d`,
				kind, id, id, strings.Repeat("00 ", 15), id, id, left)
			if kind == 10 {
				s += fmt.Sprintf("; 1.4.1.8.%d = INTEGER: 2", id)
			}
			want = append(want, s)
		}
	}
	change := func(id uint32, state vmop.State) {
		vm := named(id, "vm")
		vm.State = state
		h.send(vmop.SNMPPut, vm)
	}
	for _, s := range steps {
		change(200, s.state)
		add(200, s.want...)
	}
	h.send(vmop.SNMPDelete, vmop.VMID{ID: 200})
	add(200, "10 left 11")
	change(201, vmop.Running) // a short way in, and one out
	h.send(vmop.SNMPDelete, vmop.VMID{ID: 201})
	add(201, "3 left 3", "1 left 11", "3 left 4", "10 left 11")
	h.send(vmop.SNMPDelete, vmop.VMID{ID: 77}) // never heard of
	awaitTraps(t, r, want)

	r.Reset()
	h.set(0, 0, 9, 2, 10, 1)
	h.await("1.9.0=2")
	for _, state := range []vmop.State{vmop.Stopped, vmop.Running, vmop.Paused, vmop.Migrating, vmop.Stopping, vmop.Crashed} {
		change(3, state)
	}
	h.send(vmop.SNMPDelete, vmop.VMID{ID: 3})
	var bulk []string
	for _, kind := range []int{13, 11, 14, 18, 12, 19, 20} {
		bulk = append(bulk, fmt.Sprintf("0.%d; 1.11.0 = STRING: \" \"", kind))
	}
	awaitTraps(t, r, bulk)

	// With both switches off there is silence; what comes then is the first.
	r.Reset()
	h.set(0, 0, 10, 2)
	h.await("1.10.0=2")
	change(4, vmop.Running)
	h.await("1.2.0=2")
	h.set(0, 0, 9, 1)
	h.await("1.9.0=1")
	change(4, vmop.Paused)
	want = nil
	add(4, "4 left 4")
	awaitTraps(t, r, want)
	if log := traps(r); !slices.Equal(log, want) {
		t.Errorf("then %q", log)
	}
}
