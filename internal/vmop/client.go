package vmop

// MaxRequest is the largest payload of a request, in bytes. It is less than a
// packet holds: control adds an envelope.
const MaxRequest = 32 << 10

// Ref names a VM in a request: by ID if that is not zero, else by Name.
type Ref struct {
	ID   uint32 `cbor:"1,keyasint,omitempty"`
	Name string `cbor:"2,keyasint,omitempty"`
}

// VMRequest is a request that says nothing but which VM.
type VMRequest struct {
	VM Ref `cbor:"1,keyasint"`
}

// ListRequest asks for the VMs: all of them, or the one that VM names.
type ListRequest struct {
	VM      Ref  `cbor:"1,keyasint"`
	Running bool `cbor:"2,keyasint,omitempty"` // only those with a process
}

// MaxRecords is the most VMs in one VMList: so many fit into a packet however
// long their paths are.
const MaxRecords = 8

// VMList is a part of the answer to List, of MaxRecords VMs at most.
type VMList struct {
	VMs []VM `cbor:"1,keyasint"`
}

// StartRequest starts a VM that is defined, or defines one and starts it. Only
// what is set overrides or defines; see Definition.
//
// Files names the descriptors that come with the message, in order: "kernel",
// "initrd", "cdrom", "disk0" … "disk3". A client opens the files itself, so the
// kernel has checked its rights; Paths in the definition are for display.
type StartRequest struct {
	VM         Ref         `cbor:"1,keyasint"`
	Template   string      `cbor:"2,keyasint,omitempty"` // make an instance of this VM
	Define     *Definition `cbor:"3,keyasint,omitempty"` // nil: start it as it is defined
	Files      []string    `cbor:"4,keyasint,omitempty"`
	BootDevice string      `cbor:"5,keyasint,omitempty"` // "disk", "cdrom", "net": for this boot
}

// Definition is what a client may define about a VM. The zero value of a field
// means that the client did not say.
type Definition struct {
	MemoryBytes uint64    `cbor:"1,keyasint,omitempty"`
	CPUs        int       `cbor:"2,keyasint,omitempty"`
	Kernel      string    `cbor:"3,keyasint,omitempty"` // path, as the client resolved it
	Initrd      string    `cbor:"4,keyasint,omitempty"`
	Cmdline     string    `cbor:"5,keyasint,omitempty"`
	CDROM       string    `cbor:"6,keyasint,omitempty"`
	Disks       []DiskDef `cbor:"7,keyasint,omitempty"`
	NICs        []NICDef  `cbor:"8,keyasint,omitempty"`
	NICCount    int       `cbor:"9,keyasint,omitempty"` // at least this many interfaces
}

// DiskDef is one disk of a Definition. Format is "raw" or "qcow2".
type DiskDef struct {
	Path   string `cbor:"1,keyasint"`
	Format string `cbor:"2,keyasint"`
}

// NICDef is one interface of a Definition.
type NICDef struct {
	Switch string `cbor:"1,keyasint,omitempty"`
	Local  bool   `cbor:"2,keyasint,omitempty"`
}

// StopRequest stops a VM: the guest is asked to, unless Force. With Wait the
// answer comes when the VM is gone, or after Timeout seconds (0: no limit) with
// ErrTimeout.
type StopRequest struct {
	VM      Ref    `cbor:"1,keyasint"`
	Force   bool   `cbor:"2,keyasint,omitempty"`
	Wait    bool   `cbor:"3,keyasint,omitempty"`
	Timeout uint32 `cbor:"4,keyasint,omitempty"`
}

// WaitRequest is answered when what For says has come about, or after Timeout
// seconds with ErrTimeout, or when the VM is not defined any more with
// ErrNotFound.
type WaitRequest struct {
	VM      Ref     `cbor:"1,keyasint"`
	Timeout uint32  `cbor:"2,keyasint,omitempty"` // seconds; 0: no limit
	For     WaitFor `cbor:"3,keyasint,omitempty"`
}

// WaitFor is what a client waits for.
type WaitFor uint8

// What there is to wait for. WaitEnd is the end of the run that is going on,
// answered with how it ended; without a run it is ErrNotRunning. The others are
// states: a VM that is in it already is answered for at once.
const (
	WaitEnd     WaitFor = iota
	WaitRunning         // its guest runs
	WaitStopped         // it has no process and is not about to get one
	WaitCrashed         // its process died, or its machine failed
)

// ConsoleRequest asks for a connection to a VM's first serial port. The Result
// carries a stream socket: what the guest sends comes out of it, beginning with
// the last 64 KiB, and what is written to it the guest receives.
type ConsoleRequest struct {
	VM       Ref  `cbor:"1,keyasint"`
	ReadOnly bool `cbor:"2,keyasint,omitempty"`
	NoReplay bool `cbor:"3,keyasint,omitempty"`
}

// LogRequest sets how much vmd logs.
type LogRequest struct {
	Verbose bool `cbor:"1,keyasint"`
}

// LoadRequest adds the definitions of a file, named by an absolute path.
type LoadRequest struct {
	Path string `cbor:"1,keyasint"`
}

// ResetRequest forgets VMs, switches, or both.
type ResetRequest struct {
	VMs      bool `cbor:"1,keyasint,omitempty"`
	Switches bool `cbor:"2,keyasint,omitempty"`
}

// Result answers a request. Detail says why, for people, on failure; ID, Name
// and TTY are those of the VM that the request was about, when there is one.
type Result struct {
	Code   Code   `cbor:"1,keyasint"`
	Detail string `cbor:"2,keyasint,omitempty"`
	ID     uint32 `cbor:"3,keyasint,omitempty"`
	Name   string `cbor:"4,keyasint,omitempty"`
	TTY    string `cbor:"5,keyasint,omitempty"`
	Pause  uint64 `cbor:"6,keyasint,omitempty"` // ns that a guest stood still while it was sent
}
