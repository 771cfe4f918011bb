package virtio

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func newBell(t *testing.T) *Doorbell {
	t.Helper()
	d, err := NewDoorbell()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// A guest rings only if the owner's last look at the ring asked for it (virtio
// 1.3 2.7.10), and now and then waits for what it has asked for: one lost ring
// and both wait for ever.
func TestNoRingIsLost(t *testing.T) {
	there, back := newBell(t), newBell(t)
	const last = 50_000
	var avail, event, done atomic.Uint32
	ended := make(chan error)
	go func() {
		ready := func() bool {
			event.Store(done.Load())
			return avail.Load() != done.Load()
		}
		var err error
		for err == nil && done.Load() != last {
			if err = there.wait(ready); err == nil {
				done.Store(avail.Load())
				back.Ring()
			}
		}
		ended <- err
	}()
	rings := 0
	for i := range uint32(last) {
		avail.Store(i + 1)
		if event.Load() == i {
			rings++
			if _, err := unix.Write(there.FD(), one[:]); err != nil {
				t.Fatal(err)
			}
		}
		for i%3 == 0 && done.Load() <= i {
			if err := back.wait(func() bool { return done.Load() > i }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if rings == 0 {
		t.Error("no ring at all")
	}
}

// What was rung for before the wait is not waited for again.
func TestRingBeforeWait(t *testing.T) {
	d := newBell(t)
	never := func() bool { return false }
	for range 3 {
		d.Ring()
		if err := d.wait(never); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.wait(func() bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := d.forget(); err != nil {
		t.Fatal(err)
	}
	d.Ring()
	if err := d.wait(never); err != nil {
		t.Fatal(err)
	}
}
