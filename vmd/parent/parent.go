// Package parent is the daemon itself: it knows every VM and takes every
// decision. It is root, because it opens files on others' behalf and gives
// terminals to their owners; therefore it talks to nobody but its own roles, and
// everything that reads a stranger's bytes is one of those.
//
//	user   root          root   the host's
//	holds  the configuration, the registry, the state file, ptys of running VMs
//	trusts vm.conf; not what roles pass on from others: requests of clients are
//	       decoded strictly, descriptors of clients are looked at off the loop
//
// Decisions are package registry's. This package carries them out: it turns
// messages, timers and signals into registry.Events and registry.Actions into
// messages and open files. All state belongs to one loop; what may take long
// (opening files, reading a configuration, connecting) is done beside it and
// posts its result.
package parent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"vmd/hv/sev"
	"vmd/internal/cgroup"
	"vmd/internal/counters"
	"vmd/internal/logging"
	"vmd/internal/privsep"
	"vmd/internal/vmop"
	"vmd/net/addr"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// Options are what the command line says.
type Options struct {
	Config     *config.Config // read already
	ConfigPath string         // where from, for the next reload
	Optional   bool           // it may be missing
	Macros     []string
	Verbose    bool
	Version    string
	Ready      func() // called when clients can connect

	// Alive, if not nil, is called every AliveEvery from then on, for as long
	// as the loop turns.
	Alive      func()
	AliveEvery time.Duration
}

// parent is the state of the process. Only its loop touches it.
type parent struct {
	opt   Options
	paths paths
	ids   ids
	log   zerolog.Logger
	noisy zerolog.Logger // log for what clients can cause as often as they like
	loop  *privsep.Loop
	reg   *registry.Registry
	spawn func(role string, verbose bool) (*process, error)
	host  host

	cfg     *config.Config
	prefix6 netip.Prefix // for local interfaces, if the configuration has none
	verbose bool
	roles   map[string]*role
	hadVMM  bool     // the next vmm is not the first
	applied bool     // cfg is in force
	socket  *os.File // control's listening socket
	groups  groupCache
	cgroups *cgroup.Tree // nil without

	clients map[uint64]*client
	pending map[uint64]*pending
	serial  uint64
	held    map[uint32]int // by user: descriptors that something is being done with

	runs    map[uint32]*run
	taps    map[uint64]*tapWait
	images  map[string]image // what is known of disks, by path
	raw     rawDisks
	timers  map[registry.TimerKey]*privsep.Timer
	reading []readConfig // the first is being read

	lines   map[uint32]*zerolog.BurstSampler // of each VM: how much is logged
	shown   map[uint32]bool                  // VMs that the subagent was told of
	started int64
	changed int64 // when shown last gained or lost one

	notifications *keptNotifications // nil: as in the configuration
	pacing        *privsep.Timer     // until it fires, notifications are not saved

	adopting  map[uint32]bool // VMs of an earlier daemon not heard of yet
	configure func()          // what to do when that is empty
	dirty     bool            // the state is to be saved
	saving    *privsep.Timer  // tries again what failed
	dialling  bool            // the master agent is being connected to
	ending    bool            // a signal asked for the end
	leaving   bool            // no VM is left, roles are to end
}

// host is what tests replace.
type host struct {
	openKVM func() (*os.File, error)
	openTTY func(*config.Owner) (*tty, error)
	openVM  func(pid int, name string) (*os.File, error)
	openSEV func(sev.Kind) (*os.File, error)
	peerOf  func(conn *os.File, path string) (vmop.Peer, error)
	unlock  func(pid int) error // lets a process and its children hold memory in place
	memory  uint64              // bytes

	firmware, netROMs []string // paths where they may be
}

// Run is the daemon. It returns when all guests have ended after SIGTERM, or
// when it cannot start.
func Run(o Options) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGUSR2, unix.SIGCHLD)
	signal.Ignore(unix.SIGUSR1, unix.SIGPIPE)
	defer signal.Stop(signals)
	unix.Umask(0o077)
	// VM processes whose vmm has died are ours to reap.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	p := newParent(o)
	lock, err := p.prepare()
	if err != nil {
		return err
	}
	defer lock.Close()
	defer os.Remove(p.paths.socket)
	p.spawn = spawnRole
	if err := p.startRoles(); err != nil {
		p.killRoles()
		return err
	}
	go func() {
		for s := range signals {
			p.loop.Post(func() { p.signal(s) })
		}
	}()
	p.loop.Post(p.begin)
	p.log.Info().Str("version", o.Version).Msg("startup")
	p.checkKVM()
	return p.loop.Run()
}

func newParent(o Options) *parent {
	p := &parent{
		opt: o, cfg: o.Config, verbose: o.Verbose,
		paths:    defaultPaths(),
		log:      logging.New("parent", o.Verbose),
		loop:     privsep.NewLoop(),
		roles:    map[string]*role{},
		clients:  map[uint64]*client{},
		held:     map[uint32]int{},
		pending:  map[uint64]*pending{},
		runs:     map[uint32]*run{},
		taps:     map[uint64]*tapWait{},
		images:   map[string]image{},
		timers:   map[registry.TimerKey]*privsep.Timer{},
		shown:    map[uint32]bool{},
		adopting: map[uint32]bool{},
		lines:    map[uint32]*zerolog.BurstSampler{},
		started:  counters.Monotonic(),
		prefix6:  randomPrefix(),
	}
	p.noisy = logging.Sampled(p.log)
	p.host = host{openKVM: p.openKVM, openTTY: openTTY, openVM: openVM, memory: hostMemory(),
		openSEV: sev.OpenDevice, peerOf: peerOf, unlock: mayLock, firmware: firmware, netROMs: netROMs}
	return p
}

// prepare gets hold of everything that can fail before anybody waits.
func (p *parent) prepare() (lock *os.File, err error) {
	if p.ids, err = lookupIDs(&p.paths); err != nil {
		return nil, err
	}
	if err := checkTUN(tunDevice); err != nil {
		return nil, err
	}
	if lock, err = p.paths.prepare(); err != nil {
		return nil, err
	}
	if err = p.loadState(); err == nil {
		err = p.listen()
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	if p.cgroups, err = cgroup.Open(int(p.ids.uid), os.Getenv("VMD_CGROUP")); err != nil {
		p.log.Info().Err(err).Msg("VMs run without control groups and their limits")
	}
	return lock, nil
}

// listen makes the control socket.
func (p *parent) listen() error {
	if err := removeSocket(p.paths.socket); err != nil {
		return fmt.Errorf("make the control socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: p.paths.socket, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("make the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if p.socket, err = l.File(); err != nil {
		return fmt.Errorf("make the control socket: %w", err)
	}
	return p.ownSocket()
}

// removeSocket removes the socket that an earlier daemon left at path, and
// nothing else: the path may be a mistake.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is there and is no socket: remove it", path)
	}
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ownSocket lets those connect who may.
func (p *parent) ownSocket() error {
	o := &p.cfg.SocketOwner
	if err := os.Chown(p.paths.socket, int(o.UID), int(o.GID)); err != nil {
		return fmt.Errorf("owner of the control socket: %w", err)
	}
	return os.Chmod(p.paths.socket, 0o660)
}

// begin finds the VMs of an earlier daemon again, then looks at the
// configuration: what runs already must not be started.
func (p *parent) begin() {
	p.configure = func() {
		p.configure = nil
		p.apply(p.cfg, readConfig{})
		if p.opt.Ready != nil {
			p.opt.Ready()
		}
		p.alive()
	}
	p.recover()
	p.adoptionSettled()
}

// alive shows that the loop turns.
func (p *parent) alive() {
	if p.opt.Alive != nil {
		p.opt.Alive()
		p.loop.After(p.opt.AliveEvery, p.alive)
	}
}

// signal is what the operator or the service manager says.
func (p *parent) signal(s os.Signal) {
	switch s {
	case syscall.SIGHUP:
		p.log.Info().Msg("reload by signal")
		p.readConfig(readConfig{})
	case syscall.SIGTERM, syscall.SIGINT:
		again := p.ending
		p.ending = true
		p.step(registry.Shutdown{Force: again})
	case syscall.SIGUSR2:
		p.log.Info().Msg("leaving guests to the next vmd")
		p.dirty = true
		p.saveState()
		p.endRoles()
	case syscall.SIGCHLD:
		p.reap()
	}
}

// step has the registry decide about ev and does what it says.
func (p *parent) step(ev registry.Event) {
	if e, ok := ev.(registry.VMEvent); ok {
		e.Detail = vmop.Text(e.Detail)
		ev = e
	}
	for _, a := range p.reg.Step(time.Duration(counters.Monotonic()), ev) {
		p.do(a)
	}
}

// later is step for what comes to light while actions are being carried out.
func (p *parent) later(ev registry.Event) { p.loop.Post(func() { p.step(ev) }) }

func (p *parent) openKVM() (*os.File, error) { return os.OpenFile(p.paths.kvm, os.O_RDWR, 0) }

// randomPrefix draws the prefix of local IPv6 addresses (RFC 4193, 3.2).
func randomPrefix() netip.Prefix {
	var b [7]byte
	rand.Read(b[:])
	return addr.Unique6(b)
}
