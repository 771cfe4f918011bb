package pci

// Configuration header, type 0 (PCI Local Bus 3.0, 6.1).
const (
	regVendor     = 0x00
	regDevice     = 0x02
	regCommand    = 0x04
	regStatus     = 0x06
	regRevision   = 0x08
	regClass      = 0x09 // three bytes: interface, sub-class, base class
	regCacheLine  = 0x0c
	regLatency    = 0x0d
	regBAR0       = 0x10
	regSubVendor  = 0x2c
	regSubDevice  = 0x2e
	regCapPointer = 0x34
	regIntLine    = 0x3c
	regIntPin     = 0x3d

	headerEnd  = 0x40
	configSize = 0x100
	barCount   = 6
)

// Bits of the command register (6.2.2) that a guest may set.
const (
	cmdIO          = 1 << 0
	cmdMemory      = 1 << 1
	cmdMaster      = 1 << 2
	cmdParity      = 1 << 6
	cmdSERR        = 1 << 8
	cmdINTxDisable = 1 << 10

	cmdWritable = cmdIO | cmdMemory | cmdMaster | cmdParity | cmdSERR | cmdINTxDisable
)

// Bits of the status register (6.2.3).
const (
	statusINTx    = 1 << 3
	statusCapList = 1 << 4
)

// Low bits of a BAR (6.2.5.1).
const (
	barIO    = 1
	barMem64 = 4
)

// Capability ids (appendix H).
const (
	CapVendor = 0x09
	CapMSIX   = 0x11
)

// MSI-X message control (6.8.2.3) and vector control (6.8.2.9).
const (
	msixEnable       = 1 << 15
	msixFunctionMask = 1 << 14
	msixEntryMask    = 1

	msixEntrySize = 16
	msixPBAOffset = 0x800
	msixBARSize   = 0x1000
	// MaxVectors is how many vectors fit in front of the pending bits.
	MaxVectors = msixPBAOffset / msixEntrySize
)

// NoVector says that an event has no MSI-X vector (virtio 1.3, 4.1.5.1.2).
const NoVector = 0xffff

// Slots of bus 0. They are part of the machine version: guests name their
// interfaces after them and boot orders hold them.
const (
	SlotHostBridge = 0
	SlotISABridge  = 1
	SlotPM         = 2
	SlotCD         = 3
	SlotDisk       = 4 // and the three that follow
	SlotNIC        = 8 // and the seven that follow
	SlotRNG        = 16
	SlotBalloon    = 17
	SlotConsole    = 18
	SlotVSock      = 19
	SlotVMMCI      = 20

	slots = 32
)
