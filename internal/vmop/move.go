package vmop

// SendRequest moves a VM to another host: what it is and does is written to the
// stream socket that comes along, until whoever holds the other end has said
// that the receiver has got it all (see the words below). It is answered when
// the guest is no longer here, or runs on here.
type SendRequest struct {
	VM        Ref    `cbor:"1,keyasint"`
	MaxPause  uint32 `cbor:"2,keyasint,omitempty"` // ms that the guest may stand still; 0: vmd's choice
	WithDisks bool   `cbor:"3,keyasint,omitempty"` // what is on its disks goes along
}

// ReceiveRequest takes a guest in that another host sends: the stream comes
// through the socket that comes along. Guest is what the stream says about
// itself in its first section.
type ReceiveRequest struct {
	Name  string   `cbor:"1,keyasint"`
	Guest Guest    `cbor:"2,keyasint"`
	Disks []string `cbor:"3,keyasint,omitempty"` // absolute paths of its disks here; none: those in Guest
}

// Guest is what a VM is that travels. It is the first section of a stream.
type Guest struct {
	Name        string      `cbor:"1,keyasint"`
	UUID        [16]byte    `cbor:"2,keyasint"`
	MemoryBytes uint64      `cbor:"3,keyasint"`
	CPUs        int         `cbor:"4,keyasint"`
	OSType      string      `cbor:"5,keyasint,omitempty"`
	Kernel      string      `cbor:"6,keyasint,omitempty"` // what the next boot is from
	Initrd      string      `cbor:"7,keyasint,omitempty"`
	Cmdline     string      `cbor:"8,keyasint,omitempty"`
	CDROM       string      `cbor:"9,keyasint,omitempty"`
	Disks       []GuestDisk `cbor:"10,keyasint,omitempty"`
	NICs        []GuestNIC  `cbor:"11,keyasint,omitempty"`
	Control     bool        `cbor:"12,keyasint,omitempty"` // it has the control device of OpenBSD's guests
	Paused      bool        `cbor:"13,keyasint,omitempty"` // an operator had paused it, and it stays so
	WithDisks   bool        `cbor:"14,keyasint,omitempty"` // the contents of its disks follow

	// Transitional: its virtio devices are those of virtio 0.9, too.
	Transitional bool `cbor:"15,keyasint,omitempty"`

	// NetBoot: firmware booted it from the network, and will the next time.
	NetBoot bool `cbor:"16,keyasint,omitempty"`
}

// GuestDisk is a disk of a Guest.
type GuestDisk struct {
	Path   string `cbor:"1,keyasint"`
	Format string `cbor:"2,keyasint"` // "raw" or "qcow2"
	Size   int64  `cbor:"3,keyasint"` // bytes that the guest sees
	Serial string `cbor:"4,keyasint,omitempty"`
}

// GuestNIC is an interface of a Guest.
type GuestNIC struct {
	MAC    [6]byte `cbor:"1,keyasint"`
	Switch string  `cbor:"2,keyasint,omitempty"`
	Local  bool    `cbor:"3,keyasint,omitempty"`
	MTU    int     `cbor:"4,keyasint,omitempty"`
	Queues int     `cbor:"5,keyasint"` // pairs
}

// MaxSerial is how long the serial number of a disk can be (virtio 1.3, 5.2.6).
const MaxSerial = 20

// MaxQueues is how many pairs of queues the interfaces of a VM have together:
// each is a handful of descriptors, which go to the VM's process in one message.
const MaxQueues = 8

// Words are what comes back on the stream sockets of Send and Receive, each of
// WordLen bytes. First WordLoaded: the receiver has everything up to the end of
// the stream but its last section, Go, and could run the guest. Once it has that,
// WordRuns or, if it came to nothing, WordFailed: then the guest is the sender's
// as before.
const (
	WordLoaded = "vmdload\n"
	WordRuns   = "vmdruns\n"
	WordFailed = "vmdfail\n"
	WordLen    = 8
)

// VMSendRequest has a VM process send its guest. The stream socket comes along.
type VMSendRequest struct {
	ID       uint32 `cbor:"1,keyasint"`
	Guest    Guest  `cbor:"2,keyasint"` // as far as parent knows it
	MaxPause uint32 `cbor:"3,keyasint,omitempty"`
}
