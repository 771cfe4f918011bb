package vioblk

import (
	"fmt"
	"sync"
	"time"

	"vmd/hv/virtio"
)

// maxHands is how many requests of a queue may be on their way to slow storage.
const maxHands = 8

// slot is a request on its way.
type slot struct {
	chain   virtio.Chain
	req     Request
	written uint32        // of the chain, once it is done
	taken   time.Duration // when
	took    time.Duration // how long it took
	next    *slot         // in the list that it is in
}

// crew carries out requests for the owner of a queue while that goes on: slow
// storage does many things in the time of one. A slot is the crew's from give to
// take, else the owner's.
type crew struct {
	do   func(*slot)
	fail func(error) // a panic is the device's end, not ours
	ring func()      // has the owner look

	mu     sync.Mutex
	work   sync.Cond // todo has a slot, or the crew is to end
	done   sync.Cond // ready has a slot, or a hand has ended
	todo   list
	ready  list
	busy   int  // slots that were given and are not ready
	hands  int  // goroutines
	idle   int  // of them, those that wait and nobody has woken
	asleep bool // the owner looks when it is told
	ended  bool
}

// list is slots in order.
type list struct{ first, last *slot }

func (l *list) add(s *slot) {
	if s.next = nil; l.first == nil {
		l.first = s
	} else {
		l.last.next = s
	}
	l.last = s
}

func (l *list) take() *slot {
	s := l.first
	if s != nil {
		l.first = s.next
	}
	return s
}

func newCrew(do func(*slot), fail func(error), ring func()) *crew {
	c := &crew{do: do, fail: fail, ring: ring}
	c.work.L, c.done.L = &c.mu, &c.mu
	return c
}

// give has s carried out.
func (c *crew) give(s *slot) {
	c.mu.Lock()
	c.todo.add(s)
	c.busy++
	if c.idle > 0 {
		c.idle--
		c.work.Signal()
	} else if c.hands < maxHands {
		c.hands++
		go c.hand()
	}
	c.mu.Unlock()
}

// take returns a slot that is ready, or nil. If it is to wait, it waits for one
// that is not.
func (c *crew) take(wait bool) *slot {
	c.mu.Lock()
	for wait && c.busy > 0 && c.ready.first == nil {
		c.done.Wait()
	}
	s := c.ready.take()
	c.mu.Unlock()
	return s
}

// rest says that the owner looks again when it is told, unless a slot is ready.
func (c *crew) rest() bool {
	c.mu.Lock()
	ok := c.ready.first == nil
	c.asleep = ok
	c.mu.Unlock()
	return ok
}

// settle returns when nothing is being carried out.
func (c *crew) settle() {
	c.mu.Lock()
	for c.busy > 0 {
		c.done.Wait()
	}
	c.mu.Unlock()
}

// end returns when the crew is gone, with what it has begun.
func (c *crew) end() {
	c.mu.Lock()
	c.ended = true
	c.work.Broadcast()
	for c.hands > 0 {
		c.done.Wait()
	}
	c.mu.Unlock()
}

// hand is one goroutine of the crew.
func (c *crew) hand() {
	var s *slot
	defer func() { c.leave(s, recover()) }()
	for {
		if s = c.next(); s == nil {
			return
		}
		c.do(s)
		c.finish(s)
	}
}

// next waits for a slot to carry out; nil is the end.
func (c *crew) next() *slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.todo.first == nil && !c.ended {
		c.idle++
		c.work.Wait()
	}
	if c.ended {
		return nil
	}
	return c.todo.take()
}

func (c *crew) finish(s *slot) {
	c.mu.Lock()
	c.ready.add(s)
	c.busy--
	tell := c.asleep
	c.asleep = false
	c.done.Broadcast()
	c.mu.Unlock()
	if tell {
		c.ring()
	}
}

// leave is the end of a hand, which came with s if it was a panic.
func (c *crew) leave(s *slot, panicked any) {
	if panicked != nil {
		c.fail(fmt.Errorf("device panicked: %v", panicked))
		s.req.Status = VIRTIO_BLK_S_IOERR
		c.finish(s)
	}
	c.mu.Lock()
	c.hands--
	c.done.Broadcast()
	c.mu.Unlock()
}
