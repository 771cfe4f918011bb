// Package priv makes taps and attaches them to the network, because parent says
// so. It is the only process that may change the host's network.
//
//	user   _vmd and CAP_NET_ADMIN   root   nothing but the tun driver's node
//	holds  a routing socket, one socket to parent
//	trusts parent, but for what would make it touch an interface of another
//	       kind than it was told
//
// It knows no VMs and keeps nothing between two messages: a tap belongs to
// whoever holds its descriptor and vanishes with it. Whatever goes wrong is an
// answer, never the end of the process.
package priv

import (
	"cmp"
	"errors"
	"fmt"

	"vmd/internal/imsg"
	"vmd/internal/logging"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
	"vmd/net/vswitch"
)

// server is the state of the role. The loop owns it.
type server struct {
	*privsep.Process
	net *vswitch.Conn

	noGroups bool // it was said that groups do not work
}

// Run is the role: it returns when parent has gone away.
func Run(p *privsep.Process) error {
	net, err := vswitch.Open() // before Confine: it reads files and makes sockets
	if err != nil {
		return err
	}
	defer net.Close()
	if err := p.Confine(); err != nil {
		return err
	}
	s := &server{Process: p, net: net}
	s.grouped(net.PurgeGroups()) // of what went while nobody watched
	go s.watch()
	return p.Loop.Serve(p.Parent, s.handle)
}

// watch takes taps that have gone out of their groups: their names are free.
func (s *server) watch() {
	for {
		names, err := s.net.Gone()
		if err != nil {
			return // the connection was closed
		}
		s.Loop.Post(func() {
			if len(names) == 0 {
				s.grouped(s.net.PurgeGroups())
			}
			for _, name := range names {
				s.grouped(s.net.Left(name))
			}
		})
	}
}

// grouped is told how a change of groups went. They are for the rules of an
// administrator, who may have none and a kernel without them: no interface fails
// for that.
func (s *server) grouped(err error) {
	if err != nil && !s.noGroups {
		s.Log.Warn().Err(err).Msg("groups of interfaces are not kept; this is said once")
	}
	s.noGroups = err != nil
}

// handle carries out one request.
func (s *server) handle(m imsg.Msg) {
	var err error
	switch vmop.Type(m.Type) {
	case vmop.TapOpen:
		err = s.tapOpen(m)
	case vmop.TapSetup:
		err = s.tapSetup(m)
	case vmop.SwitchSetup:
		err = s.switchSetup(m)
	case vmop.LinkQuery:
		err = s.linkQuery(m)
	case vmop.SetLog:
		var r vmop.LogRequest
		if err = imsg.Unmarshal(m.Payload, &r); err == nil {
			s.Log = s.Log.Level(logging.Level(r.Verbose))
		}
	default:
		err = errors.New("unknown message")
	}
	if err != nil {
		s.Log.Error().Err(err).Uint16("type", m.Type).Msg("bad message from parent")
	}
}

// switchSetup sets up the bridge of a switch.
func (s *server) switchSetup(m imsg.Msg) error {
	var r vmop.SwitchRequest
	if err := imsg.Unmarshal(m.Payload, &r); err != nil {
		return errors.Join(err, s.Parent.Send(uint16(vmop.SwitchReady), m.ID,
			vmop.SwitchResult{Code: vmop.ErrInvalid, Detail: err.Error()}))
	}
	res := vmop.SwitchResult{Name: r.Name}
	l, err := s.setSwitch(r)
	if err != nil {
		res.Code, res.Detail = codeOf(err), err.Error()
	}
	res.IfIndex = l.Index
	return s.Parent.Send(uint16(vmop.SwitchReady), m.ID, res)
}

func (s *server) setSwitch(r vmop.SwitchRequest) (vswitch.Link, error) {
	if err := cmp.Or(checkName("bridge", r.Bridge), checkAlias(r.Alias), checkGroups(r.Groups)); err != nil {
		return vswitch.Link{}, err
	}
	l, err := s.net.SetSwitch(vswitch.Switch{
		Bridge: r.Bridge,
		Alias:  r.Alias,
		VRF:    r.VRF,
		Groups: r.Groups,
		Down:   r.Down,
	})
	if err != nil {
		return l, fmt.Errorf("switch %q: %w", r.Name, err)
	}
	return l, nil
}

// linkQuery says whether there is a link of some name.
func (s *server) linkQuery(m imsg.Msg) error {
	var r vmop.LinkRequest
	err := imsg.Unmarshal(m.Payload, &r)
	if err != nil {
		return errors.Join(err, s.Parent.Send(uint16(vmop.LinkFound), m.ID, vmop.LinkResult{}))
	}
	res := vmop.LinkResult{Name: r.Name}
	if err = checkName("interface", r.Name); err == nil {
		var l vswitch.Link
		l, err = s.net.Link(r.Name)
		res.IfIndex = l.Index
	}
	if err != nil && !errors.Is(err, vswitch.ErrNotFound) {
		s.Log.Warn().Err(err).Msg("cannot look an interface up")
	}
	return s.Parent.Send(uint16(vmop.LinkFound), m.ID, res)
}

// codeOf is the result code of an error.
func codeOf(err error) vmop.Code {
	if errors.Is(err, errInvalid) {
		return vmop.ErrInvalid
	}
	return vmop.ErrNetwork
}
