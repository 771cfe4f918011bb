package machine

import "time"

// pace decides when a machine that is copied while it runs is to be paused.
type pace struct {
	maxPause  time.Duration
	maxRounds int

	rounds int
	rate   float64 // bytes of pages a second, as measured; 0 before the first round
	least  uint64  // fewest pages that a round had left
	stuck  int     // rounds in a row that did not get much closer
}

// stuckAfter is how many rounds without progress are enough.
const stuckAfter = 4

// took notes that a round sent data pages with something in them, in d. Rounds
// of a few pages measure buffers more than they measure the way.
func (p *pace) took(data uint64, d time.Duration) {
	const few = 256
	p.rounds++
	if d > 0 && (data >= few || p.rate == 0) {
		p.rate = float64(data*pageSize) / d.Seconds()
	}
}

// estimate is how long left pages would take.
func (p *pace) estimate(left uint64) time.Duration {
	if left == 0 || p.rate == 0 {
		return 0 // nothing, or nothing but zero pages so far
	}
	return time.Duration(min(float64(left)*pageSize/p.rate*float64(time.Second), 1<<62))
}

// pause says whether it is time, with left pages to go; and whether because there
// is no hope that waiting makes it shorter.
func (p *pace) pause(left uint64) (now, forced bool) {
	if p.rounds == 0 {
		return false, false
	}
	if p.estimate(left) <= p.maxPause {
		return true, false
	}
	if p.rounds == 1 || left < p.least-p.least/10 {
		p.least, p.stuck = left, 0
	} else {
		p.stuck++
	}
	return p.stuck >= stuckAfter || p.rounds >= p.maxRounds, true
}
