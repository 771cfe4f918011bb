package small

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

// How many VMs come and go, and how many at the same time.
const (
	cycles    = 200
	atOnce    = 4
	privKills = 8 // on the way
)

// cycleNICs are the interfaces of each worker's VMs: one of each kind, and all.
var cycleNICs = [atOnce][]string{
	{`interface tap { group "cycle" }`},
	{`local interface`},
	{`interface { switch "lan" locked lladdr }`},
	{`interface tap { group "cycle" }`, `local interface`, `interface { switch "lan" locked lladdr }`},
}

// cycleBridge is the bridge behind the switch of the test.
const cycleBridge = "vmdcycle0"

// ending is a way for a VM to go.
type ending struct {
	name string
	code []byte // what its guest does
	end  func(c *client.Client, vm vmop.VM) error
	to   vmop.WaitFor
}

// endings are taken in turn, but for the last. The guest that powers off is gone
// by itself, that which listens to the power button is asked to, and the others
// know nothing.
var endings = []ending{
	{"stop", harness.TinyButton, stopVM(false), vmop.WaitStopped},
	{"force", harness.TinyHalt, stopVM(true), vmop.WaitStopped},
	{"kill", harness.TinyHalt, func(_ *client.Client, vm vmop.VM) error { return unix.Kill(vm.PID, unix.SIGKILL) }, vmop.WaitCrashed},
	{"off", harness.TinyPowerOff, nil, vmop.WaitStopped},
	{"reset", harness.TinyReset, nil, vmop.WaitCrashed}, // until vmd has had enough
}

// resetEvery is how often it is the turn of the last ending, which is made of
// many: it lasts for seconds.
const resetEvery = 20

// turn is the ending of a worker's turn n.
func turn(n int) ending {
	last := len(endings) - 1
	if n%resetEvery == last {
		return endings[last]
	}
	return endings[n%last]
}

func stopVM(force bool) func(*client.Client, vmop.VM) error {
	return func(c *client.Client, vm vmop.VM) error {
		_, err := c.Stop(context.Background(), vmop.StopRequest{VM: vmop.Ref{ID: vm.ID}, Force: force, Wait: true})
		return err
	}
}

// No tap, member of a bridge, element of a set, control group, file, process or
// descriptor is left by VMs, however they and the process that makes their taps
// end.
func TestCyclesLeaveNothing(t *testing.T) {
	dir := setUp(t)
	ip(t, "link", "add", cycleBridge, "type", "bridge")
	t.Cleanup(func() { ip(t, "link", "del", cycleBridge) })
	conf := fmt.Sprintf("switch \"lan\" {\n\tinterface %s\n}\n", cycleBridge)
	for worker := range atOnce {
		for _, e := range endings {
			name := cycleName(e, worker)
			conf += define(name, harness.Tiny(t, dir, name, "x", e.code), append([]string{"disable"}, cycleNICs[worker]...)...)
		}
	}
	d := harness.StartVMD(t, conf)
	run(t, len(endings)*atOnce) // whoever keeps something for good does so now
	killPriv(t)
	settled(t, d)
	before := heldByRoles(t, d)
	run(t, cycles)
	settled(t, d)
	harness.WaitFor(t, "the roles to hold what they held before", func() bool {
		for role, n := range heldByRoles(t, d) {
			if n > before[role] {
				t.Logf("%s holds %d descriptors, held %d", role, n, before[role])
				return false
			}
		}
		return true
	})
	for name, row := range d.Rows() {
		if row.State != "stopped" && row.State != "crashed" || row.PID != 0 || row.TTY != "" {
			t.Errorf("%s is %+v", name, row)
		}
	}
}

func cycleName(e ending, worker int) string { return fmt.Sprintf("%s%d", e.name, worker) }

// run starts and ends so many VMs, and kills priv now and then.
func run(t *testing.T, n int) {
	t.Helper()
	var done atomic.Int64
	var all sync.WaitGroup
	for worker := range atOnce {
		all.Go(func() {
			c, err := client.Dial(t.Context(), socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for i := worker; i < n; i += atOnce {
				e := turn(i / atOnce)
				if err := cycle(t.Context(), c, e, cycleName(e, worker)); err != nil {
					t.Errorf("cycle %d, %s: %v", i, e.name, err)
					return
				}
				if k := done.Add(1); n >= cycles && k%(cycles/privKills) == 0 {
					killPriv(t)
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// cycle starts a VM and ends it.
func cycle(ctx context.Context, c *client.Client, e ending, name string) error {
	ref := vmop.Ref{Name: name}
	if err := start(ctx, c, ref); err != nil && e.end != nil {
		return fmt.Errorf("start: %w", err)
	} // a guest that ends by itself may have been faster than the answer
	if e.end != nil {
		vms, err := c.List(ctx, vmop.ListRequest{VM: ref})
		if err != nil || len(vms) != 1 || vms[0].PID == 0 {
			return fmt.Errorf("list: %+v, %w", vms, err)
		}
		if err := e.end(c, vms[0]); err != nil {
			return fmt.Errorf("end: %w", err)
		}
	}
	_, err := c.Wait(ctx, vmop.WaitRequest{VM: ref, For: e.to, Timeout: 60})
	return err
}

// start starts a VM. While there is no priv, which may be for deathPause of
// vmd/parent, it is refused.
func start(ctx context.Context, c *client.Client, ref vmop.Ref) error {
	for end := time.Now().Add(harness.Patience); ; time.Sleep(5 * time.Millisecond) {
		_, err := c.Start(ctx, vmop.StartRequest{VM: ref})
		var failed *client.Error
		if !errors.As(err, &failed) || failed.Code != vmop.ErrUnavailable || time.Now().After(end) {
			return err
		}
	}
}

func killPriv(t *testing.T) {
	for _, p := range harness.Processes(t) {
		if p.Name == "priv" {
			unix.Kill(p.PID, unix.SIGKILL) // another cycle may have done so
		}
	}
}

// settled waits until nothing of the VMs is left, and all roles are there.
func settled(t *testing.T, d *harness.Daemon) {
	t.Helper()
	for _, role := range []string{"priv", "vmm", "control", "agentx"} {
		harness.Role(t, role, 0)
	}
	harness.NothingRemains(t)
	if members, _ := filepath.Glob("/sys/class/net/" + cycleBridge + "/brif/*"); len(members) != 0 {
		t.Errorf("members of the bridge: %q", members)
	}
	nft := testenv.Tool(t, "nft")
	harness.WaitFor(t, "empty sets", func() bool {
		out, err := exec.Command(nft, "list", "table", "inet", "vmd").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "set cycle") {
			t.Fatalf("nft: %v: %s", err, out)
		}
		return !strings.Contains(string(out), "elements")
	})
}

// heldByRoles are how many descriptors each process of the daemon has.
func heldByRoles(t *testing.T, d *harness.Daemon) map[string]int {
	t.Helper()
	held := make(map[string]int)
	for _, role := range []string{"priv", "vmm", "control", "agentx"} {
		held[role] = fds(t, harness.Role(t, role, 0))
	}
	held["parent"] = fds(t, d.PID())
	return held
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(testenv.Tool(t, "ip"), args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %q: %v: %s", args, err, out)
	}
}
