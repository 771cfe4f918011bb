package machine

import "testing"

// A machine that was paused when it was sent stands still where it comes, can be
// sent on from there, and then counts on as if nothing had been.
func TestStartPaused(t *testing.T) {
	m, out := newMachine(t, nil)
	l := startCounting(t, m)
	if err := m.StartPaused(); err == nil {
		t.Fatal("a machine that has never run was started paused")
	}
	start(t, m)
	out.waitLen(t, m, 100)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	text := []byte(out.String())
	for range 2 {
		b, was := send(t, m), *l
		m, out = receive(t, b, nil, func(m *Machine) {
			l = addLatch(t, m)
			l.v = was.v
		})
		if err := m.StartPaused(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		if m.current() != paused {
			t.Fatalf("it is in phase %d", m.current())
		}
	}
	if got := out.String(); got != "" {
		t.Errorf("it has printed %q while it was paused", got)
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	out.waitLen(t, m, 100)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	text = append(text, out.String()...)
	for i, c := range text {
		if c != byte(i) {
			t.Fatalf("count %d of %d is %d", i, len(text), c)
		}
	}
}
