package machine

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vmd/hv/boot"
	"vmd/hv/pci"
	"vmd/hv/virtio/viornd"
	"vmd/internal/testenv"
)

// guestsVar is the folder with a distribution's kernel and an initrd that
// obeys typed lines (e2e/lab, GuestsVar and files/guest.sh).
const guestsVar = "VMD_TEST_GUESTS"

func image(t *testing.T, name string) boot.Image {
	t.Helper()
	f, err := os.Open(filepath.Join(os.Getenv(guestsVar), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return boot.Image{R: f, Size: st.Size()}
}

// stock is a machine with a distribution's kernel and its console.
type stock struct {
	*Machine
	*tty
	ready chan struct{}
	exits [NumExitKinds]uint64
}

// bootStock boots kernel and waits until its init has said that it is ready.
func bootStock(t *testing.T, kernel string, cpus int, cmdline string) *stock {
	t.Helper()
	return bootStockWith(t, kernel, cpus, cmdline, func(m *Machine) error {
		return m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New())
	})
}

// bootStockWith is bootStock with other devices than a source of entropy.
func bootStockWith(t *testing.T, kernel string, cpus int, cmdline string, add func(*Machine) error) *stock {
	t.Helper()
	s := newStockWith(t, cpus, add)
	initrd := image(t, "initrd")
	err := s.Load(Boot{Kernel: image(t, kernel), Initrd: &initrd, Cmdline: "console=ttyS0 quiet name=it " + cmdline})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s.Machine)
	s.wait(t, "guest ready it")
	return s
}

// newStockWith makes the machine of a bootStockWith.
func newStockWith(t *testing.T, cpus int, add func(*Machine) error) *stock {
	t.Helper()
	testenv.NeedRealKVM(t)
	s := &stock{ready: make(chan struct{}, 1)}
	s.Machine, s.tty = newMachine(t, s.config(cpus))
	if err := add(s.Machine); err != nil {
		t.Fatal(err)
	}
	return s
}

// config sets what a machine of s's has.
func (s *stock) config(cpus int) func(*Config) {
	var k VCPUCounters
	for i := range s.exits {
		k.Exits[i] = &s.exits[i]
	}
	return func(c *Config) {
		c.Memory, c.CPUs, c.UUID = 256<<20, cpus, [16]byte{1, 2, 3}
		c.ConsoleReady = func() {
			select {
			case s.ready <- struct{}{}:
			default:
			}
		}
		for range cpus {
			c.Counters = append(c.Counters, k)
		}
	}
}

// say types a line. One that does not fit is waited with.
func (s *stock) say(line string) {
	for p := []byte(line + "\n"); len(p) > 0; {
		n := s.ConsoleInput(p)
		if p = p[n:]; n == 0 {
			<-s.ready
		}
	}
}

func TestStockKernelPowersOff(t *testing.T) {
	s := bootStock(t, "bzImage", 1, "modules=no")
	// Exits are what a boot costs beside the guest's own work. Most of these
	// are the kernel's look at PCI configuration space.
	var exits uint64
	for i := range s.exits {
		exits += atomic.LoadUint64(&s.exits[i])
	}
	t.Logf("%d exits to init", exits)
	if exits > 1200 {
		t.Errorf("%d exits to init, at most 1200 expected", exits)
	}
	s.say("poweroff")
	end(t, s.Machine, PowerOff)
}

func TestStockKernelWithManyCPUs(t *testing.T) {
	s := bootStock(t, "vmlinux", 4, "modules=no")
	for range 20 {
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	s.say("run echo cpus: $(nproc)")
	s.wait(t, "cpus: 4")
	s.say("run dmesg | grep -c -E 'soft lockup|rcu.*stall'")
	s.wait(t, "status 1") // grep found none
	s.say("reboot")
	end(t, s.Machine, Reset)
}

func TestStockKernelPanics(t *testing.T) {
	s := bootStock(t, "vmlinux", 1, "modules=no panic=-1 reboot=t")
	s.say("panic")
	end(t, s.Machine, TripleFault)
	if !strings.Contains(s.String(), "Kernel panic") {
		t.Errorf("guest printed %q", s)
	}
}

// TestStockKernelsClockStandsStill compares the guest's clock with ours over a
// pause. However slow the host is, the guest's clock must lack the pause.
func TestStockKernelsClockStandsStill(t *testing.T) {
	s := bootStock(t, "vmlinux", 2, "modules=no")
	uptime := func(tag string) (guest time.Duration) {
		t.Helper()
		s.say("run echo " + tag + "$(cut -d' ' -f1 /proc/uptime)s." + tag)
		s.wait(t, "s."+tag)
		line := s.String()[strings.Index(s.String(), tag)+len(tag):]
		d, err := time.ParseDuration(line[:strings.Index(line, "s.")+1])
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	const pause = 3 * time.Second
	before, guest := time.Now(), uptime("a:")
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(pause)
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	s.say("mark")
	s.wait(t, "echo: mark")
	guest = uptime("b:") - guest
	host := time.Since(before)
	if missing := host - guest; guest < 0 || missing < pause-pause/10 {
		t.Errorf("guest's clock moved by %v in %v with a pause of %v", guest, host, pause)
	}
	s.say("run dmesg | grep -E 'soft lockup|rcu.*stall|skew'")
	s.wait(t, "status 1") // grep found none
	s.say("poweroff")
	end(t, s.Machine, PowerOff)
}

func TestStockKernelSeesMachine(t *testing.T) {
	s := bootStock(t, "vmlinux", 1, "")
	for line, want := range map[string]string{
		"run cat /sys/class/dmi/id/product_uuid":                                   "01020300-0000-0000-0000-000000000000",
		"run cat /sys/devices/system/clocksource/clocksource0/current_clocksource": "kvm-clock",
		"run dd if=/dev/hwrng bs=48 count=1 2>/dev/null | wc -c":                   "48",
	} {
		s.say(line)
		s.wait(t, want)
	}
	for limit := time.Now().Add(deadline); !s.PowerButton(); {
		if time.Now().After(limit) {
			t.Fatal("the guest does not listen to the power button")
		}
	}
	end(t, s.Machine, PowerOff)
}
