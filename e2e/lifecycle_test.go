package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
)

// A guest that reboots again and again, is paused, and stops.
func TestLifecycle(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	d := harness.StartVMD(t, netGuest(t, "a", ""))

	d.Await("a", "running")
	c := d.Console("a") // it stays through the guest's resets
	c.Expect("guest ready a")
	t.Run("reboots", func(t *testing.T) {
		pid := harness.Role(t, "vm/a", 0)
		for range 5 {
			c.Command("run sleep 6") // vmd refuses guests that restart in less than that
			c.Say("reboot")
			pid = harness.Role(t, "vm/a", pid)
			c.Expect("guest ready a")
			if row := d.Row("a"); row.State != "running" || row.PID != pid {
				t.Errorf("after a reboot: %+v, want process %d running", row, pid)
			}
		}
	})
	t.Run("its clock stands still over a pause", func(t *testing.T) {
		uptime := func() float64 {
			s, err := strconv.ParseFloat(strings.Fields(c.Command("run cat /proc/uptime"))[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		const pause = 3 * time.Second
		start, guest := time.Now(), uptime()
		d.Vmctl("pause", "a")
		d.Await("a", "paused")
		time.Sleep(pause)
		d.Vmctl("unpause", "a")
		d.Await("a", "running")
		went := time.Duration((uptime() - guest) * float64(time.Second))
		if missing := time.Since(start) - went; went < 0 || missing < pause-pause/10 {
			t.Errorf("the guest's clock went on by %v of %v with a pause of %v", went, time.Since(start), pause)
		}
	})
	t.Run("stops in order", func(t *testing.T) {
		d.Vmctl("stop", "-w", "a")
		d.Await("a", "stopped")
	})
}
