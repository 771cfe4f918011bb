package privsep

import (
	"testing"
	"time"
)

// TestPacer: a burst is for nothing, what comes after it waits, and a pause
// makes up for it.
func TestPacer(t *testing.T) {
	p := pacer{Pace: Pace{Burst: 3, Every: time.Second}}
	now := time.Unix(1000, 0)
	for i, want := range []time.Duration{0, 0, 0, time.Second, 2 * time.Second} {
		if d := p.sent(now); d != want {
			t.Errorf("message %d: wait %v, want %v", i, d, want)
		}
	}
	now = now.Add(time.Hour)
	for i, want := range []time.Duration{0, 0, 0, time.Second} {
		if d := p.sent(now); d != want {
			t.Errorf("message %d after a pause: wait %v, want %v", i, d, want)
		}
	}
}
