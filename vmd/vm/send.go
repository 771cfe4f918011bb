package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmd/hv/machine"
	"vmd/hv/state"
	"vmd/hv/virtio/vmmci"
	"vmd/internal/vmop"
)

// outgoing is a guest on its way to another host. Its goroutine writes the
// stream; the loop may abort it until Go has been said. From there on, and not
// before, the guest is the receiver's:
//
//	ours    ── stream, End ──▶
//	        ◀── WordLoaded ───        it could run there
//	        ── locks off, Go ─▶
//	        ◀── WordRuns ─────        it does: our process may end
//	        ◀── WordFailed ───        it does not: locks on, and it runs here
//	        ◀── (nothing) ────        nobody knows: it stays here, paused and
//	                                  without locks, until an operator says
type outgoing struct {
	v        *vm
	s        *stream
	guest    vmop.Guest
	maxPause time.Duration
	before   vmop.State
	ctx      context.Context
	cancel   context.CancelFunc
	done     chan struct{} // closed when err is what came of it
	err      error

	still   time.Time // when it stopped, if it did
	pause   time.Duration
	content *contents

	mu      sync.Mutex
	aborted bool
	gone    bool // Go is being said: too late to abort
}

var (
	errAborted = errors.New("the sending was ended")
	errUnsure  = errors.New("whether the guest runs at the receiver is not known; it is paused here")
)

// send begins to send the guest through f.
func (v *vm) send(r vmop.VMSendRequest, f *os.File) {
	err := v.sendable(f)
	var s *stream
	if err == nil {
		s, err = newStream(f)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		v.report(vmop.Event{Kind: vmop.EventSendFailed, Code: vmop.ErrSend, Detail: err.Error(), State: v.state})
		return
	}
	o := &outgoing{
		v: v, s: s, guest: v.guest(r.Guest), maxPause: time.Duration(r.MaxPause) * time.Millisecond,
		before: v.state, done: make(chan struct{}),
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	v.outgoing, v.state = o, vmop.Migrating
	go func() {
		o.err = o.run()
		close(o.done)
		v.Loop.Post(func() { v.sendEnded(o) })
	}()
}

func (v *vm) sendable(f *os.File) error {
	switch {
	case f == nil:
		return errors.New("no socket came with the request")
	case v.outgoing != nil || v.sent:
		return errors.New("it is being sent already")
	case v.unlocked:
		return errUnsure
	case v.state != vmop.Running && v.state != vmop.Paused:
		return fmt.Errorf("it is %v", v.state)
	}
	return nil
}

// guest completes what parent knows of the guest.
func (v *vm) guest(g vmop.Guest) vmop.Guest {
	g.Control, g.Paused = v.control != nil, v.state == vmop.Paused
	for i := range g.Disks {
		if i < len(v.drives) {
			d := v.drives[i]
			g.Disks[i].Format, g.Disks[i].Serial, g.Disks[i].Size = d.format, d.serial, d.image.Size()
		}
	}
	for i := range g.NICs {
		if i < len(v.spec.NICs) {
			g.NICs[i].MTU, g.NICs[i].Queues = v.spec.NICs[i].MTU, v.queues[i]
		}
	}
	return g
}

// abort ends the sending, unless it is too late.
func (o *outgoing) abort() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.gone {
		o.aborted = true
		o.cancel()
	}
}

// commit makes it too late to abort.
func (o *outgoing) commit() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone = !o.aborted
	return o.gone
}

// run sends the guest. After an error other than errUnsure it is ours, and does
// what it did before.
func (o *outgoing) run() error {
	defer o.s.Close()
	defer o.cancel()
	defer context.AfterFunc(o.ctx, o.s.Close)()
	o.content = newContents(state.NewWriter(o.s), o.v.drives)
	err := o.stream()
	if err == nil {
		err = o.handOver()
	}
	o.content.unwatch()
	if err == nil || errors.Is(err, errUnsure) {
		return err
	}
	if o.ctx.Err() != nil {
		err = errAborted
	}
	return o.goOn(err)
}

// stream writes everything up to End. The guest stands still when it returns
// without an error.
func (o *outgoing) stream() error {
	w := o.content.w
	if err := w.Put(state.Definition, o.guest); err != nil {
		return err
	}
	if o.guest.WithDisks {
		if err := o.content.live(o.ctx); err != nil {
			return err
		}
	}
	_, err := o.v.machine.Send(o.ctx, w, machine.SendOptions{MaxPause: o.maxPause, AtPause: func() error {
		o.still = time.Now()
		return o.v.quiesceDrives()
	}})
	if err != nil {
		return err
	}
	if o.guest.WithDisks {
		if err := o.content.rest(o.ctx); err != nil {
			return err
		}
	}
	if err := w.Section(state.Console, o.v.console.out.bytes()); err != nil {
		return err
	}
	if err := w.Section(state.End, nil); err != nil {
		return err
	}
	return w.Flush()
}

// handOver gives the guest to the receiver.
func (o *outgoing) handOver() error {
	if err := o.s.expect(vmop.WordLoaded); err != nil {
		return err
	}
	if !o.commit() {
		return errAborted
	}
	o.v.unlockDrives()
	w := o.content.w
	err := w.Section(state.Go, nil)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return err
	}
	if o.before == vmop.Running {
		o.pause = time.Since(o.still)
	}
	switch word, err := o.s.word(); {
	case err == nil && word == vmop.WordRuns:
		return nil
	case err == nil && word == vmop.WordFailed:
		return errors.New("the receiver could not run it")
	case errors.Is(err, unix.ECONNRESET): // unix(7): what we wrote was not read
		return errors.New("the stream broke")
	case err == nil || errors.Is(err, io.EOF):
		return errUnsure
	default:
		return fmt.Errorf("%w: %w", errUnsure, err)
	}
}

// goOn has the guest do what it did before. Without its disks it cannot: who has
// them may have the guest.
func (o *outgoing) goOn(why error) error {
	if err := o.v.lockDrives(); err != nil {
		return fmt.Errorf("%w: %w: %w", errUnsure, why, err)
	}
	if o.before != vmop.Running || o.still.IsZero() {
		return why
	}
	if err := o.v.machine.Resume(); err != nil && !errors.Is(err, machine.ErrEnded) {
		return errors.Join(why, err)
	}
	return why
}

// sendEnded runs on the loop, or after it, when o is done.
func (v *vm) sendEnded(o *outgoing) {
	if v.outgoing != o {
		return
	}
	v.outgoing = nil
	if o.err == nil {
		// The process stays until the manager has taken note, or the next one:
		// a guest that only seems to have crashed would be started again.
		v.sent, v.pause = true, o.pause
		if v.shutdown.timer != nil {
			v.shutdown.timer.Stop()
		}
		v.tellSent()
		return
	}
	v.Log.Warn().Err(o.err).Msg("guest not sent")
	v.state = o.before
	if errors.Is(o.err, errUnsure) {
		v.state, v.unlocked = vmop.Paused, true
	} else if o.before == vmop.Running && !o.still.IsZero() {
		v.tellDriver(vmmci.SyncRTC)
	}
	v.report(vmop.Event{Kind: vmop.EventSendFailed, Code: vmop.ErrSend, Detail: o.err.Error(), State: v.state})
}

func (v *vm) tellSent() {
	v.report(vmop.Event{Kind: vmop.EventSent, Pause: uint64(v.pause)})
}

// endSending waits for the goroutine that sends the guest, which has ended.
func (v *vm) endSending() {
	if o := v.outgoing; o != nil {
		o.abort()
		<-o.done
		v.sendEnded(o)
	}
}
