package parent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/net/addr"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// nic is an interface of a run, as far as it has got.
type nic struct {
	req   vmop.TapRequest
	arg   vmop.NICArg
	shown registry.RunNIC
	taps  []*os.File // one for each queue
	vhost []*os.File // likewise, where the kernel moves the frames
}

// tapWait is a request to priv for an interface of a run.
type tapWait struct {
	run    *run
	index  int
	answer vmop.Type // what it is to be answered with,
	files  int       // and how many descriptors at most
}

// openTaps asks priv for the taps of r, all at once.
func (p *parent) openTaps(r *run) {
	for i := range r.def.NICs {
		n, err := p.plan(r, i)
		if err != nil {
			p.failRun(r, vmop.ErrNetwork, err)
			return
		}
		r.nics = append(r.nics, n)
	}
	p.askTaps(r, vmop.TapOpen)
}

// askTaps sends a request for every interface. Without any, the run goes on.
func (p *parent) askTaps(r *run, typ vmop.Type) {
	answer := vmop.TapOpened
	if typ == vmop.TapSetup {
		answer = vmop.TapReady
	}
	if r.taps = len(r.nics); r.taps == 0 {
		p.launch(r)
		return
	}
	for i := range r.nics {
		p.serial++
		p.taps[p.serial] = &tapWait{r, i, answer, max(1, r.nics[i].req.Queues)}
		if err := p.send("priv", typ, p.serial, r.nics[i].req); err != nil {
			delete(p.taps, p.serial)
			p.failRun(r, vmop.ErrUnavailable, err)
			return
		}
	}
}

// plan says what interface i of r shall be. A switch counts as it is now.
func (p *parent) plan(r *run, i int) (nic, error) {
	d := &r.def.NICs[i]
	sw := p.cfg.Switch(d.Switch)
	if sw == nil && d.Switch != "" {
		p.log.Warn().Str("vm", r.def.Name).Str("switch", d.Switch).Msg("no such switch; interface stays unattached")
	}
	port := d.Attach(sw)
	n := nic{
		req: vmop.TapRequest{
			VM: r.id, Index: i, Name: d.Tap, MAC: d.MAC, Bridge: port.Bridge, VRF: vrf(port.RDomain),
			Alias: clip(fmt.Sprintf("vm%d-if%d-%s", r.id, i, r.def.Name)), Groups: port.Groups,
			Down: d.Down, Locked: port.Locked, Queues: queues(&r.def),
		},
		arg: vmop.NICArg{MAC: d.MAC, Locked: port.Locked, Down: d.Down},
	}
	if r.guest != nil { // it has them already
		n.req.Queues = r.guest.NICs[i].Queues
	}
	if !d.Local {
		return n, nil
	}
	return n, p.planLocal(r, i, &n)
}

// planLocal gives an interface the addresses that follow from its number.
func (p *parent) planLocal(r *run, i int, n *nic) error {
	host, guest, err := addr.Local4(p.cfg.LocalPrefix, r.id, i)
	if err != nil {
		return err
	}
	n.req.Address4 = host.String()
	n.shown.Address, n.shown.Host = guest.Addr().String(), host.Addr().String()
	n.arg.Local = &vmop.Local{
		Host: host.Addr().As4(), Guest: guest.Addr().As4(),
		HostName: hostName(r.def.Name), NetBoot: r.def.BootDevice == config.BootNet && i == 0,
	}
	for _, a := range p.cfg.LocalDNS {
		n.arg.Local.DNS = append(n.arg.Local.DNS, a.As4())
	}
	if !p.cfg.LocalInet6 {
		return nil
	}
	prefix := p.cfg.LocalPrefix6
	if !prefix.IsValid() {
		prefix = p.prefix6
	}
	var host6 netip.Prefix
	if host6, _, err = addr.Local6(prefix, guest.Addr()); err == nil {
		n.req.Address6 = host6.String()
	}
	return err
}

func (p *parent) fromPriv(m imsg.Msg) {
	switch t := vmop.Type(m.Type); t {
	case vmop.TapOpened, vmop.TapReady:
		var res vmop.TapResult
		if err := imsg.Unmarshal(m.Payload, &res); err != nil {
			p.protest("priv", err)
			return
		}
		if w := p.taps[m.ID]; w != nil && (t != w.answer || len(m.Files) > w.files) {
			p.protest("priv", errors.New("it answers what it was not asked"))
		} else if w != nil {
			delete(p.taps, m.ID)
			p.tapAnswered(w, t, res, m.TakeFiles())
		}
	case vmop.SwitchReady:
		var res vmop.SwitchResult
		if err := imsg.Unmarshal(m.Payload, &res); err != nil {
			p.protest("priv", err)
			return
		}
		if res.Code != vmop.OK {
			p.log.Warn().Str("switch", res.Name).Str("detail", res.Detail).Msg("switch not set up")
		}
	default:
		p.protest("priv", errUnknown)
	}
}

// tapAnswered goes on with a run when priv has answered for all its taps:
// first that they are open, then that they are up.
func (p *parent) tapAnswered(w *tapWait, t vmop.Type, res vmop.TapResult, files []*os.File) {
	r := w.run
	if r.failed || p.runs[r.id] != r {
		closeAll(files)
		return
	}
	n := &r.nics[w.index]
	n.taps = append(n.taps, files...)
	if res.Code != vmop.OK {
		p.failRun(r, res.Code, fmt.Errorf("interface %d: %s", w.index, res.Detail))
		return
	}
	if t == vmop.TapOpened {
		n.req.Name, n.arg.HostMAC, n.arg.MTU = res.Name, res.MAC, res.MTU
		n.shown.Tap, n.shown.IfIndex, n.shown.BridgeIndex = res.Name, res.IfIndex, res.BridgeIndex
		n.openVhost()
	}
	if r.taps--; r.taps > 0 {
		return
	}
	if t == vmop.TapOpened {
		p.askTaps(r, vmop.TapSetup)
		return
	}
	p.launch(r)
}

// lostPriv: what it was asked for nobody will answer.
func (p *parent) lostPriv() {
	for id, w := range p.taps {
		delete(p.taps, id)
		p.failRun(w.run, vmop.ErrUnavailable, errors.New("the process that makes taps died; try again"))
	}
}
