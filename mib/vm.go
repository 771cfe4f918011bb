package mib

import "time"

// AdminState is what the operator wants of a machine (vmAdminState).
type AdminState int32

// The states of VirtualMachineAdminState.
const (
	AdminRunning   AdminState = 1
	AdminSuspended AdminState = 2
	AdminPaused    AdminState = 3
	AdminShutdown  AdminState = 4
)

// OperState is what a machine does (vmOperState).
type OperState int32

// The states of VirtualMachineOperState.
const (
	OperUnknown      OperState = 1
	OperOther        OperState = 2
	OperPreparing    OperState = 3
	OperRunning      OperState = 4
	OperSuspending   OperState = 5
	OperSuspended    OperState = 6
	OperResuming     OperState = 7
	OperPaused       OperState = 8
	OperMigrating    OperState = 9
	OperShuttingDown OperState = 10
	OperShutdown     OperState = 11
	OperCrashed      OperState = 12
)

// AutoStart says whether a machine starts with the hypervisor (vmAutoStart).
type AutoStart int32

// The values of VirtualMachineAutoStart.
const (
	AutoStartUnknown  AutoStart = 1
	AutoStartEnabled  AutoStart = 2
	AutoStartDisabled AutoStart = 3
)

// Persistent says whether a definition outlives a shutdown (vmPersistent).
type Persistent int32

// The values of VirtualMachinePersistent.
const (
	PersistentUnknown Persistent = 1
	PersistentYes     Persistent = 2
	PersistentNo      Persistent = 3 // transient
)

// Source is the kind of thing behind a disk (vmStorageSourceType).
type Source int32

// The values of VirtualMachineStorageSourceType.
const (
	SourceUnknown Source = 1
	SourceOther   Source = 2
	SourceBlock   Source = 3
	SourceRaw     Source = 4
	SourceSparse  Source = 5
	SourceNetwork Source = 6
)

// Access is what a guest may do to a disk (vmStorageAccess).
type Access int32

// The values of VirtualMachineStorageAccess.
const (
	AccessUnknown   Access = 1
	AccessReadWrite Access = 2
	AccessReadOnly  Access = 3
)

// Media is what a disk looks like to its guest (vmStorageMediaType).
type Media int32

// The values of IANAStorageMediaType. Unlike in every other type of this MIB,
// other comes before unknown (RFC 7666, erratum 4710).
const (
	MediaOther   Media = 1
	MediaUnknown Media = 2
	MediaHard    Media = 3
	MediaOptical Media = 4
	MediaFloppy  Media = 5
)

// VM is the record of one machine. A Store copies what it needs of it.
type VM struct {
	Index      int32 // vmIndex, from 1; lasts as long as the hypervisor runs
	Name       string
	UUID       [16]byte // all zero: not known
	OSType     string
	Admin      AdminState
	Oper       OperState
	AutoStart  AutoStart
	Persistent Persistent
	CPUs       int32
	Memory     uint64 // bytes the machine is defined with
	Balloon    uint64 // bytes of them that the guest has given back

	// Started is when Admin last went from shutdown to running, on the
	// clock of the Store. 0: that has not come to anything yet, or not to
	// anything that lasted; then vmUpTime is 0.
	Started time.Duration

	// Affinity holds a mask of kernel CPU numbers for each vCPU. A missing
	// or nil mask is shown as unknown(0).
	Affinity []CPUMask

	Disks []Disk
	NICs  []NIC

	// Base is what earlier runs of the machine have used; Counters is the
	// current run, nil when there is none. What is shown is their sum.
	Base     Totals
	Counters Counters
}

// CPUMask has bit n%64 of word n/64 set when kernel CPU n may be used.
type CPUMask []uint64

func (m CPUMask) has(cpu int32) bool {
	w := int(cpu) / 64
	return cpu >= 0 && w < len(m) && m[w]>>(uint(cpu)%64)&1 != 0
}

// Disk is one row of vmStorageTable. Sizes are in bytes, -1 when not known.
type Disk struct {
	Source     Source
	SourceName string // "raw", "qcow2", …
	Path       string
	Access     Access
	Media      Media
	MediaName  string // "virtio-blk", …
	Defined    int64
	Allocated  int64 // not used for SourceBlock and SourceRaw: there it is Defined
}

// NIC is one row of vmNetworkTable.
type NIC struct {
	IfIndex int32 // of the tap; 0 when there is none
	Parent  int32 // ifIndex of its bridge; 0 when there is none
	Model   string
	MAC     []byte // empty when it is only chosen at start
}

// Counters reads what a running machine has used in this run. Methods are
// called by whoever reads a View, from several goroutines at once, and must not
// block: a guest that hangs must not stall a walk. Times are nanoseconds.
type Counters interface {
	CPUTime() uint64       // of everything that works for the machine
	VCPUTime(i int) uint64 // of one vCPU, from 0
	Disk(i int) DiskCounters
}

// DiskCounters counts the requests of one disk. Wait times are summed
// nanoseconds.
type DiskCounters struct {
	ReadOps, WriteOps     uint64
	ReadBytes, WriteBytes uint64
	ReadWait, WriteWait   uint64
}

func (a DiskCounters) plus(b DiskCounters) DiskCounters {
	return DiskCounters{
		a.ReadOps + b.ReadOps, a.WriteOps + b.WriteOps,
		a.ReadBytes + b.ReadBytes, a.WriteBytes + b.WriteBytes,
		a.ReadWait + b.ReadWait, a.WriteWait + b.WriteWait,
	}
}

// missing returns what has to be added to b so that no counter is below a.
func (a DiskCounters) missing(b DiskCounters) DiskCounters {
	return DiskCounters{
		missing(a.ReadOps, b.ReadOps), missing(a.WriteOps, b.WriteOps),
		missing(a.ReadBytes, b.ReadBytes), missing(a.WriteBytes, b.WriteBytes),
		missing(a.ReadWait, b.ReadWait), missing(a.WriteWait, b.WriteWait),
	}
}

func missing(was, is uint64) uint64 {
	if is < was {
		return was - is
	}
	return 0
}

// Totals is what Counters count, as numbers. Slices may be shorter than the
// machine has vCPUs or disks; what is missing is zero.
type Totals struct {
	CPUTime uint64
	VCPUs   []uint64
	Disks   []DiskCounters
}
