package priv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/net/tap"
	"vmd/net/vswitch"
)

// tunDevice is where the tun driver's node is once the process is confined
// (privsep.RootTun).
const tunDevice = "/tun"

// defaultGroup is the group that every tap is in when none of its own has a
// number, as cloning puts it there on OpenBSD (ifconfig(8)).
const defaultGroup = "tap"

// tapOpen opens a tap, attaches it, and hands its descriptors over. It stays
// down until its VM exists. A tap that could not be attached is gone again with
// its descriptors.
func (s *server) tapOpen(m imsg.Msg) error {
	r, err := s.tapRequest(m, vmop.TapOpened)
	if err != nil {
		return err
	}
	res := vmop.TapResult{VM: r.VM, Index: r.Index}
	queues, err := s.open(r, &res)
	if err != nil {
		for _, f := range queues {
			f.Close()
		}
		queues = nil
		res = vmop.TapResult{VM: r.VM, Index: r.Index, Code: codeOf(err), Detail: err.Error()}
	}
	return s.Parent.Send(uint16(vmop.TapOpened), m.ID, res, queues...)
}

// tapSetup makes a tap what the request says once more, and brings it up.
func (s *server) tapSetup(m imsg.Msg) error {
	r, err := s.tapRequest(m, vmop.TapReady)
	if err != nil {
		return err
	}
	res := vmop.TapResult{VM: r.VM, Index: r.Index}
	if err := s.setup(r, &res); err != nil {
		res = vmop.TapResult{VM: r.VM, Index: r.Index, Code: codeOf(err), Detail: err.Error()}
	}
	return s.Parent.Send(uint16(vmop.TapReady), m.ID, res)
}

// tapRequest decodes m. When it cannot it says so in an answer of type t.
func (s *server) tapRequest(m imsg.Msg, t vmop.Type) (r vmop.TapRequest, err error) {
	if err = imsg.Unmarshal(m.Payload, &r); err != nil {
		err = errors.Join(err, s.Parent.Send(uint16(t), m.ID,
			vmop.TapResult{Code: vmop.ErrInvalid, Detail: err.Error()}))
	}
	return r, err
}

func (s *server) open(r vmop.TapRequest, res *vmop.TapResult) ([]*os.File, error) {
	port, err := portOf(r)
	if err != nil {
		return nil, err
	}
	o := tap.Options{Name: r.Name, Queues: r.Queues, Down: r.Down}
	if r.Name != "" {
		if err := s.existing(&o); err != nil {
			return nil, err
		}
	}
	name, queues, err := create(o)
	if err != nil {
		return nil, err
	}
	port.Tap = name
	if !o.Existing { // whoever made a tap beforehand has chosen its address
		port.MAC = vswitch.HostMAC(r.MAC)
	}
	return queues, s.attach(port, res)
}

func (s *server) setup(r vmop.TapRequest, res *vmop.TapResult) error {
	port, err := portOf(r)
	if err != nil {
		return err
	}
	if port.Tap == "" {
		return fmt.Errorf("%w: a tap to set up has a name", errInvalid)
	}
	if err := s.attach(port, res); err != nil {
		return err
	}
	_, err = s.net.SetUp(port.Tap, !r.Down)
	return err
}

func (s *server) attach(p vswitch.Port, res *vmop.TapResult) error {
	l, bridge, err := s.net.Attach(p)
	if err != nil {
		return err
	}
	s.grouped(s.net.SetGroups(l.Name, p.Groups))
	res.Name, res.IfIndex, res.MAC, res.MTU = l.Name, l.Index, l.MAC, l.MTU
	res.BridgeIndex = bridge.Index
	return nil
}

// existing has o attach to the tap of its name, if there is one that was made
// to be attached to. To be sure of that matters: a tap with several queues
// takes one more from anybody, who would then get another VM's frames.
func (s *server) existing(o *tap.Options) error {
	l, err := s.net.Link(o.Name)
	switch {
	case errors.Is(err, vswitch.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !l.Tap:
		return fmt.Errorf("open tap %s: it is a link of kind %q, not a tap", o.Name, l.Kind)
	case !l.Persistent || l.Queues > 0:
		return fmt.Errorf("open tap %s: %w", o.Name, unix.EBUSY)
	}
	o.Existing, o.MultiQueue = true, l.MultiQueue
	if !l.MultiQueue {
		o.Queues = 1
	}
	return nil
}

// create opens a tap by the node in the process's root or, where that is the
// host's, by its usual path.
func create(o tap.Options) (string, []*os.File, error) {
	o.Device = tunDevice
	name, queues, err := tap.Create(o)
	if errors.Is(err, fs.ErrNotExist) {
		o.Device = tap.Device
		return tap.Create(o)
	}
	return name, queues, err
}
