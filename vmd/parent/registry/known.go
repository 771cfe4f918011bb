package registry

import (
	"fmt"
	"io"
	"sort"
	"time"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// State is what outlives the daemon, in a form that can be written down.
type State struct {
	NextID uint32
	Known  []Known
	Runs   []Run
}

// Known is what belongs to a name for ever: a monitoring system may use the id
// as a key. User is who defined it; VMs of the configuration have 0. The same
// name defined by another user is another VM.
type Known struct {
	Name string
	User uint32
	ID   uint32
	UUID [16]byte
	MACs [][6]byte   // of interfaces without an address of their own
	Past vmop.Totals // counters of runs that ended
	Away bool        // its guest was sent to another host, and has not come back
}

// Run is a VM that has a process: what a new daemon needs to go on with it.
type Run struct {
	ID         uint32
	Persistent bool
	PID        int
	TTY        string
	NICs       []RunNIC
	Started    time.Duration // CLOCK_MONOTONIC
	Stopping   bool
	Sent       bool      // its guest runs on another host
	Base       config.VM // its definition when it was started
	Def        config.VM // the same, with what was asked for this boot
	Files      []string  // what a client gave as a descriptor

	Encryption *vmop.Encryption // of a guest that wanted it; never changed
}

// RunNIC is what a VM's interface has on the host.
type RunNIC struct {
	Tap         string
	IfIndex     int
	BridgeIndex int
	Address     string // the guest's, on a local interface
	Host        string // the host's on it
}

type knownKey struct {
	name string
	user uint32
}

// State returns what is to be written down. It shares nothing with r.
func (r *Registry) State() State {
	s := State{NextID: r.nextID}
	for _, k := range r.known {
		c := *k
		c.MACs = append([][6]byte(nil), k.MACs...)
		s.Known = append(s.Known, c)
	}
	sort.Slice(s.Known, func(i, j int) bool { return s.Known[i].ID < s.Known[j].ID })
	for _, v := range r.order {
		if v.run != nil {
			c := v.run.Run
			c.Stopping = v.run.stopping
			s.Runs = append(s.Runs, c)
		}
	}
	return s
}

// restore takes over a saved state. What contradicts itself is dropped: the
// file may have been written by hand.
func (r *Registry) restore(s State) {
	ids := map[uint32]*Known{}
	for i := range s.Known {
		k := s.Known[i]
		key := knownKey{k.Name, k.User}
		if k.ID == 0 || k.Name == "" || ids[k.ID] != nil || r.known[key] != nil {
			continue
		}
		r.known[key], ids[k.ID] = &k, &k
		r.Reserve(k.ID)
	}
	if s.NextID > r.nextID {
		r.nextID = s.NextID
	}
	for _, saved := range s.Runs {
		k := ids[saved.ID]
		if k == nil || r.vms[saved.ID] != nil || r.names[saved.Def.Name] != nil || saved.Def.Name != k.Name {
			continue
		}
		v := &vm{
			known: k, def: saved.Base, persistent: saved.Persistent,
			state: vmop.Running, admin: vmop.AdminRunning,
			run: &run{Run: saved, begun: saved.Started, stopping: saved.Stopping, adopting: true},
		}
		if saved.Sent {
			v.state = vmop.Migrating
		} else if saved.PID == 0 {
			v.state = vmop.Starting
		} else if saved.Stopping {
			v.state, v.admin = vmop.Stopping, vmop.AdminShutdown
		}
		r.add(v)
	}
}

// know returns what belongs to name, defined by user, and makes it up the first
// time.
func (r *Registry) know(name string, user uint32) *Known {
	key := knownKey{name, user}
	if k := r.known[key]; k != nil {
		return k
	}
	k := &Known{Name: name, User: user, ID: r.nextID, UUID: r.newUUID()}
	r.nextID++
	r.known[key] = k
	r.save = true
	return k
}

// maxUnused is how many names are remembered of VMs that users defined and that
// are gone. Without it a user could make the state grow without end.
const maxUnused = 1024

// prune forgets the oldest of the names that users made up and that nothing
// bears any more. Their numbers are not given out again.
func (r *Registry) prune() {
	var unused []*Known
	for _, k := range r.known {
		if k.User != 0 && r.vms[k.ID] == nil {
			unused = append(unused, k)
		}
	}
	if len(unused) <= maxUnused {
		return
	}
	sort.Slice(unused, func(i, j int) bool { return unused[i].ID < unused[j].ID })
	for _, k := range unused[:len(unused)-maxUnused] {
		delete(r.known, knownKey{k.Name, k.User})
	}
}

// addresses makes up the MAC addresses that def leaves to the daemon.
func (r *Registry) addresses(k *Known, def *config.VM) {
	for len(k.MACs) < len(def.NICs) {
		k.MACs = append(k.MACs, r.newMAC(len(k.MACs)))
		r.save = true
	}
}

// newMAC returns an address of the form fe:e1:bb:dX:RR:RR, where X is the
// number of the interface from 1, that no known VM has. The prefix is that of
// OpenBSD's vmd.
func (r *Registry) newMAC(index int) [6]byte {
	m := [6]byte{0xfe, 0xe1, 0xbb, 0xd0 | byte(index+1)&15}
	for try := 0; try < 256; try++ {
		r.random(m[4:])
		if !r.taken(m) {
			break
		}
	}
	return m
}

func (r *Registry) taken(m [6]byte) bool {
	for _, k := range r.known {
		for _, o := range k.MACs {
			if o == m {
				return true
			}
		}
	}
	return false
}

// newUUID returns a random uuid (RFC 9562, 5.4).
func (r *Registry) newUUID() (u [16]byte) {
	r.random(u[:])
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

func (r *Registry) random(b []byte) {
	if _, err := io.ReadFull(r.rand, b); err != nil {
		panic(fmt.Sprintf("registry: the source of randomness failed: %v", err))
	}
}

// uuid is the one that def sets, else the one made up for its name.
func (k *Known) uuid(def *config.VM) [16]byte {
	if def.UUID != ([16]byte{}) {
		return def.UUID
	}
	return k.UUID
}

// mac is the address of interface i of def.
func (k *Known) mac(def *config.VM, i int) [6]byte {
	if m := def.NICs[i].MAC; m != ([6]byte{}) || i >= len(k.MACs) {
		return m
	}
	return k.MACs[i]
}

// settle returns def with every address that was made up for it.
func (k *Known) settle(def *config.VM) config.VM {
	d := clone(def)
	for i := range d.NICs {
		d.NICs[i].MAC = k.mac(def, i)
	}
	return d
}
