package vmop

// StatsRequest asks for the counters of the VMs that have a process: of all, or
// of the one that VM names.
type StatsRequest struct {
	VM Ref `cbor:"1,keyasint"`
}

// StatsList is a part of the answer to Stats, of MaxRecords VMs at most.
type StatsList struct {
	VMs []Stats `cbor:"1,keyasint"`
}

// Stats are the counters of one VM since Started. They only grow; a rate is the
// difference of two over that of their Times. Times are nanoseconds of
// CLOCK_MONOTONIC.
type Stats struct {
	ID       uint32      `cbor:"1,keyasint"`
	Name     string      `cbor:"2,keyasint"`
	State    State       `cbor:"3,keyasint"`
	Started  int64       `cbor:"4,keyasint,omitempty"` // another one: counters began anew
	Time     int64       `cbor:"5,keyasint"`           // when they were read
	CPU      uint64      `cbor:"6,keyasint,omitempty"` // ns, of the whole process
	VCPU     []uint64    `cbor:"7,keyasint,omitempty"` // ns
	Memory   uint64      `cbor:"8,keyasint,omitempty"` // bytes of guest memory in use
	Resident uint64      `cbor:"9,keyasint,omitempty"` // bytes, of the whole process
	Exits    []uint64    `cbor:"10,keyasint,omitempty"`
	Disks    []DiskStats `cbor:"11,keyasint,omitempty"`
	NICs     []NICStats  `cbor:"12,keyasint,omitempty"`
	CPUs     int         `cbor:"13,keyasint"`
}

// What Stats.Exits counts, in its order.
const (
	ExitPIO = iota
	ExitMMIO
	ExitInterrupted
	ExitOther
)

// DiskStats are the counters of one disk, in the order of VM.Disks. A
// CD-ROM, which is the last of them, has none.
type DiskStats struct {
	ReadOps    uint64 `cbor:"1,keyasint,omitempty"`
	WriteOps   uint64 `cbor:"2,keyasint,omitempty"`
	ReadBytes  uint64 `cbor:"3,keyasint,omitempty"`
	WriteBytes uint64 `cbor:"4,keyasint,omitempty"`
	ReadNanos  uint64 `cbor:"5,keyasint,omitempty"`
	WriteNanos uint64 `cbor:"6,keyasint,omitempty"`
	FlushOps   uint64 `cbor:"7,keyasint,omitempty"`
	Errors     uint64 `cbor:"8,keyasint,omitempty"`
}

// NICStats are the counters of one interface as the guest sees it, in the order
// of VM.NICs.
type NICStats struct {
	RxPackets uint64 `cbor:"1,keyasint,omitempty"`
	RxBytes   uint64 `cbor:"2,keyasint,omitempty"`
	RxDrops   uint64 `cbor:"3,keyasint,omitempty"`
	TxPackets uint64 `cbor:"4,keyasint,omitempty"`
	TxBytes   uint64 `cbor:"5,keyasint,omitempty"`
	TxDrops   uint64 `cbor:"6,keyasint,omitempty"`
}
