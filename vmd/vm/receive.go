package vm

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync/atomic"

	"vmd/hv/disk"
	"vmd/hv/state"
	"vmd/hv/virtio/vmmci"
	"vmd/internal/vmop"
)

// incoming is a guest that another host sends. Its goroutine reads the stream and
// builds the machine; until it is done the loop touches nothing of that, and can
// only end it. See outgoing for who has the guest when.
type incoming struct {
	v     *vm
	s     *stream
	r     *state.Reader
	ended atomic.Bool // by the manager

	stopped bool // it is what the manager asked for; the loop's
}

// takeGuest is run for a process that has to receive its guest first.
func (v *vm) takeGuest() error {
	f, err := v.files.need("stream")
	if err != nil {
		return v.fail(vmop.ErrInternal, err)
	}
	s, err := newStream(f)
	if err != nil {
		return v.fail(vmop.ErrInternal, err)
	}
	in := &incoming{v: v, s: s, r: state.NewReader(s)}
	v.incoming = in
	manager := v.manager
	v.Loop.Read(manager, v.handle, func(error) {
		if v.incoming != nil {
			v.incoming.end()
			return
		}
		v.orphaned(manager)(nil)
	})
	failed := make(chan error, 1)
	go func() {
		err := in.run()
		v.Loop.Post(func() {
			v.incoming = nil
			if err != nil {
				failed <- err
				v.Loop.Stop(nil)
				return
			}
			v.arrived(in)
			// The end came when the guest ran already.
			if in.stopped {
				v.kill("stopped by force")
			} else if in.ended.Load() {
				v.orphaned(manager)(nil)
			}
		})
	}()
	if err := v.Loop.Run(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		s.say(vmop.WordFailed) // nobody may listen any more
		s.Close()
		if v.machine != nil {
			err = errors.Join(err, v.machine.Close())
		}
		return v.fail(codeOf(err), err)
	default:
		return v.ended()
	}
}

// end has the goroutine fail.
func (in *incoming) end() {
	in.ended.Store(true)
	in.s.Close()
}

// run receives the guest and starts it.
func (in *incoming) run() error {
	err := in.receive()
	switch {
	case err == nil:
		return nil
	case in.ended.Load():
		return &coded{vmop.ErrStream, errors.New("stopped before it ran")}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &coded{vmop.ErrStream, errors.New("the stream ended too early")}
	}
	return err
}

func (in *incoming) receive() error {
	if err := in.checkGuest(); err != nil {
		return err
	}
	v := in.v
	for i := range v.spec.NICs { // the guest has been told
		v.spec.NICs[i].MTU = v.spec.Receive.NICs[i].MTU
	}
	if err := v.newMachine(); err != nil {
		return err
	}
	for _, step := range []func() error{in.before, in.devices, in.after, in.takeOver} {
		if err := step(); err != nil {
			return inStream(err)
		}
	}
	return nil
}

// inStream gives an error a code that has none.
func inStream(err error) error {
	var c *coded
	if errors.As(err, &c) {
		return err
	}
	return &coded{vmop.ErrStream, err}
}

// checkGuest sees to it that the guest in the stream is the one that parent has
// agreed to.
func (in *incoming) checkGuest() error {
	var g vmop.Guest
	if err := in.r.Get(state.Definition, &g); err != nil {
		return inStream(err)
	}
	spec := &in.v.spec
	if !reflect.DeepEqual(g, *spec.Receive) || len(g.Disks) != len(spec.Disks) || len(g.NICs) != len(spec.NICs) {
		return &coded{vmop.ErrStream, errors.New("the guest in the stream is another than was asked for")}
	}
	return nil
}

// before takes everything up to the moment at which the guest stands still: from
// then on its disks are what they will be for us.
func (in *incoming) before() error {
	v := in.v
	if v.spec.Receive.WithDisks {
		if err := v.openDrives(); err != nil {
			return err
		}
		if err := readPieces(in.r, v.drives); err != nil {
			return err
		}
	}
	return v.machine.ReceiveMemory(in.r)
}

// devices builds what the guest had, and gives it the state that it had.
func (in *incoming) devices() error {
	if err := in.v.addDevices(); err != nil {
		return err
	}
	return in.v.machine.Restore(in.r)
}

// after takes what is left.
func (in *incoming) after() error {
	v := in.v
	if v.spec.Receive.WithDisks {
		if err := readPieces(in.r, v.drives); err != nil {
			return err
		}
		for i, d := range v.drives {
			if err := disk.Quiesce(d.image); err != nil {
				return &coded{vmop.ErrDisk, fmt.Errorf("flush disk %d: %w", i, err)}
			}
		}
	}
	b, err := in.r.Expect(state.Console)
	if err != nil {
		return err
	}
	if len(b) > ringSize {
		return fmt.Errorf("%w: %d bytes of console output", state.ErrFormat, len(b))
	}
	v.console.out.Write(b)
	_, err = in.r.Expect(state.End)
	return err
}

// takeOver makes the guest ours.
func (in *incoming) takeOver() error {
	v := in.v
	if err := in.s.say(vmop.WordLoaded); err != nil {
		return err
	}
	if _, err := in.r.Expect(state.Go); err != nil {
		return err
	}
	if err := v.lockDrives(); err != nil {
		return &coded{vmop.ErrDiskLocked, err}
	}
	start := v.machine.Start
	if v.spec.Receive.Paused {
		start = v.machine.StartPaused
	}
	if err := start(); err != nil {
		return &coded{vmop.ErrHypervisor, err}
	}
	return nil
}

// arrived runs on the loop when the guest runs here.
func (v *vm) arrived(in *incoming) {
	in.s.say(vmop.WordRuns) // if nobody hears it, the sender's operator decides
	in.s.Close()
	v.serving(v.guestState())
	v.tellDriver(vmmci.SyncRTC)
	v.announce()
}

// guestState is what a guest that has just come is to do.
func (v *vm) guestState() vmop.State {
	if v.spec.Receive.Paused {
		return vmop.Paused
	}
	return vmop.Running
}
