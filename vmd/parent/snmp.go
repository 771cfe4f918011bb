package parent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

func (p *parent) snmpConfig() vmop.SNMPConfig {
	a := &p.cfg.AgentX
	return vmop.SNMPConfig{
		Enabled: a.Enabled, Path: a.Path, Context: a.Context,
		Started: p.started, Version: p.opt.Version, Changed: p.changed,
		PerVM: a.PerVM, Bulk: a.Bulk, ReadOnly: a.ReadOnly,
		CPUs: onlineCPUs(), ObjectID: a.ObjectID, PhysBase: a.ProcessorIndex, VMInfo: a.VMInfo,
		Switches: p.notificationsSet(),
	}
}

// setupAgentX tells a new agentx of everything there is.
func (p *parent) setupAgentX() {
	p.send("agentx", vmop.SNMPSetup, 0, p.snmpConfig())
	for _, r := range p.runs {
		r.pageShown = false
	}
	for _, v := range p.reg.All() {
		p.put(v)
	}
	if p.applied { // else the VMs of the configuration are yet to come
		p.send("agentx", vmop.SNMPLoaded, 0, nil)
	}
}

// publish tells agentx what a VM is now.
func (p *parent) publish(v vmop.VM) {
	if !p.shown[v.ID] {
		p.shown[v.ID] = true
		p.changed = counters.Monotonic()
	}
	p.put(v)
}

func (p *parent) put(v vmop.VM) {
	p.decorate(&v)
	var page []*os.File
	if r := p.runs[v.ID]; r != nil && r.pageFile != nil && v.PID != 0 && !r.pageShown {
		if f, err := dup(r.pageFile); err == nil {
			page, r.pageShown = append(page, f), true
		}
	}
	p.send("agentx", vmop.SNMPPut, 0, v, page...)
}

func (p *parent) unpublish(id uint32) {
	delete(p.lines, id)
	if p.shown[id] {
		delete(p.shown, id)
		p.changed = counters.Monotonic()
	}
	p.send("agentx", vmop.SNMPDelete, 0, vmop.VMID{ID: id})
}

func (p *parent) fromAgentX(m imsg.Msg) {
	if vmop.Type(m.Type) == vmop.SNMPKeep {
		p.keepNotifications(m)
		return
	}
	if vmop.Type(m.Type) != vmop.SNMPDial {
		p.protest("agentx", errUnknown)
		return
	}
	path, id, to := p.cfg.AgentX.Path, m.ID, p.roles["agentx"].proc
	if p.dialling || to.conn.Queued() > dialRoom {
		c := p.snmpConfig()
		c.Detail = "busy with what it was asked before"
		p.send("agentx", vmop.SNMPSetup, id, c)
		return
	}
	p.dialling = true
	go func() {
		f, err := dialMaster(path)
		p.loop.Post(func() {
			p.dialling = false
			c := p.snmpConfig()
			var files []*os.File
			if err != nil {
				c.Detail = masterMissing(err)
			} else {
				files = append(files, f)
			}
			if p.roles["agentx"].proc != to {
				closeAll(files)
				return
			}
			p.send("agentx", vmop.SNMPSetup, id, c, files...)
		})
	}()
}

const dialTime = 5 * time.Second

// dialRoom is how many messages to agentx may wait, each perhaps a connection,
// for it to get another one.
const dialRoom = 256

// dialMaster connects to the master agent. We are root: what we connect to must
// have been put there by root, or where only root puts things.
func dialMaster(path string) (*os.File, error) {
	st, err := os.Lstat(path)
	if err == nil && st.Mode().Type() != fs.ModeSocket {
		err = fmt.Errorf("%s: it is not a socket", path)
	}
	if err == nil && !rootsOwn(st) {
		dir, derr := os.Stat(filepath.Dir(path))
		if derr != nil || !rootsOwn(dir) || dir.Mode().Perm()&0o022 != 0 {
			err = fmt.Errorf("%s: neither it nor its directory is root's alone", path)
		}
	}
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTime}
	c, err := d.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*net.UnixConn).File()
}

// masterMissing is why there is no connection to the master agent, and what to
// look at if there is none.
func masterMissing(err error) string {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return err.Error() + "; is snmpd running, with \"master agentx\" in snmpd.conf?"
	}
	return err.Error()
}

func rootsOwn(st fs.FileInfo) bool {
	s, ok := st.Sys().(*syscall.Stat_t)
	return ok && s.Uid == 0
}
