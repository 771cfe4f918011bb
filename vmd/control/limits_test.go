package control

import (
	"testing"
	"time"
)

func TestPurse(t *testing.T) {
	l := &limits{rate: 10, burst: 20}
	start := time.Unix(1000, 0)
	var p purse
	for _, tt := range []struct {
		name string
		at   time.Duration
		cost int
		want time.Duration
	}{
		{"a full burst", 0, 20, 0},
		{"one too many is a tenth of a second", 0, 1, 100 * time.Millisecond},
		{"debt adds up", 0, 4, 500 * time.Millisecond},
		{"half of it is paid", 250 * time.Millisecond, 0, 250 * time.Millisecond},
		{"paid", 500 * time.Millisecond, 0, 0},
		{"earned", 1500 * time.Millisecond, 10, 0},
		{"a long pause earns one burst only", time.Hour, 21, 100 * time.Millisecond},
	} {
		if got := p.spend(tt.cost, start.Add(tt.at), l); got != tt.want {
			t.Errorf("%s: wait %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Accepting goes on at once when a client leaves.
func TestPauseEndsWithRoom(t *testing.T) {
	l := &listener{freed: make(chan struct{}, 1), done: make(chan struct{})}
	l.room()
	l.room() // does not block
	l.pause()
	close(l.done)
	l.pause()
}
