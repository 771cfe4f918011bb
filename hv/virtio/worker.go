package virtio

import (
	"fmt"
	"sync"
)

// Worker is the goroutine that owns a queue. It serves the queue whenever its
// doorbell rings.
type Worker struct {
	q     *Queue
	serve func()
	wake  func()

	mu     sync.Mutex
	cond   sync.Cond
	want   uint32 // what ctl says
	parked bool   // the goroutine holds nothing and waits for want to change
	ended  bool
}

// Start makes q's owner. serve is called whenever there may be work; it returns
// when Queue.Next has nothing more, having left nothing half done that it does
// not want to go on with in the next call: nothing at all if the queue is
// halting, for the next call may be in another process. Where serve waits for something
// other than the guest, wake (else nil) makes it return. The owner of a queue at
// rest begins with the device's Resume.
func (q *Queue) Start(serve, wake func()) *Worker {
	w := &Worker{q: q, serve: serve, wake: wake}
	w.cond.L = &w.mu
	if w.want = ctlRun; q.Resting() {
		w.want = ctlPause
	}
	q.bell.ctl.Store(w.want)
	go w.run()
	return w
}

func (w *Worker) run() {
	defer w.end()
	q, ready := w.q, w.ready
	if !w.park() {
		return
	}
	for {
		// Looked at before serve is called, so that serve has seen it too and
		// returned what it held.
		halt := q.bell.ctl.Load() != ctlRun
		if !q.dead.Load() {
			q.disarm()
			w.serve()
			q.Flush()
		}
		if halt {
			if !w.park() {
				return
			}
			continue
		}
		if err := q.bell.wait(ready); err != nil {
			q.Fail(fmt.Errorf("wait for the doorbell: %w", err))
			return
		}
	}
}

// ready asks for a doorbell, and says whether there is something to do without.
func (w *Worker) ready() bool {
	q := w.q
	return q.bell.ctl.Load() != ctlRun || !q.dead.Load() && q.arm()
}

// end lets Stop return. A panic in a device is our bug; it costs the guest this
// one device and not its life.
func (w *Worker) end() {
	if r := recover(); r != nil {
		w.q.Fail(fmt.Errorf("device panicked: %v", r))
	}
	w.mu.Lock()
	w.ended = true
	w.cond.Broadcast()
	w.mu.Unlock()
}

// park waits until there is something else to do than to pause, and says
// whether that is to go on.
func (w *Worker) park() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.want == ctlPause {
		w.parked = true
		w.cond.Broadcast()
		w.cond.Wait()
	}
	w.parked = false
	return w.want == ctlRun
}

// Stop ends the goroutine and returns when it has ended: the queue and what
// serve used have no owner any more. A nil Worker has nothing to stop.
func (w *Worker) Stop() { w.ask(ctlStop, func() bool { return w.ended }) }

// Pause returns when the goroutine has come to rest. A nil Worker is at rest.
func (w *Worker) Pause() { w.ask(ctlPause, func() bool { return w.parked || w.ended }) }

// Poke has serve called, as a doorbell of the guest's would. It does not block.
func (w *Worker) Poke() { w.q.bell.Ring() }

// Resume lets a paused goroutine go on.
func (w *Worker) Resume() { w.ask(ctlRun, func() bool { return true }) }

// ask changes what the goroutine is to do and waits until reached.
func (w *Worker) ask(want uint32, reached func() bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want = want
	w.q.bell.ctl.Store(want)
	w.cond.Broadcast()
	w.q.bell.Ring()
	if w.wake != nil {
		w.wake()
	}
	for !reached() {
		w.cond.Wait()
	}
}
