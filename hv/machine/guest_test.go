package machine

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vmd/hv/kvm"
	"vmd/hv/mem"
	"vmd/internal/testenv"
)

// TestMain gives vCPUs and devices what a VM process gives them: on a host with
// one processor a vCPU that never rests would share its only P with the devices
// that it waits for.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4))
	goleak.VerifyTestMain(m)
}

// deadline is far beyond what any of these guests needs.
const deadline = 5 * time.Minute

// codeAt is where raw guests start, in real mode.
const codeAt = 0x1000

// tty collects what a guest prints.
type tty struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func newTTY() *tty { return &tty{news: make(chan struct{}, 1)} }

func (c *tty) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.news <- struct{}{}:
	default:
	}
	return c.text.Write(p)
}

func (c *tty) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// wait returns once the guest has printed want.
func (c *tty) wait(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(deadline)
	for !strings.Contains(c.String(), want) {
		select {
		case <-c.news:
		case <-timeout:
			t.Fatalf("guest printed %q, want %q", c, want)
		}
	}
}

// newMachine makes a machine with 4 MiB and whatever change sets.
func newMachine(t *testing.T, change func(*Config)) (*Machine, *tty) {
	t.Helper()
	testenv.KVM(t)
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := newTTY()
	c := Config{KVM: fd, Memory: 4 << 20, CPUs: 1, Console: out}
	if change != nil {
		change(&c)
	}
	m, err := New(c)
	if err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, out
}

// put places code for the first vCPU to start with in real mode, at codeAt.
func put(t *testing.T, m *Machine, code ...byte) {
	t.Helper()
	write(t, m, codeAt, code...)
	v := m.vcpus[0].kvm
	s, err := v.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.CS.Base, s.CS.Selector = 0, 0
	if err := v.SetSregs(s); err != nil {
		t.Fatal(err)
	}
	if err := v.SetRegs(kvm.Regs{RIP: codeAt, RSP: 0x8000, RFLAGS: 2}); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, m *Machine, at mem.GPA, b ...byte) {
	t.Helper()
	if err := m.mem.Write(at, b); err != nil {
		t.Fatal(err)
	}
}

// start lets m run.
func start(t *testing.T, m *Machine) {
	t.Helper()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
}

// end waits for the end of the run and checks its cause.
func end(t *testing.T, m *Machine, want Cause) {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(deadline):
		t.Fatal("the guest does not end")
	}
	if e := m.Exit(); e.Cause != want {
		t.Fatalf("ended by %v (%v), want %v", e.Cause, e.Err, want)
	}
}

// Pieces of real-mode code.

// outb writes v to a port.
func outb(port uint16, v byte) []byte {
	return []byte{0xba, byte(port), byte(port >> 8), 0xb0, v, 0xee}
}

// wrmsr writes a model-specific register.
func wrmsr(index, hi, lo uint32) []byte {
	b := []byte{0x66, 0xb9}
	b = append(b, word(index)...)
	b = append(append(b, 0x66, 0xba), word(hi)...)
	b = append(append(b, 0x66, 0xb8), word(lo)...)
	return append(b, 0x0f, 0x30)
}

func word(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	// powerOff enters S5: mov dx, 0x604; mov ax, SLP_TYP 5 and SLP_EN; out dx, ax.
	powerOff = []byte{0xba, 0x04, 0x06, 0xb8, 0x00, 0x34, 0xef}
	halt     = []byte{0xf4, 0xeb, 0xfd} // hlt, for ever
	spin     = []byte{0xeb, 0xfe}

	// awaitLeave waits until leave has been called.
	awaitLeave = []byte{
		0x31, 0xc0, 0x8e, 0xd8, // ds = 0
		0x80, 0x3e, leaveAt & 0xff, leaveAt >> 8, 0x5a, // cmp byte [leaveAt], 0x5a
		0x75, 0xf9, // jne
	}
)

// leaveAt is in the BIOS' data area, where nothing is.
const leaveAt = 0x504

// leave has a guest go on that is in awaitLeave, or will be.
func leave(t *testing.T, m *Machine) {
	t.Helper()
	b, err := m.mem.Slice(leaveAt, 1)
	if err != nil {
		t.Fatal(err)
	}
	b[0] = 0x5a
}

// x2APIC registers (Intel SDM vol. 3, 11.12.1).
const (
	msrAPICBase = 0x1b
	x2apicEOI   = 0x80b
	x2apicSVR   = 0x80f
	x2apicICR   = 0x830
)

// useX2APIC turns the local APIC on in x2APIC mode, which real-mode code can
// reach. bsp is the bit of the first vCPU in the base register.
func useX2APIC(bsp uint32) []byte {
	return cat(wrmsr(msrAPICBase, 0, msiBase|3<<10|bsp), wrmsr(x2apicSVR, 0, 0x1ff))
}
