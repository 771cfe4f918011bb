package mib

import (
	"slices"
	"sync"
	"time"
)

// DefaultPhysBase is where net-snmp's HOST-RESOURCES-MIB on Linux begins to
// number processors: hrDeviceIndex of kernel CPU n is 196608 + n.
const DefaultPhysBase = 3 << 16

// Host describes the hypervisor.
type Host struct {
	Software string
	Version  string
	ObjectID []uint32      // vmHvObjectID; empty stands for 0.0
	Start    time.Duration // when the hypervisor started, on the Store's clock

	// LastChange is vmTableLastChange from before this Store, if there was
	// a hypervisor before it.
	LastChange time.Duration

	// PhysCPUs are the kernel's CPU numbers. With none vmCpuAffinityTable
	// is empty. PhysBase plus such a number is vmCpuPhysIndex, which has
	// to be the master agent's hrDeviceIndex of that CPU.
	PhysCPUs []int32
	PhysBase int32

	// VMInfo adds vmwVmTable of VMWARE-VMINFO-MIB to what is served, for
	// managers that know no other table of virtual machines.
	VMInfo bool
}

// Switches are vmPerVMNotificationsEnabled and vmBulkNotificationsEnabled.
type Switches struct{ PerVM, Bulk bool }

// Config is what a Store starts with.
type Config struct {
	Host     Host
	Switches Switches
	ReadOnly bool // SET is answered notWritable (vmReadOnlyCompliances)

	// Clock is a monotonic clock; its zero is before anything that is told
	// in its time. Required.
	Clock func() time.Duration
}

// Store keeps the records of all machines. Its methods may be called from any
// goroutine.
type Store struct {
	clock    func() time.Duration
	readOnly bool

	mu         sync.Mutex
	configured Switches
	next       Snapshot // what the next Snapshot will be
	shared     bool     // a Snapshot was taken of next.tables: copy before writing
	taken      *Snapshot
}

// NewStore returns a Store without machines.
func NewStore(c Config) *Store {
	s := &Store{clock: c.Clock, readOnly: c.ReadOnly, configured: c.Switches}
	s.next.host = cleanHost(c.Host)
	s.next.lastChange = c.Host.LastChange
	s.next.switches = c.Switches
	return s
}

func cleanHost(h Host) Host {
	h.Software = adminString(h.Software)
	h.Version = adminString(h.Version)
	h.ObjectID = slices.Clone(h.ObjectID)
	if len(h.ObjectID) < 2 || len(h.ObjectID) > 128 {
		h.ObjectID = []uint32{0, 0}
	}
	if h.PhysBase < 0 {
		h.PhysBase = 0
	}
	cpus := slices.DeleteFunc(slices.Clone(h.PhysCPUs), func(n int32) bool {
		index := int64(h.PhysBase) + int64(n)
		return n < 0 || index < 1 || index > 1<<31-1
	})
	slices.Sort(cpus)
	h.PhysCPUs = slices.Compact(cpus)
	return h
}

// tables are the machines in order of vmIndex: all, and those that have rows in
// a table of their own. With the latter no search has to step over machines
// without any disk.
type tables struct{ vms, cpus, disks, nics []*row }

// Snapshot is the state of a Store at one moment. It never changes, but for the
// counters behind it.
type Snapshot struct {
	host       Host
	switches   Switches
	lastChange time.Duration // vmTableLastChange
	tables     tables
}

// Len returns the number of machines.
func (s *Snapshot) Len() int { return len(s.tables.vms) }

// Snapshot returns the current state. As long as nothing is put it is the same
// one; after that, taking it is what costs a copy of the index, however many
// records were put.
func (s *Store) Snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		t := s.next
		s.taken, s.shared = &t, true
	}
	return s.taken
}

// View returns the current state at the present time.
func (s *Store) View() View { return s.Snapshot().View(s.clock()) }

// Put adds or replaces the machine with vm's index. Counters of a machine that
// is replaced (same index, same UUID) do not go down. It returns the record that
// was there before, nil if none: see Compare.
func (s *Store) Put(vm *VM) (old *VM, err error) {
	r, err := newRow(vm)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edit()
	was := s.next.tables.put(r)
	if was == nil {
		s.changed()
		return nil, nil
	}
	if was.uuid == r.uuid {
		r.keepUp(was)
	}
	return was.record(), nil
}

// Delete removes a machine and returns its last record, nil if there was none.
func (s *Store) Delete(index int32) (old *VM) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.row(index) == nil {
		return nil
	}
	s.edit()
	was := s.next.tables.remove(index)
	s.changed()
	return was.record()
}

// Load replaces all machines by vms without a mark in vmTableLastChange: they
// were there when the hypervisor started. Records that are in error are left
// out; the first such error is returned.
func (s *Store) Load(vms []VM) error {
	var first error
	rows := make([]*row, 0, len(vms))
	for i := range vms {
		r, err := newRow(&vms[i])
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		rows = append(rows, r)
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return int(a.vm.Index) - int(b.vm.Index) })
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.next
	s.next.tables = tables{}
	s.taken, s.shared = nil, false
	for _, r := range rows {
		if was := old.row(r.vm.Index); was != nil && was.uuid == r.uuid {
			r.keepUp(was)
		}
		s.next.tables.put(r)
	}
	return first
}

// SetHost replaces the description of the hypervisor; its LastChange counts
// only at NewStore.
func (s *Store) SetHost(h Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next.host = cleanHost(h)
	s.taken = nil
}

// Switches returns the two notification switches.
func (s *Store) Switches() Switches {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next.switches
}

// Configure sets the switches and what ResetSwitches returns to.
func (s *Store) Configure(w Switches, readOnly bool) {
	s.mu.Lock()
	s.configured, s.readOnly = w, readOnly
	s.mu.Unlock()
	s.SetSwitches(w)
}

// ResetSwitches undoes what managers have set. RFC 7666 wants that when the
// management system is re-initialized, as when the master agent restarts.
func (s *Store) ResetSwitches() {
	s.mu.Lock()
	w := s.configured
	s.mu.Unlock()
	s.SetSwitches(w)
}

// SetSwitches sets the switches as a manager does: until ResetSwitches.
func (s *Store) SetSwitches(w Switches) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next.switches = w
	s.taken = nil
}

func (s *Store) changed() { s.next.lastChange = max(0, s.clock()-s.next.host.Start) }

// edit makes next.tables ours alone. Called with mu held.
func (s *Store) edit() {
	if s.shared {
		t := &s.next.tables
		t.vms, t.cpus = slices.Clone(t.vms), slices.Clone(t.cpus)
		t.disks, t.nics = slices.Clone(t.disks), slices.Clone(t.nics)
	}
	s.taken, s.shared = nil, false
}

func (s *Snapshot) row(index int32) *row {
	if i, ok := search(s.tables.vms, uint64(uint32(index))); ok {
		return s.tables.vms[i]
	}
	return nil
}

// record is the public form of r, with what its counters show as the base.
func (r *row) record() *VM {
	vm := r.vm
	vm.NICs = slices.Clone(vm.NICs)
	for i := range vm.NICs {
		vm.NICs[i].MAC = []byte(r.macs[i])
	}
	vm.Base = r.totals()
	vm.Counters = nil
	return &vm
}

// search finds the first row whose index is at least index, and whether it is
// that very one.
func search(rows []*row, index uint64) (int, bool) {
	return slices.BinarySearchFunc(rows, index, func(r *row, want uint64) int {
		switch have := uint64(r.vm.Index); {
		case have < want:
			return -1
		case have > want:
			return 1
		}
		return 0
	})
}

func (t *tables) put(r *row) (old *row) {
	old = insert(&t.vms, r, true)
	insert(&t.cpus, r, r.vm.CPUs > 0)
	insert(&t.disks, r, len(r.disks) > 0)
	insert(&t.nics, r, len(r.macs) > 0)
	return old
}

func (t *tables) remove(index int32) (old *row) {
	gone := &row{vm: VM{Index: index}}
	old = insert(&t.vms, gone, false)
	insert(&t.cpus, gone, false)
	insert(&t.disks, gone, false)
	insert(&t.nics, gone, false)
	return old
}

// insert puts r into rows at its place, or takes the row of its index out when
// keep is false.
func insert(rows *[]*row, r *row, keep bool) (old *row) {
	i, found := search(*rows, uint64(r.vm.Index))
	if found {
		old = (*rows)[i]
	}
	switch {
	case found && keep:
		(*rows)[i] = r
	case found:
		*rows = slices.Delete(*rows, i, i+1)
	case keep:
		*rows = slices.Insert(*rows, i, r)
	}
	return old
}
