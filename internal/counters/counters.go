// Package counters lays out the page of counters that each VM process keeps:
// it writes, and any process that maps the page reads, without a message and
// without a wait. What a broken VM process writes there is only ever a number.
//
// The page is a sealed memfd. Its layout is that of Page: 64-bit words in host
// byte order, each written by one goroutine and read atomically.
package counters

// Limits of the layout; they cover the limits of vm.conf.
const (
	MaxVCPUs = 64
	MaxDisks = 8
	MaxNICs  = 8
)

// Version is what Page.Version holds. It changes with the layout.
const Version = 2

// Exit kinds, indexes into Page.Exits.
const (
	ExitPIO = iota
	ExitMMIO
	ExitInterrupted // by a signal or kick
	ExitOther
	ExitKinds
)

// Page is the layout. All times are nanoseconds.
type Page struct {
	Version uint64
	Updated uint64 // CLOCK_MONOTONIC of the last periodic update
	Memory  uint64 // bytes of guest memory in use
	Console uint64 // bytes of console output
	_       [4]uint64

	Exits [ExitKinds]uint64
	_     [4]uint64

	VCPU [MaxVCPUs]uint64 // CPU time of each vCPU thread
	Disk [MaxDisks]Disk
	NIC  [MaxNICs]NIC

	Guest Guest // since version 2
}

// Guest is memory as the driver of the guest's balloon sees it, in bytes. The
// first three are 0 while there is no such driver.
type Guest struct {
	Total     uint64 // memory that the guest's kernel manages
	Free      uint64 // of it, not used for anything
	Available uint64 // of it, could be had without swapping
	Balloon   uint64 // in the balloon
	Reported  uint64 // given back as free, ever
}

// Disk counts what a guest asked of one disk. A request counts when it is
// completed, a failed one with no bytes (RFC 7666, vmStorageReadIOs and on).
type Disk struct {
	ReadOps, WriteOps, FlushOps uint64
	ReadBytes, WriteBytes       uint64
	ReadNS, WriteNS             uint64 // summed, from receipt to completion
	Errors                      uint64
}

// NIC counts frames as the guest sees them.
type NIC struct {
	RxPackets, RxBytes, RxDrops uint64
	TxPackets, TxBytes, TxDrops uint64
}
