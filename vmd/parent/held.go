package parent

import (
	"os"
	"time"

	"vmd/internal/vmop"
)

// A descriptor that came from a client can be such that to look at it, or only
// to close it, never ends: FUSE asks a program of the user's. That holds up
// nothing but a thread; but threads are counted, and at 10,000 of them Go gives
// up. So a user with maxHeld of them may send no more, and control is ended when
// it passes them on all the same.
const (
	maxHeld     = 64
	tooManyHeld = 1024
)

// closeTime is how long the loop waits for descriptors to be closed: mostly they
// are at once, and then the locks on them are gone before anybody is answered. It
// does not wait for a user who keeps it waiting.
const (
	closeTime = 10 * time.Millisecond
	fewHeld   = 4
)

// hold notes that something is being done with descriptors of a user's, and
// letGo that it has been.
func (p *parent) hold(uid uint32) {
	if p.held[uid]++; p.held[uid] == maxHeld {
		p.tellBusy(uid)
	}
}

func (p *parent) letGo(uid uint32) {
	if p.held[uid]--; p.held[uid] == maxHeld-1 {
		p.tellBusy(uid)
	}
	if p.held[uid] == 0 {
		delete(p.held, uid)
	}
}

// tellBusy tells control whether a user may send descriptors. Nobody can keep
// root from it.
func (p *parent) tellBusy(uid uint32) {
	if uid != 0 {
		p.send("control", vmop.UserBusy, 0, vmop.UserFiles{UID: uid, Busy: p.held[uid] >= maxHeld})
	}
}

// discard closes descriptors, nil among them, that a user may have opened.
func (p *parent) discard(uid uint32, files ...*os.File) {
	if len(files) == 0 {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}()
	if p.held[uid] < fewHeld {
		t := time.NewTimer(closeTime)
		defer t.Stop()
		select {
		case <-done:
			return
		case <-t.C:
		}
	}
	p.hold(uid)
	go func() {
		<-done
		p.loop.Post(func() { p.letGo(uid) })
	}()
}
