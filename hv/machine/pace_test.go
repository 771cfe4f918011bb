package machine

import (
	"testing"
	"time"
)

// TestPace plays rounds: how many data pages each sent, in how long, and how
// many were left after it.
func TestPace(t *testing.T) {
	type round struct {
		data uint64
		took time.Duration
		left uint64
	}
	const s = time.Second
	falling := []round{{100_000, 4 * s, 30_000}, {30_000, s, 10_000}, {10_000, s / 3, 5_000}}
	for name, c := range map[string]struct {
		rounds []round
		max    int
		want   int // rounds until the pause
		forced bool
	}{
		"an idle guest":                  {[]round{{100_000, s, 50}}, 30, 1, false},
		"an empty guest":                 {[]round{{0, s, 0}}, 30, 1, false},
		"one that has slowed down":       {falling, 30, 3, false},
		"a round too few":                {falling, 2, 2, true},
		"one that writes all the time":   {[]round{{1e5, s, 1e5}, {1e5, s, 1e5}, {1e5, s, 99_000}, {1e5, s, 1e5}, {1e5, s, 1e5}, {1e5, s, 0}}, 30, 5, true},
		"one that falls slowly, at last": {[]round{{1e5, s, 1e5}, {1e5, s, 99_000}, {1e5, s, 80_000}, {1e5, s, 79_000}, {1e5, s, 65_000}, {1e5, s, 20_000}}, 30, 6, false},
		"small rounds measure nothing":   {[]round{{100_000, 4 * s, 10_000}, {9, s, 9_000}, {9, s, 5_000}}, 30, 3, false},
	} {
		p := pace{maxPause: 300 * time.Millisecond, maxRounds: c.max}
		if now, _ := p.pause(0); now {
			t.Errorf("%s: paused before the first round", name)
		}
		n, forced, now := 0, false, false
		for _, r := range c.rounds {
			p.took(r.data, r.took)
			n++
			if now, forced = p.pause(r.left); now {
				break
			}
		}
		if n != c.want || !now || forced != c.forced {
			t.Errorf("%s: paused %v after %d rounds, forced %v; want %d and %v", name, now, n, forced, c.want, c.forced)
		}
	}
}

func TestPaceEstimate(t *testing.T) {
	p := pace{rate: 1 << 20}
	if d := p.estimate(512); d != 2*time.Second {
		t.Errorf("2 MiB at 1 MiB a second: %v", d)
	}
	if d := p.estimate(1 << 60); d < time.Hour {
		t.Errorf("an endless guest: %v", d)
	}
	if d := (&pace{}).estimate(100); d != 0 {
		t.Errorf("without a rate: %v", d)
	}
}
