package parent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/cgroup"
	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// adoptTime is how long the daemon waits, when it starts, for the VMs of the
// daemon before to say hello.
const adoptTime = 5 * time.Second

// recover looks for the VMs that ran when the daemon before ended: those the
// state knows, and any other that left a socket.
func (p *parent) recover() {
	p.step(registry.Recover{})
	entries, err := os.ReadDir(filepath.Join(p.paths.run, "vm"))
	if err != nil {
		p.log.Error().Err(err).Msg("cannot look for VMs of an earlier daemon")
	}
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 10, 32)
		if err == nil && id != 0 && !p.adopting[uint32(id)] {
			p.adoptVM(uint32(id), 0)
		}
	}
	p.loop.After(adoptTime, func() {
		clear(p.adopting)
		p.adoptionSettled()
	})
}

// adoptVM gives vmm a connection to the process of VM id. pid is 0 when nobody
// wrote it down.
func (p *parent) adoptVM(id uint32, pid int) {
	r := p.runs[id]
	if r != nil && !r.launched {
		return // its start is not lost: vmm has not heard of it yet
	}
	p.adopting[id] = true
	path := p.paths.vmSocket(id)
	v, _ := p.reg.VM(id)
	if pid == 0 {
		pid = findVM(path, p.ids.ours)
	}
	f, err := dialVM(path)
	var proc *os.File
	if err == nil {
		if proc, err = p.host.openVM(pid, v.Name); err != nil {
			p.log.Error().Err(err).Uint32("id", id).Msg("somebody answers for a VM whose process is gone")
			f.Close()
		}
	}
	if err == nil {
		err = p.send("vmm", vmop.VMAdopt, 0, vmop.VMAdoptRequest{ID: id, PID: pid}, f, proc)
	}
	if errors.Is(err, errNoProcess) {
		p.adoptLater(id, pid)
		return
	}
	if err == nil {
		return
	}
	os.Remove(path)
	p.removeGroup(id, groupTries)
	p.later(registry.VMEvent{Event: vmop.Event{
		ID: id, Kind: vmop.EventCrashed, Code: vmop.ErrUnavailable, Detail: "its process is gone", PID: pid, Time: counters.Monotonic(),
	}})
	p.loop.Post(func() { p.settled(id) })
}

// groupTries is how often to try to remove a control group, deathPause apart.
const groupTries = 60

// removeGroup removes the control group of a VM whose process is gone, and that
// no run here has: a daemon before us made it. A process that is about to end has
// closed its socket, and is in its group still.
func (p *parent) removeGroup(id uint32, tries int) {
	if p.cgroups == nil || p.runs[id] != nil {
		return
	}
	err := p.cgroups.Remove(strconv.FormatUint(uint64(id), 10))
	if errors.Is(err, unix.EBUSY) && tries > 0 {
		p.loop.After(deathPause, func() { p.removeGroup(id, tries-1) })
	}
}

// adoptLater: vmm has ended, and nothing has happened to VM id. The next vmm is
// given those whose run is known (registry.VMMGone), and here the others.
func (p *parent) adoptLater(id uint32, pid int) {
	if v, ok := p.reg.VM(id); !ok || v.State == vmop.Stopped || v.State == vmop.Crashed {
		p.loop.After(deathPause, func() { p.adoptVM(id, pid) })
	}
}

// dialVM connects to the socket of a VM process. It does not wait: whoever
// listens has a backlog.
func dialVM(path string) (*os.File, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.File()
}

// openVM returns a pidfd of process pid if that is the one of the VM called
// name, or of any VM if there is no name. The number alone does not say: the VM
// may have ended and its number be another's by now, while somebody to whom it
// passed its socket still answers. vmm may kill whatever it is given.
func openVM(pid int, name string) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "process")
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	title, _, _ := strings.Cut(string(b), "\x00")
	want := privsep.Title("vm/" + name)
	if err == nil && title != want && !(name == "" && strings.HasPrefix(title, want)) {
		err = fmt.Errorf("process %d is not a VM's but %q", pid, vmop.Text(title))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// hello: a VM of an earlier vmm is looked after again.
func (p *parent) hello(h vmop.Hello, m *imsg.Msg) {
	id := h.Definition.ID
	r := p.runs[id]
	if r == nil {
		r = &run{id: id, uuid: h.Definition.UUID, def: definition(&h.Definition), launched: true}
		p.runs[id] = r
	}
	r.pid = h.PID
	take := func(name string) *os.File { return m.TakeFile(slices.Index(h.Files, name)) }
	if r.page == nil {
		if err := r.takePage(take("counters")); err != nil {
			p.log.Error().Err(err).Str("vm", r.def.Name).Msg("no counters")
		}
	}
	if r.tty == nil {
		r.tty = adoptTTY(take("tty"), take("ttyslave"))
	}
	if r.group == nil && p.cgroups != nil {
		r.group, _ = p.cgroups.Group(strconv.FormatUint(uint64(id), 10), int(p.ids.uid), cgroup.Limits{}) // as it is
	}
	p.step(registry.Adopted{ID: id, PID: h.PID, State: h.State, Started: time.Duration(h.Started), Def: r.def})
	p.settled(id)
}

// definition is what a VM process says it was started with. Paths are not among
// it: they were opened before it was there.
func definition(s *vmop.VMStartRequest) config.VM {
	d := config.VM{
		Name: s.Name, UUID: s.UUID, MemoryBytes: s.MemoryBytes, CPUs: s.CPUs, Cmdline: s.Cmdline, Boot: "/",
	}
	d.BootDevice, _ = config.ParseBootDevice(s.BootDevice)
	for i := range s.Disks {
		d.Disks = append(d.Disks, config.Disk{Path: fmt.Sprintf("/disk%d", i), Format: config.FormatRaw})
	}
	for _, n := range s.NICs {
		d.NICs = append(d.NICs, config.NIC{MAC: n.MAC, Locked: n.Locked, Down: n.Down, Local: n.Local != nil})
	}
	return d
}

// settled: VM id of an earlier daemon has been heard of.
func (p *parent) settled(id uint32) {
	delete(p.adopting, id)
	p.adoptionSettled()
}

// adoptionSettled applies the configuration once it is known what runs.
func (p *parent) adoptionSettled() {
	if len(p.adopting) == 0 && p.configure != nil {
		p.configure()
	}
}

// reap takes note of VM processes that became ours when their vmm died. Those
// that are somebody else's children are left alone, and so are our roles, which
// package privsep waits for.
func (p *parent) reap() {
	roles := map[int]bool{}
	for _, proc := range p.procs() {
		roles[proc.pid] = true
	}
	for _, pid := range zombies(os.Getpid()) {
		if !roles[pid] {
			reapOne(pid)
		}
	}
}

func reapOne(pid int) {
	if pid > 0 {
		unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}
