package kvm

// The structs of linux/kvm.h and asm/kvm.h for x86-64, with the kernel's padding
// written out. abi_test.go holds each size and offset against a golden file
// made from the headers.

// userspaceMemoryRegion is struct kvm_userspace_memory_region.
type userspaceMemoryRegion struct {
	Slot          uint32
	Flags         uint32
	GuestPhysAddr uint64
	MemorySize    uint64
	UserspaceAddr uint64
}

// Regs is struct kvm_regs: the general registers of a vCPU.
type Regs struct {
	RAX, RBX, RCX, RDX uint64
	RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11   uint64
	R12, R13, R14, R15 uint64
	RIP, RFLAGS        uint64
}

// Segment is struct kvm_segment.
type Segment struct {
	Base     uint64
	Limit    uint32
	Selector uint16
	Type     uint8
	Present  uint8
	DPL      uint8
	DB       uint8
	S        uint8
	L        uint8
	G        uint8
	AVL      uint8
	Unusable uint8
	_        uint8
}

// Dtable is struct kvm_dtable: GDTR or IDTR.
type Dtable struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// Sregs is struct kvm_sregs: segments and control registers of a vCPU.
type Sregs struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                Dtable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	InterruptBitmap         [4]uint64
}

// MSR is struct kvm_msr_entry: a model-specific register and its value.
type MSR struct {
	Index uint32
	_     uint32
	Data  uint64
}

// maxMSRs bounds one KVM_GET_MSRS or KVM_SET_MSRS call.
const maxMSRs = 128

// msrs is struct kvm_msrs with room for entries.
type msrs struct {
	Nmsrs   uint32
	_       uint32
	Entries [maxMSRs]MSR
}

// CPUIDEntry is struct kvm_cpuid_entry2: what CPUID answers for one leaf, or
// for one sub-leaf where Flags has KVM_CPUID_FLAG_SIGNIFCANT_INDEX.
type CPUIDEntry struct {
	Function           uint32
	Index              uint32
	Flags              uint32
	EAX, EBX, ECX, EDX uint32
	_                  [3]uint32
}

// maxCPUID is KVM_MAX_CPUID_ENTRIES (arch/x86/include/asm/kvm_host.h): more
// than that KVM_SET_CPUID2 refuses.
const maxCPUID = 256

// cpuid2 is struct kvm_cpuid2 with room for entries.
type cpuid2 struct {
	Nent    uint32
	_       uint32
	Entries [maxCPUID]CPUIDEntry
}

// irqLevel is struct kvm_irq_level.
type irqLevel struct {
	IRQ   uint32
	Level uint32
}

// routingEntry is struct kvm_irq_routing_entry. U is its union: {irqchip, pin}
// or {address low, address high, data, device id}.
type routingEntry struct {
	GSI   uint32
	Type  uint32
	Flags uint32
	_     uint32
	U     [8]uint32
}

// irqRouting is struct kvm_irq_routing with room for entries.
type irqRouting struct {
	Nr      uint32
	Flags   uint32
	Entries [maxRoutes]routingEntry
}

// irqfd is struct kvm_irqfd.
type irqfd struct {
	FD         uint32
	GSI        uint32
	Flags      uint32
	ResampleFD uint32
	_          [16]uint8
}

// ioeventfd is struct kvm_ioeventfd.
type ioeventfd struct {
	Datamatch uint64
	Addr      uint64
	Len       uint32
	FD        int32
	Flags     uint32
	_         [36]uint8
}

// pitConfig is struct kvm_pit_config.
type pitConfig struct {
	Flags uint32
	_     [15]uint32
}

// enableCap is struct kvm_enable_cap.
type enableCap struct {
	Cap   uint32
	Flags uint32
	Args  [4]uint64
	_     [64]uint8
}

// mpState is struct kvm_mp_state.
type mpState struct {
	MPState uint32
}

// LAPIC is struct kvm_lapic_state: the register page of a local APIC.
type LAPIC struct {
	Regs [1024]byte
}

// translation is struct kvm_translation.
type translation struct {
	LinearAddress   uint64
	PhysicalAddress uint64
	Valid           uint8
	Writeable       uint8
	Usermode        uint8
	_               [5]uint8
}

// Events is struct kvm_vcpu_events: exceptions, interrupts and NMIs on their
// way into a vCPU.
type Events struct {
	Exception struct {
		Injected     uint8
		Nr           uint8
		HasErrorCode uint8
		Pending      uint8
		ErrorCode    uint32
	}
	Interrupt struct {
		Injected uint8
		Nr       uint8
		Soft     uint8
		Shadow   uint8
	}
	NMI struct {
		Injected uint8
		Pending  uint8
		Masked   uint8
		_        uint8
	}
	SIPIVector uint32
	Flags      uint32
	SMI        struct {
		SMM          uint8
		Pending      uint8
		SMMInsideNMI uint8
		LatchedInit  uint8
	}
	TripleFault struct {
		Pending uint8
	}
	_                   [26]uint8
	ExceptionHasPayload uint8
	ExceptionPayload    uint64
}

// runPage is the head of struct kvm_run, which the kernel shares with us.
// Control holds request_interrupt_window in its lowest byte, immediate_exit in
// the next; both are ours to write, so that one atomic store does.
type runPage struct {
	Control    uint32
	_          uint32
	ExitReason uint32
	Ready      uint8
	IfFlag     uint8
	Flags      uint16
	CR8        uint64
	APICBase   uint64
	Exit       [256]byte // a union: ioExit, mmioExit, internalExit, failExit, systemExit
}

// immediateExit is run->immediate_exit within runPage.Control.
const immediateExit = 1 << 8

// ioExit is the union of kvm_run at KVM_EXIT_IO.
type ioExit struct {
	Direction  uint8 // 1: out
	Size       uint8
	Port       uint16
	Count      uint32
	DataOffset uint64
}

// mmioExit is the union of kvm_run at KVM_EXIT_MMIO.
type mmioExit struct {
	PhysAddr uint64
	Data     [8]uint8
	Len      uint32
	IsWrite  uint8
	_        [3]uint8
}

// internalExit is the union of kvm_run at KVM_EXIT_INTERNAL_ERROR.
type internalExit struct {
	Suberror uint32
	Ndata    uint32
	Data     [16]uint64
}

// failExit is the union of kvm_run at KVM_EXIT_FAIL_ENTRY.
type failExit struct {
	HardwareEntryFailureReason uint64
	CPU                        uint32
	_                          uint32
}

// systemExit is the union of kvm_run at KVM_EXIT_SYSTEM_EVENT.
type systemExit struct {
	Type  uint32
	Ndata uint32
	Data  [16]uint64
}

// coalescedZone is struct kvm_coalesced_mmio_zone.
type coalescedZone struct {
	Addr uint64
	Size uint32
	PIO  uint32
}

// coalescedEntry is struct kvm_coalesced_mmio.
type coalescedEntry struct {
	PhysAddr uint64
	Len      uint32
	PIO      uint32
	Data     [8]byte
}

// pageSize is the kernel's, and coalescedMax how many entries fit on a page.
const (
	pageSize     = 4096
	coalescedMax = (pageSize - 8) / 24
)

// coalescedRing is struct kvm_coalesced_mmio_ring: we take at First, the kernel
// adds at Last.
type coalescedRing struct {
	First, Last uint32
	Entries     [coalescedMax]coalescedEntry
}

// clockData is struct kvm_clock_data.
type clockData struct {
	Clock    uint64
	Flags    uint32
	_        uint32
	Realtime uint64
	HostTSC  uint64
	_        [4]uint32
}

// deviceAttr is struct kvm_device_attr.
type deviceAttr struct {
	Flags uint32
	Group uint32
	Attr  uint64
	Addr  uint64
}

// DebugRegs is struct kvm_debugregs.
type DebugRegs struct {
	DB       [4]uint64
	DR6, DR7 uint64
	Flags    uint64
	_        [9]uint64
}

// maxXCRs is KVM_MAX_XCRS.
const maxXCRs = 16

// XCRs is struct kvm_xcrs: the extended control registers.
type XCRs struct {
	Nr    uint32
	Flags uint32
	XCRs  [maxXCRs]XCR
	_     [16]uint64
}

// XCR is struct kvm_xcr.
type XCR struct {
	XCR   uint32
	_     uint32
	Value uint64
}

// xsaveSize is how long struct kvm_xsave is, and what KVM_GET_XSAVE writes.
const xsaveSize = 4096

// IRQChip is struct kvm_irqchip: the registers of a PIC (struct kvm_pic_state)
// or of the IOAPIC (struct kvm_ioapic_state), as ID says.
type IRQChip struct {
	ID   uint32
	_    uint32
	Chip [512]byte
}

// PIT is struct kvm_pit_state2.
type PIT struct {
	Channels [3]PITChannel
	Flags    uint32
	_        [9]uint32
}

// PITChannel is struct kvm_pit_channel_state.
type PITChannel struct {
	Count                               uint32
	LatchedCount                        uint16
	CountLatched, StatusLatched, Status uint8
	ReadState, WriteState, WriteLatch   uint8
	RWMode, Mode, BCD, Gate             uint8
	CountLoadTime                       int64
}

// dirtyLog is struct kvm_dirty_log.
type dirtyLog struct {
	Slot   uint32
	_      uint32
	Bitmap *uint64
}

// clearDirtyLog is struct kvm_clear_dirty_log.
type clearDirtyLog struct {
	Slot      uint32
	NumPages  uint32
	FirstPage uint64
	Bitmap    *uint64
}

// maxMSRIndices bounds KVM_GET_MSR_INDEX_LIST: kernels list about a hundred and
// have room for some five hundred.
const maxMSRIndices = 1024

// msrList is struct kvm_msr_list with room for indices.
type msrList struct {
	Nmsrs   uint32
	Indices [maxMSRIndices]uint32
}
