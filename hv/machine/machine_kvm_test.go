package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/hv/kvm"
	"vmd/hv/pci"
	"vmd/hv/virtio/viornd"
)

func TestGuestPrints(t *testing.T) {
	m, out := newMachine(t, nil)
	put(t, m, cat([]byte{
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xbe, 0x00, 0x20, // mov si, 0x2000
		0xac,       // lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz out of here
		0xee,       // out dx, al
		0xeb, 0xf8, // jmp lodsb
	}, powerOff)...)
	write(t, m, 0x2000, append([]byte("hello from real mode\n"), 0)...)
	start(t, m)
	end(t, m, PowerOff)
	if got := out.String(); got != "hello from real mode\n" {
		t.Errorf("guest printed %q", got)
	}
}

func TestEndings(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		want Cause
	}{
		{"S5", powerOff, PowerOff},
		{"S4 is no power off", cat([]byte{0xba, 0x04, 0x06, 0xb8, 0x00, 0x30, 0xef}, outb(0xcf9, 6)), Reset},
		{"0xcf9", outb(0xcf9, 6), Reset},
		{"0xcf9 without go", cat(outb(0xcf9, 2), powerOff), PowerOff},
		{"keyboard controller", outb(0x64, 0xfe), Reset},
		{"port 0x92", outb(0x92, 1), Reset},
		{"A20 only", cat(outb(0x92, 2), powerOff), PowerOff},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _ := newMachine(t, nil)
			put(t, m, cat(c.code, halt)...)
			start(t, m)
			end(t, m, c.want)
		})
	}
}

func TestTripleFault(t *testing.T) {
	m, _ := newMachine(t, nil)
	put(t, m, 0x0f, 0x0b) // ud2
	protect(t, m)
	start(t, m)
	end(t, m, TripleFault)
}

// protect puts the first vCPU into protected mode without an IDT: an exception
// cannot be delivered.
func protect(t *testing.T, m *Machine) {
	t.Helper()
	v := m.vcpus[0].kvm
	s, err := v.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	code := kvm.Segment{Limit: 0xffffffff, Selector: 8, Type: 11, Present: 1, DB: 1, S: 1, G: 1}
	data := code
	data.Selector, data.Type = 16, 3
	s.CS, s.DS, s.ES, s.SS, s.IDT = code, data, data, data, kvm.Dtable{}
	s.CR0 |= 1
	if err := v.SetSregs(s); err != nil {
		t.Fatal(err)
	}
}

func TestKilled(t *testing.T) {
	for name, code := range map[string][]byte{"busy": spin, "halted": halt} {
		t.Run(name, func(t *testing.T) {
			m, out := newMachine(t, func(c *Config) { c.CPUs = 2 })
			put(t, m, cat(outb(0x3f8, '!'), code)...)
			start(t, m)
			out.wait(t, "!")
			m.Stop()
			m.Stop()
			end(t, m, Killed)
			if err := m.Pause(); err != ErrEnded {
				t.Errorf("pause after the end: %v", err)
			}
		})
	}
}

// The internal error is made by a jump out of memory: KVM cannot fetch the code.
func TestInternalErrorIsReported(t *testing.T) {
	m, _ := newMachine(t, nil)
	put(t, m, 0xbb, 0x34, 0x12, // mov bx, 0x1234
		0x66, 0xea, 0, 0, 0, 0, 0, 0) // jmp 0:0
	v := m.vcpus[0].kvm
	s, err := v.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.CS.Base = 0x10000000 // 256 MiB, of 4
	if err := v.SetSregs(s); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	end(t, m, Error)
	var ge *GuestError
	var ie *kvm.InternalError
	if !errors.As(m.Exit().Err, &ge) || !errors.As(m.Exit().Err, &ie) {
		t.Fatalf("error %v", m.Exit().Err)
	}
	if ge.VCPU != 0 || ge.Regs.RIP != codeAt || ge.Sregs.CS.Base != 0x10000000 || len(ge.Code) != 0 {
		t.Errorf("reported %+v", ge)
	}
	for _, want := range []string{"vCPU 0", "rip 0x1000", "cr0"} {
		if !strings.Contains(ge.Error(), want) {
			t.Errorf("%q lacks %q", ge, want)
		}
	}
}

func TestReportShowsCode(t *testing.T) {
	m, _ := newMachine(t, nil)
	put(t, m, 0x90, 0x90, 0xf4)
	var ge *GuestError
	if err := m.vcpus[0].report(errors.New("because")); !errors.As(err, &ge) {
		t.Fatalf("report %v", err)
	}
	if len(ge.Code) != codeBytes || ge.Code[2] != 0xf4 {
		t.Errorf("code % x", ge.Code)
	}
}

// counting guests add 1 to the dword at 0x3000 for ever.
var counting = []byte{0x66, 0xff, 0x06, 0x00, 0x30, 0xeb, 0xf9}

func counter(t *testing.T, m *Machine) uint32 {
	t.Helper()
	b, err := m.mem.Slice(0x3000, 4)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func TestPauseResume(t *testing.T) {
	m, _ := newMachine(t, func(c *Config) { c.CPUs = 2 }) // the second waits for SIPI
	put(t, m, counting...)
	start(t, m)
	for range 50 {
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		was := counter(t, m)
		for range 1000 {
			if now := counter(t, m); now != was {
				t.Fatalf("a paused guest counted from %d to %d", was, now)
			}
		}
		if err := m.Pause(); err != nil {
			t.Fatalf("pause twice: %v", err)
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		for limit := time.Now().Add(deadline); counter(t, m) == was; {
			if time.Now().After(limit) {
				t.Fatal("the guest does not go on")
			}
		}
	}
	if err := m.Resume(); err != nil {
		t.Errorf("resume a running guest: %v", err)
	}
}

func TestPauseHaltedGuest(t *testing.T) {
	m, out := newMachine(t, nil)
	put(t, m, cat(outb(0x3f8, '!'), halt)...)
	start(t, m)
	out.wait(t, "!")
	for range 50 {
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStopPausedGuest(t *testing.T) {
	m, _ := newMachine(t, nil)
	put(t, m, spin...)
	start(t, m)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	m.Stop()
	end(t, m, Killed)
	if err := m.Resume(); err != ErrEnded {
		t.Errorf("resume after the end: %v", err)
	}
}

// A guest that ends while it is being paused ends: nobody waits for ever.
func TestPauseOfGuestThatEnds(t *testing.T) {
	for range 10 {
		m, _ := newMachine(t, nil)
		put(t, m, powerOff...)
		start(t, m)
		if err := m.Pause(); err == nil {
			if err := m.Resume(); err != nil && err != ErrEnded {
				t.Fatal(err)
			}
		} else if err != ErrEnded {
			t.Fatal(err)
		}
		end(t, m, PowerOff)
	}
}

func TestBeforeStart(t *testing.T) {
	m, _ := newMachine(t, nil)
	if err := m.Pause(); err != ErrEnded {
		t.Errorf("pause: %v", err)
	}
	if err := m.Resume(); err != ErrEnded {
		t.Errorf("resume: %v", err)
	}
	m.Stop()
	end(t, m, Killed)
	if err := m.Start(); err == nil {
		t.Error("started after the end")
	}
}

func TestSecondCPUStarts(t *testing.T) {
	m, out := newMachine(t, func(c *Config) { c.CPUs = 2 })
	const init, startUp, vector = 0x4500, 0x4600, 2
	put(t, m, cat(useX2APIC(1<<8), wrmsr(x2apicICR, 1, init), wrmsr(x2apicICR, 1, startUp|vector), halt)...)
	write(t, m, vector<<12, cat(outb(0x3f8, 'A'), outb(0x3f8, 'P'), powerOff)...)
	start(t, m)
	end(t, m, PowerOff)
	if got := out.String(); got != "AP" {
		t.Errorf("second vCPU printed %q", got)
	}
}

// A guest rings a doorbell, sleeps until its message comes, and rings again.
func TestDoorbellAndMessage(t *testing.T) {
	const vector, port, rounds = 0x40, 0x5000, 100
	m, _ := newMachine(t, nil)
	handler := cat(wrmsr(x2apicEOI, 0, 0), []byte{
		0xff, 0x06, 0x00, 0x30, // inc word [0x3000]
		0xcf, // iret
	})
	put(t, m, cat(useX2APIC(1<<8), []byte{0xfa}, // cli
		outb(port, 1),
		[]byte{
			0xfb, 0xf4, 0xfa, // sti, hlt, cli: sti holds until after hlt
			0x81, 0x3e, 0x00, 0x30, rounds, 0, // cmp word [0x3000], rounds
			0x74, 0x08, // je over the next
		}, outb(port, 1), []byte{0xeb, 0xed}, // jmp sti
		powerOff)...)
	write(t, m, 0x2000, handler...)
	write(t, m, vector*4, 0x00, 0x20, 0x00, 0x00)

	h := host{m}
	msi, err := h.MSI()
	if err != nil {
		t.Fatal(err)
	}
	if err := msi.Route(msiBase, vector); err != nil {
		t.Fatal(err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	d := pci.Doorbell{Addr: port, Port: true, Size: 1, FD: bell}
	if err := h.AddDoorbell(d); err != nil {
		t.Fatal(err)
	}
	done := make(chan int)
	go func() {
		var b [8]byte
		n := 0
		for {
			unix.Read(bell, b[:])
			if b[1] != 0 { // the test's last word
				done <- n
				return
			}
			n++
			msi.Signal()
		}
	}()
	start(t, m)
	end(t, m, PowerOff)
	unix.Write(bell, []byte{0, 1, 0, 0, 0, 0, 0, 0})
	if n := <-done; n != rounds {
		t.Errorf("%d rings, want %d", n, rounds)
	}
	if err := h.RemoveDoorbell(d); err != nil {
		t.Error(err)
	}
	unix.Close(bell)
	if n := testing.AllocsPerRun(10, msi.Signal); n != 0 {
		t.Errorf("%v allocations to signal", n)
	}
}

func TestMessageElsewhereIsSilent(t *testing.T) {
	m, _ := newMachine(t, nil)
	msi, err := host{m}.MSI()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []uint64{0, 0x1000, msiEnd, msiBase - 4, 1<<32 | msiBase, ^uint64(0)} {
		if err := msi.Route(msiBase, 0x40); err != nil {
			t.Fatal(err)
		}
		if err := msi.Route(addr, 0x40); err != nil {
			t.Errorf("route to %#x: %v", addr, err)
		}
	}
}

func TestSharedLine(t *testing.T) {
	m, _ := newMachine(t, nil)
	l := &m.irqs.lines[10]
	a, b := host{m}.Line(10), host{m}.Line(10)
	for i, step := range []struct {
		line pci.Line
		high bool
		up   int
	}{{a, false, 0}, {a, true, 1}, {a, true, 1}, {b, true, 2}, {a, false, 1}, {a, false, 1}, {b, false, 0}} {
		step.line.Set(step.high)
		if l.up != step.up {
			t.Errorf("step %d: %d shares up, want %d", i, l.up, step.up)
		}
	}
	if n := testing.AllocsPerRun(10, func() { a.Set(true); a.Set(false) }); n != 0 {
		t.Errorf("%v allocations to drive a line", n)
	}
}

// Echoes what it reads on COM1; 'q' turns it off.
func TestConsoleInput(t *testing.T) {
	ready := make(chan struct{}, 1)
	m, out := newMachine(t, func(c *Config) {
		c.ConsoleReady = func() {
			select {
			case ready <- struct{}{}:
			default:
			}
		}
	})
	put(t, m, cat(outb(0x3fa, 1), outb(0x3f8, '!'), []byte{ // FIFOs on, which empties them
		0xba, 0xfd, 0x03, // mov dx, 0x3fd
		0xec,       // in al, dx
		0xa8, 0x01, // test al, 1
		0x74, 0xfb, // jz in
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xec,      // in al, dx
		0x3c, 'q', // cmp al, 'q'
		0x74, 0x03, // je over
		0xee,       // out dx, al
		0xeb, 0xed, // jmp mov dx
	}, powerOff)...)
	start(t, m)
	out.wait(t, "!")
	text := []byte(strings.Repeat("0123456789", 10) + "q")
	for len(text) > 0 {
		n := m.ConsoleInput(text)
		if text = text[n:]; len(text) > 0 && n == 0 {
			<-ready
		}
	}
	end(t, m, PowerOff)
	if got, want := out.String(), "!"+strings.Repeat("0123456789", 10); got != want {
		t.Errorf("echo %q, want %q", got, want)
	}
}

func TestPowerButton(t *testing.T) {
	var seen atomic.Int32
	m, out := newMachine(t, func(c *Config) { c.ButtonSeen = func() { seen.Add(1) } })
	put(t, m, cat([]byte{
		0xba, 0x02, 0x06, // mov dx, 0x602
		0xb8, 0x00, 0x01, // mov ax, PWRBTN
		0xef, // out dx, ax: enabled
	}, outb(0x3f8, '!'), []byte{
		0xba, 0x00, 0x06, // mov dx, 0x600
		0xed,             // in ax, dx
		0xa9, 0x00, 0x01, // test ax, PWRBTN
		0x74, 0xfa, // jz in
		0xef, // out dx, ax: seen
	}, powerOff)...)
	if m.PowerButton() {
		t.Error("a guest that has not started listens to the power button")
	}
	start(t, m)
	out.wait(t, "!")
	m.PowerButton()
	end(t, m, PowerOff)
	if n := seen.Load(); n != 1 {
		t.Errorf("button seen %d times", n)
	}
}

func TestPanicIsReported(t *testing.T) {
	var n atomic.Int32
	m, _ := newMachine(t, func(c *Config) { c.Panicked = func() { n.Add(1) } })
	put(t, m, cat([]byte{0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xee}, powerOff)...)
	start(t, m)
	end(t, m, PowerOff)
	if n.Load() != 1 {
		t.Errorf("reported %d times", n.Load())
	}
}

func TestCounters(t *testing.T) {
	var time0 uint64
	var io uint64
	m, out := newMachine(t, func(c *Config) {
		c.Counters = []VCPUCounters{{Time: &time0}}
		c.Counters[0].Exits[ExitIO] = &io
	})
	put(t, m, cat(outb(0x80, 1), outb(0x3ff, 1), outb(0x3f8, '!'), spin)...)
	start(t, m)
	out.wait(t, "!")
	for limit := time.Now().Add(deadline); atomic.LoadUint64(&time0) == 0; m.Sample() {
		if time.Now().After(limit) {
			t.Fatal("a busy vCPU uses no time")
		}
	}
	if n := atomic.LoadUint64(&io); n != 2 && n != 3 { // port 0x80 need not come out
		t.Errorf("%d port accesses, want 2 or 3", n)
	}
	if n := testing.AllocsPerRun(10, m.Sample); n != 0 {
		t.Errorf("%v allocations a sample", n)
	}
}

func TestThreads(t *testing.T) {
	m, out := newMachine(t, func(c *Config) { c.CPUs = 2 })
	put(t, m, cat(outb(0x3f8, '!'), spin)...)
	start(t, m)
	out.wait(t, "!")
	if err := m.Pause(); err != nil { // now both have started
		t.Fatal(err)
	}
	for id, tid := range m.VCPUThreads() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/comm", tid))
		if want := fmt.Sprintf("vcpu%d\n", id); err != nil || string(b) != want {
			t.Errorf("thread %d is called %q, want %q (%v)", tid, b, want, err)
		}
	}
}

func TestAddVirtio(t *testing.T) {
	m, _ := newMachine(t, nil)
	if err := m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
		t.Fatal(err)
	}
	if err := m.AddVirtio(pci.SlotRNG, "viornd1", viornd.New()); err == nil {
		t.Error("two devices in one slot")
	}
	put(t, m, spin...)
	start(t, m)
	if err := m.AddVirtio(pci.SlotBalloon, "viornd2", viornd.New()); err == nil {
		t.Error("a device was added to a running machine")
	}
	if err := m.Pause(); err != nil {
		t.Error(err)
	}
	if err := m.Resume(); err != nil {
		t.Error(err)
	}
}

func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]Config{
		"no CPUs":        {CPUs: 0, Memory: 1 << 20},
		"too many CPUs":  {CPUs: MaxCPUs + 1, Memory: 1 << 20},
		"no memory":      {CPUs: 1},
		"half a page":    {CPUs: 1, Memory: 1<<20 + 2048},
		"no KVM":         {CPUs: 1, Memory: 1 << 20, KVM: -1},
		"endless memory": {CPUs: 1, Memory: 1 << 62},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "endless memory" {
				var err error
				if c.KVM, err = unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
					t.Skip(err)
				}
				defer unix.Close(c.KVM)
			}
			if m, err := New(c); err == nil {
				m.Close()
				t.Error("taken")
			}
		})
	}
}
