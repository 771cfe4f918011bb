package machine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"vmd/hv/mem"
	"vmd/hv/state"
)

// send sends m, which must stand still afterwards, into a buffer.
func send(t *testing.T, m *Machine) []byte {
	t.Helper()
	var b bytes.Buffer
	stats, err := m.Send(context.Background(), state.NewWriter(&b), SendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Bytes != uint64(b.Len()) || stats.Pages < m.mem.Size()/pageSize || stats.Pause <= 0 {
		t.Errorf("%d bytes sent, and said to be %+v", b.Len(), stats)
	}
	if m.current() != paused || m.mem.Tracking() {
		t.Errorf("sent machine is in phase %d, memory tracked: %v", m.current(), m.mem.Tracking())
	}
	return b.Bytes()
}

// receive makes a machine like newMachine's that stands where b leaves it.
func receive(t *testing.T, b []byte, change func(*Config), add func(*Machine)) (*Machine, *tty) {
	t.Helper()
	m, out := newMachine(t, change)
	r := state.NewReader(bytes.NewReader(b))
	if err := m.ReceiveMemory(r); err != nil {
		t.Fatal(err)
	}
	if add != nil {
		add(m)
	}
	if err := m.Restore(r); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("behind the machine: %v", err)
	}
	return m, out
}

func sameMemory(t *testing.T, a, b *Machine) {
	t.Helper()
	for i, r := range a.mem.Regions() {
		other := b.mem.Regions()[i]
		for off := 0; off < len(r.Bytes); off += pageSize {
			if !bytes.Equal(r.Bytes[off:off+pageSize], other.Bytes[off:off+pageSize]) {
				t.Errorf("memory differs at %#x", r.Base+mem.GPA(off))
			}
		}
	}
}

// latch is a byte of memory that is a device: what is written there can be read.
type latch struct {
	v      byte
	writes int
}

func (l *latch) Read(_ uint64, p []byte) { p[0] = l.v }

func (l *latch) Write(_ uint64, p []byte) {
	l.v = p[0]
	l.writes++
}

// latchAt is where guests find it: through DS.
const latchAt = 0xd000_0000

// tally is a guest that prints 0, 1, 2 and so on, and has a latch remember
// each. It ends if the latch does not, or if its two counters differ.
var tally = cat([]byte{
	0xba, 0xf8, 0x03, // mov dx, 0x3f8
	// next:
	0x88, 0xd8, // mov al, bl
	0xee,             // out dx, al
	0xa2, 0x00, 0x00, // mov [0], al: the latch
	0x3a, 0x06, 0x00, 0x00, // cmp al, [0]
	0x75, 0x10, // jne wrong
	0x2e, 0x3a, 0x06, 0x00, 0x20, // cmp al, cs:[0x2000]
	0x75, 0x09, // jne wrong
	0xfe, 0xc3, // inc bl
	0x2e, 0xfe, 0x06, 0x00, 0x20, // inc byte cs:[0x2000]
	0xeb, 0xe4, // jmp next
	// wrong:
}, powerOff)

// startCounting makes the first vCPU of m count.
func startCounting(t *testing.T, m *Machine) *latch {
	t.Helper()
	put(t, m, tally...)
	s, err := m.vcpus[0].kvm.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.DS.Base = latchAt
	if err := m.vcpus[0].kvm.SetSregs(s); err != nil {
		t.Fatal(err)
	}
	return addLatch(t, m)
}

func addLatch(t *testing.T, m *Machine) *latch {
	t.Helper()
	l := new(latch)
	if err := m.mmio.Map(latchAt, 1, l); err != nil {
		t.Fatal(err)
	}
	return l
}

// waitLen returns once the guest has printed n bytes.
func (c *tty) waitLen(t *testing.T, m *Machine, n int) {
	t.Helper()
	for len(c.String()) < n {
		select {
		case <-c.news:
		case <-m.Done():
			t.Fatalf("the guest has ended after %d bytes: %v", len(c.String()), m.Exit())
		}
	}
}

// TestEveryCountArrives moves a guest that counts twenty times, in the middle of
// port and memory accesses as it happens: no count is missing and none is there
// twice.
func TestEveryCountArrives(t *testing.T) {
	m, out := newMachine(t, nil)
	l := startCounting(t, m)
	start(t, m)
	var text []byte
	writes := 0
	for i := range 20 {
		out.waitLen(t, m, 1+rand.IntN(500))
		b := send(t, m)
		text = append(text, out.String()...)
		writes += l.writes
		was := *l
		old := m
		m, out = receive(t, b, nil, func(m *Machine) {
			l = addLatch(t, m)
			l.v = was.v
		})
		sameMemory(t, old, m)
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 { // what has been received can be sent before it has run
			if _, err := m.Send(context.Background(), state.NewWriter(io.Discard), SendOptions{}); !errors.Is(err, ErrEnded) {
				t.Errorf("machine that has not run was sent: %v", err)
			}
		}
		start(t, m)
	}
	out.waitLen(t, m, 300)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	text = append(text, out.String()...)
	writes += l.writes
	for i, c := range text {
		if c != byte(i) {
			t.Fatalf("count %d of %d is %d", i, len(text), c)
		}
	}
	if writes != len(text) && writes != len(text)-1 {
		t.Errorf("%d counts printed, %d latched", len(text), writes)
	}
	t.Logf("%d counts", len(text))
}
