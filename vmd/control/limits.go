package control

import (
	"sync/atomic"
	"time"
)

// limits keep a client from getting in the way of others.
type limits struct {
	// conns is how many clients there may be, rootConns how many when root
	// asks: nobody can lock root out.
	conns, rootConns int
	// perUser is how many connections a user other than root may have.
	perUser int
	// inFlight is how many requests of a client may wait for their answers.
	inFlight int
	// backlog is how many requests may wait for parent to read them.
	backlog int
	// A user may make requests worth rate points a second, and burst at once
	// after a pause; who makes more is read from more slowly. What a request
	// is worth, see requests.
	rate, burst float64
	// unread is how many bytes may wait for a user who does not read them, on
	// all connections together.
	unread int64
	// consoles is how many a connection may ask for, and userConsoles how many
	// all connections of a user other than root: each is a descriptor that is
	// on its way for as long as the client does not read, and the kernel counts
	// those of all clients together (unix(7), ETOOMANYREFS).
	consoles, userConsoles int
}

var defaultLimits = limits{
	conns:     256,
	rootConns: 512,
	perUser:   32,
	inFlight:  64,
	backlog:   1024,
	rate:      500,
	burst:     500,
	unread:    32 << 20,

	consoles:     64,
	userConsoles: 256,
}

// user is what control knows about a user with clients.
type user struct {
	conns    int
	consoles int          // asked for on these
	unread   atomic.Int64 // bytes that wait for the user to read them
	busy     bool         // parent has too much to do with the user's descriptors
	purse    purse
}

// purse is a token bucket that may go into debt: a request is never refused,
// but the next one has to wait until the debt is paid.
type purse struct {
	points float64 // what is left of burst; negative is debt
	at     time.Time
}

// spend takes cost out at now and returns how long to wait before the next
// request.
func (p *purse) spend(cost int, now time.Time, l *limits) time.Duration {
	if p.at.IsZero() {
		p.points = l.burst
	} else {
		p.points = min(l.burst, p.points+now.Sub(p.at).Seconds()*l.rate)
	}
	p.at = now
	p.points -= float64(cost)
	if p.points >= 0 {
		return 0
	}
	return time.Duration(-p.points / l.rate * float64(time.Second))
}
