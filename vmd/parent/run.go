package parent

import (
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vmd/internal/cgroup"
	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// run is what one run of a VM holds of the host. A start goes through three
// steps, each of which waits for somebody else: files are opened beside the
// loop, priv makes the taps, vmm spawns the process. Whichever fails, the
// registry is told, and its EndRun gives everything back.
type run struct {
	id   uint32
	uuid [16]byte
	def  config.VM

	given  map[string]*os.File // by the client that started it
	names  []string            // of what it gave: none of that is opened by its path
	uid    uint32              // whose these are
	root   bool                // nobody but root chose what is opened
	tty    *tty
	images map[string]image // what its disks are, by path
	files  []named          // for the VM process; none any more once it has them
	guest  *vmop.Guest      // to be received, instead of a start
	netROM string           // path of the ROM that it has to boot from the network with
	made   []string         // images that were made for it: to go if it does not come
	disks  []vmop.DiskArg
	nics   []nic
	group  *cgroup.Group

	opening  bool   // an opener is at work: nothing may be given back yet
	cancel   *coded // why it is to fail when that is done
	taps     int    // that priv still owes us
	launched bool   // vmm has been told
	failed   bool   // the registry has been told
	pid      int

	page      *counters.Reader
	pageFile  *os.File
	pageShown bool // agentx has it
}

// named is a descriptor and what a VM process calls it.
type named struct {
	name string
	file *os.File
}

// startVM begins a run.
func (p *parent) startVM(a registry.StartVM) {
	next := &run{id: a.ID, uuid: a.UUID, def: a.Def, given: map[string]*os.File{}, names: a.Files, guest: a.Receive, opening: true}
	q := p.pending[a.From.Request]
	switch r := p.runs[a.ID]; {
	case a.Receive != nil && q != nil:
		next.uid, next.root = q.uid, q.uid == 0
		next.files = append(next.files, named{"stream", q.files["stream"]})
		q.files = nil
	case a.Again && r != nil:
		next.tty, next.uid, next.root = r.tty, r.uid, r.root
		p.keep(next, r.given, a.Files)
	case q != nil:
		next.uid, next.root = q.uid, q.uid == 0
		p.keep(next, q.files, a.Files)
		q.files = nil
	default:
		next.root = a.From == (registry.Asker{}) && len(a.Files) == 0
	}
	p.runs[a.ID] = next
	o := opener{p: p.host, run: next, ids: p.ids, socket: p.paths.vmSocket(a.ID), cgroups: p.cgroups, raw: p.raw}
	given := len(next.given) > 0
	if given {
		p.hold(next.uid)
	}
	go func() {
		err := o.open()
		p.loop.Post(func() {
			if given {
				p.letGo(next.uid)
			}
			p.opened(next, &o, err)
		})
	}()
}

// keep has r take those of files over that names lists, and closes the others.
func (p *parent) keep(r *run, files map[string]*os.File, names []string) {
	for n, f := range files {
		if slices.Contains(names, n) {
			r.given[n] = f
		} else {
			p.discard(r.uid, f)
		}
	}
}

// opened goes on with a start once its files are open.
func (p *parent) opened(r *run, o *opener, err error) {
	r.files, r.disks, r.tty, r.group = append(r.files, o.files...), o.disks, o.tty, o.group
	r.images, r.made, r.netROM = o.images, o.made, o.netROM
	for path, im := range o.known {
		p.images[path] = im
	}
	p.rememberRaw(o.known)
	for _, w := range o.warn {
		p.log.Warn().Str("vm", r.def.Name).Msg(w)
	}
	r.opening = false
	switch {
	case r.cancel != nil:
		p.failRun(r, r.cancel.code, r.cancel.err)
	case err != nil:
		p.failRun(r, codeOf(err), err)
	default:
		p.openTaps(r)
	}
}

// launch hands everything to vmm.
func (p *parent) launch(r *run) {
	uid, gid := p.ids.vm(r.id)
	req := vmop.VMStartRequest{
		ID: r.id, Name: r.def.Name, UUID: r.uuid, MemoryBytes: r.def.MemoryBytes, CPUs: r.def.CPUs,
		Cmdline: r.def.Cmdline, BootDevice: r.def.BootDevice.String(), Disks: r.disks,
		UID: uid, GID: gid, Verbose: p.verbose, Receive: r.guest,
		SEV: r.def.SEV, SEVES: r.def.SEVES, Transitional: r.def.Transitional,
	}
	for i := range r.nics {
		req.NICs = append(req.NICs, r.nics[i].arg)
		r.files = append(r.files, r.nics[i].files(i)...)
	}
	files := make([]*os.File, len(r.files))
	for i, n := range r.files {
		req.Files = append(req.Files, n.name)
		files[i] = n.file
	}
	r.files, r.launched = nil, true
	if req.SEV {
		p.letLock(r)
	}
	if err := p.send("vmm", vmop.VMStart, 0, req, files...); err != nil {
		p.failRun(r, vmop.ErrUnavailable, err)
	}
}

// letLock lets vmm, and so the VM process that it starts, hold all of a guest's
// memory in place, as SEV does. A process that may not says so itself.
func (p *parent) letLock(r *run) {
	vmm := p.roles["vmm"].proc
	if vmm == nil {
		return // nobody will start it
	}
	if err := p.host.unlock(vmm.pid); err != nil {
		p.log.Warn().Err(err).Str("vm", r.def.Name).Msg("vmm's limit on locked memory stays what it is")
	}
}

// mayLock takes the hard limit on locked memory from the process pid. What it
// has of its own stays: its children ask for what they need, and no more.
func mayLock(pid int) error {
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_MEMLOCK, nil, &l); err != nil {
		return fmt.Errorf("limit on locked memory of process %d: %w", pid, err)
	}
	l.Max = unix.RLIM_INFINITY
	if err := unix.Prlimit(pid, unix.RLIMIT_MEMLOCK, &l, nil); err != nil {
		return fmt.Errorf("limit on locked memory of process %d: %w", pid, err)
	}
	return nil
}

// failRun tells the registry that a start came to nothing. While files are
// being opened that has to wait: another start would find them locked.
func (p *parent) failRun(r *run, c vmop.Code, err error) {
	if r.opening {
		r.cancel = &coded{c, err}
		return
	}
	if r.failed {
		return
	}
	r.failed = true
	p.loop.Post(func() {
		if p.runs[r.id] == r {
			p.step(registry.VMEvent{Event: vmop.Event{
				ID: r.id, Kind: vmop.EventFailed, Code: c, Detail: err.Error(), Time: counters.Monotonic(),
			}})
		}
	})
}

// stopVM ends a VM, or a start that has not got as far as a process.
func (p *parent) stopVM(a registry.StopVM) {
	if r := p.runs[a.ID]; r != nil && !r.launched {
		p.failRun(r, vmop.ErrNotRunning, fmt.Errorf("stopped before it ran"))
		return
	}
	_ = p.send("vmm", vmop.VMStop, 0, vmop.VMStopRequest{ID: a.ID, Force: a.Force}) // else asked again of the next vmm
}

// endRun gives back what a VM held.
func (p *parent) endRun(a registry.EndRun) {
	r := p.runs[a.ID]
	if r == nil {
		return
	}
	reapOne(r.pid)
	os.Remove(p.paths.vmSocket(a.ID))
	r.unmake()
	p.discard(r.uid, r.release(a.Keep)...)
	if !a.Keep {
		delete(p.runs, a.ID)
	}
}

// release gives back what r holds: all of it, or what does not outlive a reset.
// What it returns is to be closed, and may be a client's.
func (r *run) release(keep bool) (files []*os.File) {
	for _, n := range r.files {
		files = append(files, n.file)
	}
	for i := range r.nics {
		r.nics[i].close()
	}
	if r.pageFile != nil {
		r.pageFile.Close()
		r.page.Close()
	}
	if r.group != nil {
		r.group.Remove()
	}
	r.files, r.nics, r.page, r.pageFile, r.group = nil, nil, nil, nil, nil
	if keep {
		return files
	}
	for _, f := range r.given {
		files = append(files, f)
	}
	r.given = nil
	if r.tty != nil {
		r.tty.close()
		r.tty = nil
	}
	return files
}

// started is what the registry is to know of the host's part in a run.
func (r *run) started() registry.Started {
	s := registry.Started{}
	if r.tty != nil {
		s.TTY = r.tty.name
	}
	for _, n := range r.nics {
		s.NICs = append(s.NICs, n.shown)
	}
	return s
}

// totals are the counters of a run.
func (r *run) totals(cpu uint64) vmop.Totals {
	t := vmop.Totals{CPU: cpu}
	if r.page == nil {
		return t
	}
	for i := range min(r.def.CPUs, counters.MaxVCPUs) {
		t.VCPU = append(t.VCPU, r.page.VCPU(i))
	}
	for i := range min(len(r.def.Disks), counters.MaxDisks) {
		d := r.page.Disk(i)
		t.Disks = append(t.Disks, vmop.DiskTotals{
			ReadOps: d.ReadOps, WriteOps: d.WriteOps, ReadBytes: d.ReadBytes, WriteBytes: d.WriteBytes,
			ReadNanos: d.ReadNS, WriteNanos: d.WriteNS,
		})
	}
	return t
}

// takePage keeps the counter page that came with a message.
func (r *run) takePage(f *os.File) error {
	if f == nil {
		return fmt.Errorf("VM %d came without a counter page", r.id)
	}
	page, err := counters.Open(f)
	if err != nil {
		imsg.Discard(f)
		return err
	}
	if r.pageFile != nil { // a VM process can send one of its own first
		r.pageFile.Close()
		r.page.Close()
	}
	r.page, r.pageFile, r.pageShown = page, f, false
	return nil
}

// listenFor makes the socket on which a VM process waits for a later vmm.
func listenFor(path string) (*os.File, error) {
	os.Remove(path)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}
