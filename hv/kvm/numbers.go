package kvm

// apiVersion is the only version that KVM_GET_API_VERSION has answered since
// 2007; api.rst, 4.1, asks programs to refuse any other.
const apiVersion = 12

// ioctl requests (linux/kvm.h). abi_test.go compares them with the kernel's
// header.
const (
	// On the system descriptor.
	KVM_GET_API_VERSION     = 0xae00
	KVM_CREATE_VM           = 0xae01
	KVM_GET_MSR_INDEX_LIST  = 0xc004ae02
	KVM_CHECK_EXTENSION     = 0xae03
	KVM_GET_VCPU_MMAP_SIZE  = 0xae04
	KVM_GET_SUPPORTED_CPUID = 0xc008ae05

	// On a VM descriptor.
	KVM_CREATE_VCPU             = 0xae41
	KVM_GET_DIRTY_LOG           = 0x4010ae42
	KVM_SET_USER_MEMORY_REGION  = 0x4020ae46
	KVM_SET_TSS_ADDR            = 0xae47
	KVM_SET_IDENTITY_MAP_ADDR   = 0x4008ae48
	KVM_CREATE_IRQCHIP          = 0xae60
	KVM_IRQ_LINE                = 0x4008ae61
	KVM_GET_IRQCHIP             = 0xc208ae62
	KVM_SET_IRQCHIP             = 0x8208ae63
	KVM_SET_GSI_ROUTING         = 0x4008ae6a
	KVM_REGISTER_COALESCED_MMIO = 0x4010ae67
	KVM_IRQFD                   = 0x4020ae76
	KVM_CREATE_PIT2             = 0x4040ae77
	KVM_IOEVENTFD               = 0x4040ae79
	KVM_SET_CLOCK               = 0x4030ae7b
	KVM_GET_CLOCK               = 0x8030ae7c
	KVM_GET_PIT2                = 0x8070ae9f
	KVM_SET_PIT2                = 0x4070aea0
	KVM_ENABLE_CAP              = 0x4068aea3
	KVM_CLEAR_DIRTY_LOG         = 0xc018aec0

	// On that of an encrypted guest.
	KVM_MEMORY_ENCRYPT_OP         = 0xc008aeba
	KVM_MEMORY_ENCRYPT_REG_REGION = 0x8010aebb

	// On a vCPU descriptor.
	KVM_RUN             = 0xae80
	KVM_GET_REGS        = 0x8090ae81
	KVM_SET_REGS        = 0x4090ae82
	KVM_GET_SREGS       = 0x8138ae83
	KVM_SET_SREGS       = 0x4138ae84
	KVM_TRANSLATE       = 0xc018ae85
	KVM_GET_MSRS        = 0xc008ae88
	KVM_SET_MSRS        = 0x4008ae89
	KVM_GET_LAPIC       = 0x8400ae8e
	KVM_SET_LAPIC       = 0x4400ae8f
	KVM_SET_CPUID2      = 0x4008ae90
	KVM_GET_MP_STATE    = 0x8004ae98
	KVM_SET_MP_STATE    = 0x4004ae99
	KVM_NMI             = 0xae9a
	KVM_GET_VCPU_EVENTS = 0x8040ae9f
	KVM_SET_VCPU_EVENTS = 0x4040aea0
	KVM_GET_DEBUGREGS   = 0x8080aea1
	KVM_SET_DEBUGREGS   = 0x4080aea2
	KVM_SET_TSC_KHZ     = 0xaea2
	KVM_GET_TSC_KHZ     = 0xaea3
	KVM_GET_XSAVE       = 0x9000aea4
	KVM_SET_XSAVE       = 0x5000aea5
	KVM_GET_XCRS        = 0x8188aea6
	KVM_SET_XCRS        = 0x4188aea7
	KVM_KVMCLOCK_CTRL   = 0xaead
	KVM_GET_XSAVE2      = 0x9000aecf
	KVM_SET_DEVICE_ATTR = 0x4018aee1
	KVM_GET_DEVICE_ATTR = 0x4018aee2
)

// Cap is a KVM capability, asked for with KVM_CHECK_EXTENSION.
type Cap int

// Capabilities (linux/kvm.h).
const (
	KVM_CAP_IRQCHIP                   Cap = 0
	KVM_CAP_HLT                       Cap = 1
	KVM_CAP_USER_MEMORY               Cap = 3
	KVM_CAP_SET_TSS_ADDR              Cap = 4
	KVM_CAP_EXT_CPUID                 Cap = 7
	KVM_CAP_NR_VCPUS                  Cap = 9
	KVM_CAP_NR_MEMSLOTS               Cap = 10
	KVM_CAP_MP_STATE                  Cap = 14
	KVM_CAP_COALESCED_MMIO            Cap = 15
	KVM_CAP_IRQ_ROUTING               Cap = 25
	KVM_CAP_IRQFD                     Cap = 32
	KVM_CAP_PIT2                      Cap = 33
	KVM_CAP_IOEVENTFD                 Cap = 36
	KVM_CAP_SET_IDENTITY_MAP_ADDR     Cap = 37
	KVM_CAP_VCPU_EVENTS               Cap = 41
	KVM_CAP_DEBUGREGS                 Cap = 50
	KVM_CAP_XSAVE                     Cap = 55
	KVM_CAP_XCRS                      Cap = 56
	KVM_CAP_TSC_CONTROL               Cap = 60
	KVM_CAP_GET_TSC_KHZ               Cap = 61
	KVM_CAP_MAX_VCPUS                 Cap = 66
	KVM_CAP_TSC_DEADLINE_TIMER        Cap = 72
	KVM_CAP_KVMCLOCK_CTRL             Cap = 76
	KVM_CAP_SIGNAL_MSI                Cap = 77
	KVM_CAP_READONLY_MEM              Cap = 81
	KVM_CAP_IOEVENTFD_ANY_LENGTH      Cap = 122
	KVM_CAP_MAX_VCPU_ID               Cap = 128
	KVM_CAP_X2APIC_API                Cap = 129
	KVM_CAP_IMMEDIATE_EXIT            Cap = 136
	KVM_CAP_COALESCED_PIO             Cap = 162
	KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 Cap = 168
	KVM_CAP_HALT_POLL                 Cap = 182
	KVM_CAP_EXIT_ON_EMULATION_FAILURE Cap = 204
	KVM_CAP_XSAVE2                    Cap = 208
	KVM_CAP_PMU_CAPABILITY            Cap = 212
	KVM_CAP_VM_TYPES                  Cap = 235
)

// ExitReason says why KVM_RUN returned.
type ExitReason uint32

// Exit reasons (linux/kvm.h, struct kvm_run).
const (
	KVM_EXIT_IO             ExitReason = 2
	KVM_EXIT_HLT            ExitReason = 5
	KVM_EXIT_MMIO           ExitReason = 6
	KVM_EXIT_SHUTDOWN       ExitReason = 8
	KVM_EXIT_FAIL_ENTRY     ExitReason = 9
	KVM_EXIT_INTR           ExitReason = 10
	KVM_EXIT_INTERNAL_ERROR ExitReason = 17
	KVM_EXIT_SYSTEM_EVENT   ExitReason = 24
)

// Values of MPState.
const (
	KVM_MP_STATE_RUNNABLE      = 0
	KVM_MP_STATE_UNINITIALIZED = 1
	KVM_MP_STATE_INIT_RECEIVED = 2
	KVM_MP_STATE_HALTED        = 3
	KVM_MP_STATE_SIPI_RECEIVED = 4
)

// Flags and small constants of the structs in abi.go.
const (
	KVM_MEM_LOG_DIRTY_PAGES = 1 << 0
	KVM_MEM_READONLY        = 1 << 1

	KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1 << 0
	KVM_DIRTY_LOG_INITIALLY_SET         = 1 << 1

	KVM_IRQ_ROUTING_IRQCHIP = 1
	KVM_IRQ_ROUTING_MSI     = 2

	KVM_IRQCHIP_PIC_MASTER = 0
	KVM_IRQCHIP_PIC_SLAVE  = 1
	KVM_IRQCHIP_IOAPIC     = 2

	KVM_IRQFD_FLAG_DEASSIGN = 1 << 0

	KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0
	KVM_IOEVENTFD_FLAG_PIO       = 1 << 1
	KVM_IOEVENTFD_FLAG_DEASSIGN  = 1 << 2

	KVM_PIT_SPEAKER_DUMMY = 1

	KVM_PMU_CAP_DISABLE = 1 << 0

	KVM_VCPU_TSC_CTRL   = 0 // attribute group of a vCPU
	KVM_VCPU_TSC_OFFSET = 0

	KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0

	KVM_X2APIC_API_USE_32BIT_IDS           = 1 << 0
	KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK = 1 << 1
)
