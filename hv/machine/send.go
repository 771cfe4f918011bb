package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmd/hv/state"
)

// SendOptions say how a machine is sent. The zero value will do.
type SendOptions struct {
	// MaxPause is how long the rest of the memory may take that is sent while
	// the guest stands still: 0 is DefaultMaxPause. A guest that writes faster
	// than the stream flows is paused for longer in the end: see Forced.
	MaxPause time.Duration
	// MaxRounds bounds how often memory that has changed is sent again while
	// the guest runs: 0 is 30.
	MaxRounds int
	// PauseLimit is how long the guest may stand still before it is given up,
	// and goes on here: 0 is 30 seconds.
	PauseLimit time.Duration

	// Progress is told how far it is, now and then, and may be nil. AtPause is
	// called when the guest has been paused, before any more is written, and
	// may be nil too: its error ends the attempt. Both are called by Send.
	Progress func(Progress)
	AtPause  func() error
}

// DefaultMaxPause is the pause that a guest and its peers hardly notice.
const DefaultMaxPause = 300 * time.Millisecond

func (o SendOptions) withDefaults() SendOptions {
	if o.MaxPause == 0 {
		o.MaxPause = DefaultMaxPause
	}
	if o.MaxRounds == 0 {
		o.MaxRounds = 30
	}
	if o.PauseLimit == 0 {
		o.PauseLimit = 30 * time.Second
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.AtPause == nil {
		o.AtPause = func() error { return nil }
	}
	return o
}

// Progress is how far Send is.
type Progress struct {
	Round int     // from 1; the one with the guest paused is the last
	Pages uint64  // guest pages sent so far; one that changed counts again
	Left  uint64  // pages that are known to be left
	Bytes uint64  // of the stream so far
	Rate  float64 // bytes of guest memory a second, in the last full round
}

// SendStats is how Send went.
type SendStats struct {
	Rounds int           // while the guest ran
	Pages  uint64        // guest pages sent; one that changed counts again
	Zero   uint64        // those of them that were all zeros
	Last   uint64        // those of them that were sent while the guest was paused
	Bytes  uint64        // of the stream
	Total  time.Duration // of Send
	Pause  time.Duration // how long the guest has stood still when Send returns
	Forced bool          // it was paused though more was left than fits MaxPause
}

var (
	errMoving = errors.New("the machine is being sent elsewhere")
	errPart   = errors.New("the machine has been received in part")
	// ErrBusy says that a guest changes its memory faster than it can be sent.
	ErrBusy = errors.New("the guest changes its memory faster than it can be sent")
)

// Send writes all that a machine like this one needs to go on from here, so that
// its guest notices no more than a pause: sections Machine to MachineEnd. The
// guest runs meanwhile, but for the end. After nil it is paused, and may be let
// go on here with Resume if the receiver did not take over; one that was paused
// before is sent as it is. After an error it is as before.
//
// A stream that does not take what is written holds up nobody but Send, until
// ctx is done, if it knows deadlines (state.Writer.Interrupt).
func (m *Machine) Send(ctx context.Context, w *state.Writer, o SendOptions) (SendStats, error) {
	if err := m.encryption.mayMove(); err != nil {
		return SendStats{}, fmt.Errorf("send the machine: %w", err)
	}
	if !m.send.TryLock() {
		return SendStats{}, errMoving
	}
	defer m.send.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := m.beginSend(func() { cancel(ErrEnded) }); err != nil {
		return SendStats{}, err
	}
	stop := context.AfterFunc(ctx, w.Interrupt)
	defer stop()
	s := sending{m: m, w: w, o: o.withDefaults(), began: time.Now()}
	err := s.run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	if err != nil {
		err = fmt.Errorf("send the machine: %w", err)
	}
	return s.stats, err
}

// beginSend makes cancel known to Close.
func (m *Machine) beginSend(cancel func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase != running && m.phase != paused {
		return ErrEnded
	}
	m.unsend = cancel
	return nil
}

// endSend waits until Send has ended: it reads memory that is about to go.
func (m *Machine) endSend() {
	m.mu.Lock()
	if m.unsend != nil {
		m.unsend()
	}
	m.mu.Unlock()
	m.send.Lock()
	m.unsend = nil
	m.send.Unlock()
}

// sending is one run of Send.
type sending struct {
	m     *Machine
	w     *state.Writer
	o     SendOptions
	c     *copier
	pace  pace
	began time.Time
	stats SendStats
	ran   bool // before freeze
}

func (s *sending) run(ctx context.Context) (err error) {
	if err := s.w.Put(state.Machine, s.m.shape()); err != nil {
		return err
	}
	s.pace = pace{maxPause: s.o.MaxPause, maxRounds: s.o.MaxRounds}
	s.c = newCopier(ctx, s.m, s.w)
	s.c.progress = s.progress
	defer s.c.close()
	defer func() {
		if e := s.c.untrack(); err == nil && e != nil {
			err = s.thaw(e)
		}
		s.count()
	}()
	if err := s.c.track(); err != nil {
		return err
	}
	if s.m.current() == running {
		if s.stats.Forced, err = s.c.rounds(&s.pace); err != nil {
			return err
		}
		if d := s.pace.estimate(s.c.left); d > s.o.PauseLimit {
			return fmt.Errorf("%w: %d MiB would take %v with it paused", ErrBusy, s.c.left*pageSize>>20, d.Round(time.Second))
		}
	}
	return s.finish(ctx)
}

// count fills in the statistics.
func (s *sending) count() {
	s.stats.Rounds = s.pace.rounds
	s.stats.Pages, s.stats.Zero = s.c.pages, s.c.pages-s.c.data
	s.stats.Bytes = s.w.Written()
	s.stats.Total = time.Since(s.began)
}

func (s *sending) progress(left uint64) {
	s.o.Progress(Progress{Round: s.pace.rounds + 1, Pages: s.c.pages, Left: left, Bytes: s.w.Written(), Rate: s.pace.rate})
}

// finish pauses the guest and sends the rest. If that fails the guest goes on.
func (s *sending) finish(ctx context.Context) error {
	if err := s.freeze(); err != nil {
		return err
	}
	at := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, s.o.PauseLimit, fmt.Errorf("the guest has been paused for %v", s.o.PauseLimit))
	defer cancel()
	stop := context.AfterFunc(limited, s.w.Interrupt)
	defer stop()
	s.c.ctx = limited
	err := s.rest()
	s.stats.Pause = time.Since(at)
	if cause := context.Cause(limited); err != nil && cause != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	return s.thaw(err)
}

// freeze pauses the machine so that only Send can let it go on.
func (s *sending) freeze() (err error) {
	m := s.m
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if s.ran, err = m.pause(); err == nil {
		m.moving = true
	}
	return err
}

// thaw ends what freeze began: if there is an error the machine goes on, unless
// it was paused before.
func (s *sending) thaw(err error) error {
	m := s.m
	m.ctl.Lock()
	defer m.ctl.Unlock()
	m.moving = false
	if err == nil || !s.ran {
		return err
	}
	return errors.Join(err, m.resume())
}

// rest writes what is left once the guest stands still.
func (s *sending) rest() error {
	before := s.c.pages
	for _, step := range []func() error{
		s.o.AtPause,
		func() error { return s.w.Section(state.Paused, nil) },
		s.c.collect,
		s.c.send,
		s.c.sendROM,
		func() error { return s.w.Section(state.Memory, nil) },
		func() error { return s.m.saveState(s.w) },
		s.w.Flush,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	s.stats.Last = s.c.pages - before
	return nil
}

// saveState writes all but memory. The chips come before the vCPUs: an
// interrupt that KVM passes on in between is then with the latter.
func (m *Machine) saveState(w *state.Writer) error {
	if err := m.saveParts(w); err != nil {
		return err
	}
	chip, err := m.saveChips()
	if err != nil {
		return err
	}
	if err := w.Put(state.Chip, chip); err != nil {
		return err
	}
	states := make([]vcpuState, len(m.vcpus))
	for i, v := range m.vcpus {
		if states[i], err = v.save(); err != nil {
			return fmt.Errorf("save vCPU %d: %w", i, err)
		}
	}
	if err := m.saveTSCs(states); err != nil {
		return fmt.Errorf("save time stamp counters: %w", err)
	}
	for i := range states {
		if err := w.Put(state.VCPU, states[i]); err != nil {
			return err
		}
	}
	return w.Section(state.MachineEnd, nil)
}
