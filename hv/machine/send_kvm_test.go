package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vmd/hv/pci"
	"vmd/hv/state"
	"vmd/hv/virtio/viornd"
)

// scribbler adds 1 to a word of each page of segments 0x1000, 0x3000, 0x5000 and
// 0x7000 in turn, for ever, and prints nothing.
var scribbler = []byte{
	0xb8, 0x00, 0x10, 0x8e, 0xc0, // mov ax, 0x1000; mov es, ax
	0x31, 0xff, // xor di, di
	// next:
	0x26, 0xff, 0x05, // inc word es:[di]
	0x81, 0xc7, 0x00, 0x10, // add di, 0x1000
	0x75, 0xf7, // jnz next
	0x8c, 0xc0, 0x05, 0x00, 0x10, // mov ax, es; add ax, 0x1000
	0x25, 0x00, 0x70, 0x0d, 0x00, 0x10, // and ax, 0x7000; or ax, 0x1000
	0x8e, 0xc0, // mov es, ax
	0xeb, 0xe8, // jmp next
}

// scribbled is how often the first page of segment 0x7000 was written to.
func scribbled(t *testing.T, m *Machine) uint16 {
	t.Helper()
	b, err := m.mem.Slice(0x7_0000, 2)
	if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint16(b)
}

// goesOn returns once the guest of m has scribbled more.
func goesOn(t *testing.T, m *Machine) {
	t.Helper()
	was := scribbled(t, m)
	for limit := time.Now().Add(deadline); scribbled(t, m) == was; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the guest stands still")
		}
	}
}

func startScribbling(t *testing.T) *Machine {
	t.Helper()
	m, _ := newMachine(t, nil)
	put(t, m, scribbler...)
	start(t, m)
	goesOn(t, m)
	return m
}

// TestSendWhileGuestWrites sends a guest that writes as fast as it can: when it
// stands still the receiver has its memory to the byte, and either of the two
// can go on.
func TestSendWhileGuestWrites(t *testing.T) {
	m := startScribbling(t)
	var b bytes.Buffer
	var rounds []Progress
	pauses := 0
	stats, err := m.Send(context.Background(), state.NewWriter(&b), SendOptions{
		MaxPause: 1, MaxRounds: 6, // no pause is short enough
		Progress: func(p Progress) {
			if rounds = append(rounds, p); m.current() == running {
				goesOn(t, m) // something is left after each round
			}
		},
		AtPause: func() error {
			pauses++
			if m.current() != paused || m.Resume() == nil {
				t.Error("the guest can run")
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", stats)
	last := rounds[len(rounds)-1]
	if !stats.Forced || stats.Rounds < stuckAfter || stats.Rounds > 6 || pauses != 1 || stats.Last == 0 || last.Pages != stats.Pages || last.Left != 0 {
		t.Errorf("%+v, %d pauses, last progress %+v", stats, pauses, last)
	}
	n, _ := newMachine(t, nil)
	r := state.NewReader(&b)
	if err := n.ReceiveMemory(r); err != nil {
		t.Fatal(err)
	}
	sameMemory(t, m, n)
	if err := n.Restore(r); err != nil {
		t.Fatal(err)
	}
	start(t, n)
	goesOn(t, n)
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	goesOn(t, m)
	if _, err := m.Send(context.Background(), state.NewWriter(io.Discard), SendOptions{}); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

// breaking is a stream that breaks after n bytes.
type breaking struct{ n int }

func (b *breaking) Write(p []byte) (int, error) {
	if b.n -= len(p); b.n < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// TestSendFails breaks the stream at many places: the guest goes on here, and
// nothing of the attempt is left.
func TestSendFails(t *testing.T) {
	m := startScribbling(t)
	var whole bytes.Buffer
	if _, err := m.Send(context.Background(), state.NewWriter(&whole), SendOptions{MaxRounds: 2}); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		w := state.NewWriter(&breaking{rand.IntN(whole.Len() / 2)})
		if _, err := m.Send(context.Background(), w, SendOptions{MaxRounds: 2}); !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		if m.current() != running || m.mem.Tracking() {
			t.Fatalf("phase %d, tracking %v", m.current(), m.mem.Tracking())
		}
	}
	full := errors.New("disk full")
	if _, err := m.Send(context.Background(), state.NewWriter(io.Discard), SendOptions{AtPause: func() error { return full }}); !errors.Is(err, full) {
		t.Errorf("an error at the pause: %v", err)
	}
	goesOn(t, m)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Send(context.Background(), state.NewWriter(&breaking{10}), SendOptions{}); err == nil || m.current() != paused {
		t.Errorf("a guest that was paused: %v, phase %d", err, m.current())
	}
	if stats, err := m.Send(context.Background(), state.NewWriter(io.Discard), SendOptions{}); err != nil || stats.Rounds != 0 || stats.Last != stats.Pages {
		t.Errorf("a guest that is paused: %+v, %v", stats, err)
	}
}

// TestSendToNobody writes to a pipe that nobody reads: the guest runs on
// meanwhile, and Send ends when it is told to, or when the machine is closed.
func TestSendToNobody(t *testing.T) {
	m := startScribbling(t)
	attempt := func(o SendOptions) (*os.File, context.CancelFunc, chan error) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		t.Cleanup(func() { w.Close() })
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		done := make(chan error, 1)
		go func() {
			// Pages that don't compress fill the pipe.
			_, err := m.Send(ctx, state.NewWriter(w), o)
			done <- err
		}()
		return r, cancel, done
	}
	fill, err := m.mem.Slice(2<<20, 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fill); i += 8 {
		binary.LittleEndian.PutUint64(fill[i:], rand.Uint64())
	}

	_, cancel, done := attempt(SendOptions{})
	for range 5 {
		goesOn(t, m)
	}
	if _, err := m.Send(context.Background(), state.NewWriter(io.Discard), SendOptions{}); !errors.Is(err, errMoving) {
		t.Errorf("a second Send at the same time: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	goesOn(t, m)

	// The reader goes away when the guest has been paused.
	var paused atomic.Bool
	r, _, done := attempt(SendOptions{MaxPause: time.Hour, PauseLimit: 50 * time.Millisecond, AtPause: func() error {
		paused.Store(true)
		clear(fill)
		for i := 0; i < len(fill); i += 8 {
			binary.LittleEndian.PutUint64(fill[i:], rand.Uint64())
		}
		m.mem.Touched(2<<20, 2<<20)
		return nil
	}})
	buf := make([]byte, 1<<16)
	for !paused.Load() {
		if _, err := r.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "has been paused for") {
		t.Errorf("stuck while paused: %v", err)
	}
	goesOn(t, m)

	_, _, done = attempt(SendOptions{})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrEnded) {
		t.Errorf("closed: %v", err)
	}
}

// TestSendGuestThatEnds has the guest power off while it is sent.
func TestSendGuestThatEnds(t *testing.T) {
	m, out := newMachine(t, nil)
	put(t, m, cat(outb(0x3f8, '!'), powerOff)...)
	if _, err := m.Send(context.Background(), state.NewWriter(io.Discard), SendOptions{}); !errors.Is(err, ErrEnded) {
		t.Errorf("before the start: %v", err)
	}
	start(t, m)
	out.wait(t, "!")
	for {
		_, err := m.Send(context.Background(), state.NewWriter(io.Discard), SendOptions{})
		if errors.Is(err, ErrEnded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Resume(); err != nil && !errors.Is(err, ErrEnded) {
			t.Fatal(err)
		}
	}
	end(t, m, PowerOff)
}

// TestTimerFiresOnce arms the local APIC's timer and moves the guest before, or
// perhaps just when, it fires. The handler prints T: once, on one machine or the
// other. A second vCPU waits for its start in vain, and is moved with the first.
func TestTimerFiresOnce(t *testing.T) {
	const handler, divide1 = 0x3000, 0xb
	code := cat(
		[]byte{0xfa}, // cli
		useX2APIC(1<<8),
		wrmsr(0x832, 0, 0x40),    // LVT timer: one shot, vector 0x40
		wrmsr(0x83e, 0, divide1), // bus cycles, which are nanoseconds
		wrmsr(0x838, 0, 300_000_000),
		outb(0x3f8, '!'),
		[]byte{0xfb}, halt, // sti
	)
	isr := cat(outb(0x3f8, 'T'), wrmsr(x2apicEOI, 0, 0), []byte{0xcf}) // iret
	two := func(c *Config) { c.CPUs = 2 }
	m, out := newMachine(t, two)
	if err := m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
		t.Fatal(err)
	}
	put(t, m, code...)
	write(t, m, 4*0x40, handler&0xff, handler>>8, 0, 0)
	write(t, m, handler, isr...)
	start(t, m)
	out.wait(t, "!")
	b := send(t, m)
	before := out.String()
	n, after := receive(t, b, two, func(n *Machine) {
		if err := n.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
			t.Fatal(err)
		}
	})
	start(t, n)
	if before == "!" {
		after.wait(t, "T")
	}
	if text := before + after.String(); text != "!T" {
		t.Errorf("guest printed %q", text)
	}
}
