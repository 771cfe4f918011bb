package fleet_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmd/agentx"
	"vmd/internal/testenv"
	"vmd/mib"
	"vmd/vmctl/fleet"
)

// store is a mib.Store as package agentx wants it.
type store struct{ *mib.Store }

type view struct{ mib.View }

func (s store) View() agentx.View { return view{s.Store.View()} }

func (s store) Test([]agentx.VarBind) (agentx.Set, uint16, int) { return nil, mib.ErrNotWritable, 1 }

func (v view) Get(name []uint32) agentx.Value { return agentx.Value(v.View.Get(name)) }

func (v view) Next(dst, start []uint32, include bool, end []uint32) ([]uint32, agentx.Value) {
	name, val := v.View.Next(dst, start, include, end)
	return name, agentx.Value(val)
}

// web is a VM.
func web() mib.VM {
	return mib.VM{Index: 5, Name: "web", Admin: mib.AdminRunning, Oper: mib.OperRunning,
		AutoStart: mib.AutoStartEnabled, Persistent: mib.PersistentYes, CPUs: 2, Memory: 1 << 30, Started: time.Second}
}

// serve has VMs shown by m.
func serve(t *testing.T, m *testenv.MasterAgent, vms ...mib.VM) {
	t.Helper()
	s := mib.NewStore(mib.Config{Clock: func() time.Duration { return time.Minute }})
	if err := s.Load(vms); err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	a := agentx.New(agentx.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", m.Socket)
		},
		Handler: store{s}, Subtree: mib.Root(), Description: "test",
		Report: func(e agentx.Event) {
			if e.Kind == agentx.Up {
				close(up)
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { a.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	<-up
}

// A real snmpd answers every version and protocol, but not a wrong password.
func TestSnmpd(t *testing.T) {
	m := testenv.Snmpd(t,
		`createUser weak SHA "a long password" AES "another one"`,
		`createUser strong SHA-512 "a long password" AES "another one"`,
		`createUser open SHA-256 "a long password"`,
		"rouser weak authPriv .1", "rouser strong authPriv .1", "rouser open authNoPriv .1")
	serve(t, m, web())
	for name, tt := range map[string]struct {
		conf string
		want string // of the error
	}{
		"v2c":            {"version 2c\ncommunity " + m.ReadOnly, ""},
		"sha and aes":    {"user weak\nauth sha a long password\nprivacy aes another one", ""},
		"sha512 and aes": {"user strong\nauth sha512 a long password\nprivacy aes another one", ""},
		"no privacy":     {"user open\nauth sha256 a long password", ""},
		"wrong password": {"user strong\nauth sha512 a wrong password\nprivacy aes another one", "wrong user or password"},
		"unknown user":   {"user nobody\nauth sha a long password\nprivacy aes another one", "wrong user or password"},
	} {
		file := filepath.Join(t.TempDir(), "snmp.conf")
		if err := os.WriteFile(file, []byte(tt.conf+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := fleet.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		got := fleet.Ask(context.Background(), c, []string{m.Addr})[0]
		switch {
		case tt.want != "":
			if got.Err == nil || !strings.Contains(strings.ToLower(got.Err.Error()), tt.want) {
				t.Errorf("%s: %v, want %q", name, got.Err, tt.want)
			}
		case got.Err != nil:
			t.Errorf("%s: %v", name, got.Err)
		case len(got.VMs) != 1 || got.VMs[0].Name != "web" || got.VMs[0].Memory != 1<<30 || got.VMs[0].ID != 5:
			t.Errorf("%s: %+v", name, got.VMs)
		}
	}
}

// A VM in each state of the MIB is what it is on the host, and those that run come
// first.
func TestSnmpdEveryState(t *testing.T) {
	m := testenv.Snmpd(t)
	words := []string{"unknown", "other", "preparing", "running", "suspending", "suspended",
		"resuming", "paused", "migrating", "stopping", "stopped", "crashed"}
	var vms []mib.VM
	for i, word := range words {
		vm := web()
		vm.Index, vm.Name, vm.UUID, vm.Oper = int32(i*3+1), word, [16]byte{15: byte(i)}, mib.OperState(i+1)
		vm.Started = time.Duration(i+1) * time.Second
		if word == "stopped" {
			vm.Admin = mib.AdminShutdown
		}
		vms = append(vms, vm)
	}
	waiting := web()
	waiting.Index, waiting.Name, waiting.Oper, waiting.Started = 100, "waiting", mib.OperShutdown, 0
	serve(t, m, append(vms, waiting)...)
	file := filepath.Join(t.TempDir(), "snmp.conf")
	if err := os.WriteFile(file, []byte("version 2c\ncommunity "+m.ReadOnly+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := fleet.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	got := fleet.Ask(context.Background(), c, []string{m.Addr})[0]
	if got.Err != nil || len(got.VMs) != len(vms)+1 {
		t.Fatalf("%d VMs, %v", len(got.VMs), got.Err)
	}
	over := false
	uptimes := map[string]time.Duration{"running": 56 * time.Second, "stopped": 0, "waiting": 0}
	for _, vm := range got.VMs {
		if vm.State() != vm.Name {
			t.Errorf("%s is %s", vm.Name, vm.State())
		}
		over = over || !vm.Live()
		if over && vm.Live() {
			t.Errorf("%s comes behind one that does not run", vm.Name)
		}
		resident := vm.Live() || vm.Name == "unknown" // whose process does not answer
		if vm.Memory != 1<<30 || (vm.Allocated == vm.Memory) != resident {
			t.Errorf("%s has %d octets allocated of %d", vm.Name, vm.Allocated, vm.Memory)
		}
		if up, ok := uptimes[vm.Name]; ok && up != vm.Uptime {
			t.Errorf("%s is up for %v, want %v", vm.Name, vm.Uptime, up)
		}
	}
}
