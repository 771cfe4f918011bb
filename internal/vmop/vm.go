package vmop

// State is what a VM is doing (RFC 7666, VirtualMachineOperState, has more).
type State uint8

// The states. A VM has a process in all but Stopped, Waiting and Crashed. One
// that is being received is Starting, and VM.Receiving.
const (
	Stopped  State = iota // defined, not running
	Waiting               // will be started when its turn comes
	Starting              // being started; not yet running
	Running
	Paused
	Stopping  // asked to shut down
	Crashed   // its process died, or its machine failed
	Migrating // being sent to another host, while it runs or is paused
)

var stateNames = [...]string{"stopped", "waiting", "starting", "running", "paused", "stopping", "crashed", "migrating"}

// String returns the word that vmctl shows.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// Admin is the state that an operator last asked for (RFC 7666, vmAdminState).
type Admin uint8

// The wanted states.
const (
	AdminShutdown Admin = iota
	AdminRunning
	AdminPaused
)

// VM is one VM as clients and the subagent see it. Times are nanoseconds of
// CLOCK_MONOTONIC, which all processes of a host share.
type VM struct {
	ID          uint32   `cbor:"1,keyasint"`
	Name        string   `cbor:"2,keyasint"`
	UUID        [16]byte `cbor:"3,keyasint"`
	OSType      string   `cbor:"4,keyasint,omitempty"`
	State       State    `cbor:"5,keyasint"`
	Admin       Admin    `cbor:"6,keyasint"`
	Autostart   bool     `cbor:"7,keyasint"`
	Persistent  bool     `cbor:"8,keyasint"` // defined in the configuration
	CPUs        int      `cbor:"9,keyasint"`
	MemoryBytes uint64   `cbor:"10,keyasint"`
	PID         int      `cbor:"11,keyasint,omitempty"` // 0 without a process
	Resident    uint64   `cbor:"12,keyasint,omitempty"` // bytes; only in answers to List
	TTY         string   `cbor:"13,keyasint,omitempty"`
	OwnerUID    uint32   `cbor:"14,keyasint"`
	OwnerGID    int64    `cbor:"15,keyasint"`           // -1: no owner group
	Started     int64    `cbor:"16,keyasint,omitempty"` // when this run began; 0 when stopped
	Changed     bool     `cbor:"17,keyasint,omitempty"` // its definition has changed since it started
	LastExit    string   `cbor:"18,keyasint,omitempty"` // how the last run ended, for people
	Disks       []Disk   `cbor:"19,keyasint,omitempty"`
	NICs        []NIC    `cbor:"20,keyasint,omitempty"`
	Past        Totals   `cbor:"21,keyasint"` // counters of earlier runs

	// Changes are the words of vm.conf that have another value in its
	// definition than in this run: what a start would change.
	Changes []string `cbor:"22,keyasint,omitempty"`
	Limits  Limits   `cbor:"23,keyasint"`

	Receiving bool `cbor:"24,keyasint,omitempty"` // it is Starting because another host sends it

	Encryption *Encryption `cbor:"25,keyasint,omitempty"` // of its memory, while it runs
}

// Encryption is how a guest's memory is encrypted, by its process's word.
type Encryption struct {
	ES     bool     `cbor:"1,keyasint"` // SEV-ES: its registers are, too
	Digest [32]byte `cbor:"2,keyasint"` // SHA-256 of the memory that it started with
}

// Disk is a disk or CD-ROM of a VM.
type Disk struct {
	Path     string `cbor:"1,keyasint"`
	Format   string `cbor:"2,keyasint"` // "raw", "qcow2" or "block"
	ReadOnly bool   `cbor:"3,keyasint,omitempty"`
	CDROM    bool   `cbor:"4,keyasint,omitempty"`
	Size     int64  `cbor:"5,keyasint"` // bytes that the guest sees; -1 when unknown
	Used     int64  `cbor:"6,keyasint"` // bytes taken from storage; -1 when unknown
}

// NIC is a network interface of a VM. The tap and its indexes are there while
// the VM runs.
type NIC struct {
	MAC         [6]byte `cbor:"1,keyasint"`
	Tap         string  `cbor:"2,keyasint,omitempty"`
	IfIndex     int     `cbor:"3,keyasint,omitempty"`
	Switch      string  `cbor:"4,keyasint,omitempty"`
	BridgeIndex int     `cbor:"5,keyasint,omitempty"`
	Address     string  `cbor:"6,keyasint,omitempty"` // guest's address on a local interface
	HostAddress string  `cbor:"7,keyasint,omitempty"` // host's address on it
	Local       bool    `cbor:"8,keyasint,omitempty"`
}

// Limits bound what a VM takes from its host. Zero is no limit.
type Limits struct {
	CPUPercent int    `cbor:"1,keyasint,omitempty"` // of one CPU
	MemoryHigh uint64 `cbor:"2,keyasint,omitempty"` // bytes; above it the VM is slowed down
	IORead     uint64 `cbor:"3,keyasint,omitempty"` // bytes per second
	IOWrite    uint64 `cbor:"4,keyasint,omitempty"` // bytes per second
}

// Totals are counters summed over all finished runs of a VM.
type Totals struct {
	CPU   uint64       `cbor:"1,keyasint,omitempty"` // ns
	VCPU  []uint64     `cbor:"2,keyasint,omitempty"` // ns
	Disks []DiskTotals `cbor:"3,keyasint,omitempty"`
}

// DiskTotals are the counters of one disk (RFC 7666, vmStorageEntry).
type DiskTotals struct {
	ReadOps    uint64 `cbor:"1,keyasint,omitempty"`
	WriteOps   uint64 `cbor:"2,keyasint,omitempty"`
	ReadBytes  uint64 `cbor:"3,keyasint,omitempty"`
	WriteBytes uint64 `cbor:"4,keyasint,omitempty"`
	ReadNanos  uint64 `cbor:"5,keyasint,omitempty"`
	WriteNanos uint64 `cbor:"6,keyasint,omitempty"`
}
