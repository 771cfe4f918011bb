package vmop

import "vmd/internal/imsg"

// Peer is who is at the other end of a client's connection, as the kernel
// said when it connected.
type Peer struct {
	UID    uint32
	GID    uint32
	Groups []uint32
}

// ClientID is control's number for a connection. It is never used twice.
type ClientID struct {
	Client uint64 `cbor:"1,keyasint"`
}

// Envelope carries a client's request to parent, or parent's answer back. Whose
// it is parent knows from the ClientHere that came before the first one. The
// packet's id is the client's own id for the request; descriptors stay with it.
type Envelope struct {
	Client uint64   `cbor:"1,keyasint"`
	Type   Type     `cbor:"2,keyasint"`
	Body   imsg.Raw `cbor:"3,keyasint,omitempty"`
}

// UserFiles says whether a user may send descriptors. With Busy parent still has
// too much to do with those that came before: they may be such that to look at
// one, or to close it, never ends.
type UserFiles struct {
	UID  uint32 `cbor:"1,keyasint"`
	Busy bool   `cbor:"2,keyasint"`
}

// ControlConfig is what control needs to know.
type ControlConfig struct {
	Verbose bool `cbor:"1,keyasint"`
}

// SNMPConfig is the agentx statement of vm.conf. Started is when the daemon
// started (CLOCK_MONOTONIC, ns): the zero of vmHvUpTime. A new agentx gets it
// first, then an SNMPPut for every VM, then SNMPLoaded.
type SNMPConfig struct {
	Enabled bool   `cbor:"1,keyasint"`
	Path    string `cbor:"2,keyasint,omitempty"`
	Context string `cbor:"3,keyasint,omitempty"`
	Started int64  `cbor:"4,keyasint"`
	Version string `cbor:"5,keyasint"`
	PerVM   bool   `cbor:"6,keyasint"` // vmPerVMNotificationsEnabled at start
	Bulk    bool   `cbor:"7,keyasint"` // vmBulkNotificationsEnabled at start

	// ReadOnly refuses SETs of the two switches.
	ReadOnly bool `cbor:"8,keyasint,omitempty"`
	// Detail says why there is no connection, in the answer to an SNMPDial.
	Detail string `cbor:"9,keyasint,omitempty"`
	// Changed is when a VM was last created or deleted, on the clock of
	// Started; 0 when none was since then.
	Changed int64 `cbor:"10,keyasint,omitempty"`
	// CPUs are the kernel's numbers of the host's CPUs; empty: from 0, as
	// many as the process may use.
	CPUs []int32 `cbor:"11,keyasint,omitempty"`

	// ObjectID is vmHvObjectID, none for 0.0. PhysBase is the first index of
	// a CPU (vmCpuPhysIndex), 0 for net-snmp's. VMInfo asks for the table of
	// VMWARE-VMINFO-MIB as well.
	ObjectID []uint32 `cbor:"12,keyasint,omitempty"`
	PhysBase int32    `cbor:"13,keyasint,omitempty"`
	VMInfo   bool     `cbor:"14,keyasint,omitempty"`

	// Switches are what a manager has made of PerVM and Bulk, if anything.
	Switches *SNMPSwitches `cbor:"15,keyasint,omitempty"`
}

// SNMPSwitches are the two notification switches as they are, and the run of the
// master agent that it counts for: Master is when it started (CLOCK_MONOTONIC,
// ns).
type SNMPSwitches struct {
	PerVM  bool  `cbor:"1,keyasint"`
	Bulk   bool  `cbor:"2,keyasint"`
	Master int64 `cbor:"3,keyasint"`
}

// VMID names a VM by its lasting number.
type VMID struct {
	ID uint32 `cbor:"1,keyasint"`
}

// TapRequest asks priv for a tap. Name is empty for the next free one. All that
// the interface shall be is here; priv opens it (TapOpen) and sets it up.
type TapRequest struct {
	VM       uint32   `cbor:"1,keyasint"`
	Index    int      `cbor:"2,keyasint"` // interface number in the VM, from 0
	Name     string   `cbor:"3,keyasint,omitempty"`
	Alias    string   `cbor:"4,keyasint,omitempty"` // vm<ID>-if<index>-<name>
	MAC      [6]byte  `cbor:"5,keyasint"`           // the guest's address
	Bridge   string   `cbor:"6,keyasint,omitempty"`
	VRF      uint32   `cbor:"7,keyasint,omitempty"` // routing table; 0: none
	Groups   []string `cbor:"8,keyasint,omitempty"`
	Down     bool     `cbor:"9,keyasint,omitempty"`
	Locked   bool     `cbor:"10,keyasint,omitempty"`
	Address4 string   `cbor:"11,keyasint,omitempty"` // host's side of a local interface, CIDR
	Address6 string   `cbor:"12,keyasint,omitempty"`
	Queues   int      `cbor:"13,keyasint,omitempty"` // more than 1: multi-queue
}

// TapResult is the tap that priv made.
type TapResult struct {
	VM          uint32  `cbor:"1,keyasint"`
	Index       int     `cbor:"2,keyasint"`
	Code        Code    `cbor:"3,keyasint"`
	Detail      string  `cbor:"4,keyasint,omitempty"`
	Name        string  `cbor:"5,keyasint,omitempty"`
	IfIndex     int     `cbor:"6,keyasint,omitempty"`
	MAC         [6]byte `cbor:"7,keyasint"` // the tap's own, host's side
	BridgeIndex int     `cbor:"8,keyasint,omitempty"`
	MTU         int     `cbor:"9,keyasint,omitempty"`
}

// SwitchRequest asks priv to set up the bridge of a switch.
type SwitchRequest struct {
	Name   string   `cbor:"1,keyasint"`
	Bridge string   `cbor:"2,keyasint"`
	Alias  string   `cbor:"3,keyasint,omitempty"`
	VRF    uint32   `cbor:"4,keyasint,omitempty"`
	Groups []string `cbor:"5,keyasint,omitempty"`
	Down   bool     `cbor:"6,keyasint,omitempty"`
}

// SwitchResult says whether the bridge is there and set up.
type SwitchResult struct {
	Name    string `cbor:"1,keyasint"`
	Code    Code   `cbor:"2,keyasint"`
	Detail  string `cbor:"3,keyasint,omitempty"`
	IfIndex int    `cbor:"4,keyasint,omitempty"`
}

// LinkRequest asks for a link by name.
type LinkRequest struct {
	Name string `cbor:"1,keyasint"`
}

// LinkResult describes a link; IfIndex is 0 when there is none.
type LinkResult struct {
	Name    string `cbor:"1,keyasint"`
	IfIndex int    `cbor:"2,keyasint,omitempty"`
}

// VMStartRequest is all that a VM process needs to build its machine.
//
// Files names the descriptors that come with it, in order: "kvm", "tty" (pty
// master), "ttyslave", "listen" (where a later vmm finds the process),
// "cgroup" (vmm only), "counters" (from vmm to the VM process), "kernel" or
// else "firmware", "netrom" (with which firmware boots from the
// network), "initrd", "cdrom", "diskN" with its bases "diskN.1"…, "tapN"
// with its further queues "tapN.1"…, and for each queue, where the kernel may
// move the frames, a /dev/vhost-net: "vhostN", "vhostN.1"….
type VMStartRequest struct {
	ID          uint32    `cbor:"1,keyasint"`
	Name        string    `cbor:"2,keyasint"`
	UUID        [16]byte  `cbor:"3,keyasint"`
	MemoryBytes uint64    `cbor:"4,keyasint"`
	CPUs        int       `cbor:"5,keyasint"`
	Cmdline     string    `cbor:"6,keyasint,omitempty"`
	BootDevice  string    `cbor:"7,keyasint,omitempty"`
	Disks       []DiskArg `cbor:"8,keyasint,omitempty"`
	NICs        []NICArg  `cbor:"9,keyasint,omitempty"`
	UID         uint32    `cbor:"10,keyasint"` // what the process runs as
	GID         uint32    `cbor:"11,keyasint"`
	Verbose     bool      `cbor:"12,keyasint,omitempty"`
	Files       []string  `cbor:"13,keyasint,omitempty"`
	Memory      uint64    `cbor:"14,keyasint,omitempty"` // reserved for the process itself

	// Receive is the guest to be taken in through the descriptor "stream",
	// instead of started. Its disks are open, but not locked.
	Receive *Guest `cbor:"15,keyasint,omitempty"`

	// SEV is for a guest with encrypted memory, and SEVES too if its registers
	// are encrypted as well: the descriptor "sev", of /dev/sev, comes along.
	SEV   bool `cbor:"16,keyasint,omitempty"`
	SEVES bool `cbor:"17,keyasint,omitempty"`

	Transitional bool `cbor:"18,keyasint,omitempty"` // virtio 0.9 beside 1.x
}

// DiskArg is a disk of a VM process.
type DiskArg struct {
	Format   string `cbor:"1,keyasint"`
	ReadOnly bool   `cbor:"2,keyasint,omitempty"`
	Files    int    `cbor:"3,keyasint"` // descriptors: the image and its bases
	Serial   string `cbor:"4,keyasint,omitempty"`
}

// NICArg is a network interface of a VM process.
type NICArg struct {
	MAC     [6]byte `cbor:"1,keyasint"`
	HostMAC [6]byte `cbor:"2,keyasint"`
	MTU     int     `cbor:"3,keyasint,omitempty"`
	Locked  bool    `cbor:"4,keyasint,omitempty"`
	Down    bool    `cbor:"5,keyasint,omitempty"`
	Local   *Local  `cbor:"6,keyasint,omitempty"`
}

// Local is what the DHCP responder of a local interface hands out.
type Local struct {
	Host     [4]byte `cbor:"1,keyasint"`
	Guest    [4]byte `cbor:"2,keyasint"`
	HostName string  `cbor:"3,keyasint,omitempty"`
	NetBoot  bool    `cbor:"4,keyasint,omitempty"`
	// DNS are the name servers to tell; none means Host.
	DNS [][4]byte `cbor:"5,keyasint,omitempty"`
}

// VMAdoptRequest gives vmm a VM process that outlived the vmm before.
type VMAdoptRequest struct {
	ID  uint32 `cbor:"1,keyasint"`
	PID int    `cbor:"2,keyasint"`
}

// VMStopRequest ends a VM: by its power button with the two time-outs, or at once.
type VMStopRequest struct {
	ID    uint32 `cbor:"1,keyasint"`
	Force bool   `cbor:"2,keyasint,omitempty"`
}

// VMConsoleRequest attaches a stream socket to a VM's console.
type VMConsoleRequest struct {
	ID       uint32 `cbor:"1,keyasint"`
	ReadOnly bool   `cbor:"2,keyasint,omitempty"`
	NoReplay bool   `cbor:"3,keyasint,omitempty"`
}

// Hello is a VM process's account of itself, to whoever connects to its socket.
// Definition is the VMStartRequest it was started with. Files names the
// descriptors that come along: "counters", "tty", "ttyslave".
type Hello struct {
	Definition VMStartRequest `cbor:"1,keyasint"`
	PID        int            `cbor:"2,keyasint"`
	Started    int64          `cbor:"3,keyasint"`
	State      State          `cbor:"4,keyasint"`
	Files      []string       `cbor:"5,keyasint,omitempty"`
}

// EventKind says what happened to a VM.
type EventKind uint8

// The events, in the order in which a VM can have them.
const (
	EventStarted    EventKind = 1 + iota // its vCPUs run; its counter page comes along
	EventFailed                          // it could not be started: Code and Detail say why
	EventPaused                          // answers VMPause
	EventUnpaused                        // answers VMUnpause
	EventStopping                        // it is shutting down: asked to, or by itself
	EventPoweroff                        // gone: the guest powered off
	EventReset                           // gone: the guest wants to be reset
	EventKilled                          // gone: stopped by force, or by a time-out
	EventCrashed                         // gone: its machine failed or its process died
	EventAdopted                         // a VM process of an earlier vmm is looked after again
	EventError                           // a request about it failed: Code and Detail say why
	EventSent                            // its guest has gone to another host; the process waits to be stopped
	EventSendFailed                      // its guest was not sent: Code and Detail say why, State what it is now
)

// Gone reports whether a VM has no process any more after k.
func (k EventKind) Gone() bool {
	return k == EventFailed || k >= EventPoweroff && k <= EventCrashed
}

// Event tells parent what became of a VM.
type Event struct {
	ID     uint32    `cbor:"1,keyasint"`
	Kind   EventKind `cbor:"2,keyasint"`
	Code   Code      `cbor:"3,keyasint,omitempty"`
	Detail string    `cbor:"4,keyasint,omitempty"`
	PID    int       `cbor:"5,keyasint,omitempty"`
	Time   int64     `cbor:"6,keyasint,omitempty"` // CLOCK_MONOTONIC, ns
	CPU    uint64    `cbor:"7,keyasint,omitempty"` // CPU time of its process, ns, once that has been reaped
	State  State     `cbor:"8,keyasint,omitempty"` // EventStarted, EventSendFailed: Running or Paused
	Pause  uint64    `cbor:"9,keyasint,omitempty"` // EventSent: ns that the guest stood still

	Encryption *Encryption `cbor:"10,keyasint,omitempty"` // EventStarted: of its memory
}
