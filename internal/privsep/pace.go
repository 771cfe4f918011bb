package privsep

import (
	"time"

	"vmd/internal/imsg"
)

// Pace is how fast a peer is listened to: Burst messages at once, and then one
// every Every.
type Pace struct {
	Burst int
	Every time.Duration
}

// pacer keeps a Pace. due is when all that was sent would have been, one every
// Every.
type pacer struct {
	Pace
	due time.Time
}

// sent notes a message and returns how long the next has to wait.
func (p *pacer) sent(now time.Time) time.Duration {
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(p.Every)
	return max(0, p.due.Sub(now)-time.Duration(p.Burst)*p.Every)
}

// ReadPaced is Read for a peer that may be out to drown us, or those to whom its
// messages are passed on. It waits in its own socket.
func (l *Loop) ReadPaced(c *imsg.Conn, pace Pace, handle func(imsg.Msg), gone func(error)) {
	p := pacer{Pace: pace}
	l.read(c, func() { l.sleep(p.sent(time.Now())) }, handle, gone)
}

// sleep waits for d, or until the loop has ended.
func (l *Loop) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.done:
	}
}
