package sandbox

// The request numbers of KVM (Documentation/virt/kvm/api.rst), spelt out here
// so that the filter does not depend on the code it fences in. They are those
// that hv/kvm makes, and no others; the most frequent first.
var kvmRequests = []uint32{
	// While a guest runs.
	0xae80,     // KVM_RUN
	0x4008ae61, // KVM_IRQ_LINE
	0x4008ae6a, // KVM_SET_GSI_ROUTING
	0x4020ae76, // KVM_IRQFD
	0x4040ae79, // KVM_IOEVENTFD
	0xaead,     // KVM_KVMCLOCK_CTRL
	0xae9a,     // KVM_NMI

	// To stop its clocks over a pause.
	0x8030ae7c, // KVM_GET_CLOCK
	0x4030ae7b, // KVM_SET_CLOCK
	0x4018aee2, // KVM_GET_DEVICE_ATTR
	0x4018aee1, // KVM_SET_DEVICE_ATTR

	// To report why it cannot go on.
	0x8090ae81, // KVM_GET_REGS
	0x8138ae83, // KVM_GET_SREGS
	0xc018ae85, // KVM_TRANSLATE

	// To send it: what the guest writes meanwhile, and what a vCPU and the
	// chips hold in the end.
	0x4010ae42, // KVM_GET_DIRTY_LOG
	0xc018aec0, // KVM_CLEAR_DIRTY_LOG
	0xc208ae62, // KVM_GET_IRQCHIP
	0x8070ae9f, // KVM_GET_PIT2
	0x8080aea1, // KVM_GET_DEBUGREGS
	0x9000aea4, // KVM_GET_XSAVE
	0x9000aecf, // KVM_GET_XSAVE2
	0x8188aea6, // KVM_GET_XCRS

	// While its machine is built.
	0xae00,     // KVM_GET_API_VERSION
	0xae01,     // KVM_CREATE_VM
	0xc004ae02, // KVM_GET_MSR_INDEX_LIST
	0xae03,     // KVM_CHECK_EXTENSION
	0xae04,     // KVM_GET_VCPU_MMAP_SIZE
	0xc008ae05, // KVM_GET_SUPPORTED_CPUID
	0xae41,     // KVM_CREATE_VCPU
	0x4020ae46, // KVM_SET_USER_MEMORY_REGION
	0xae47,     // KVM_SET_TSS_ADDR
	0x4008ae48, // KVM_SET_IDENTITY_MAP_ADDR
	0xae60,     // KVM_CREATE_IRQCHIP
	0x4040ae77, // KVM_CREATE_PIT2
	0x4010ae67, // KVM_REGISTER_COALESCED_MMIO
	0x4068aea3, // KVM_ENABLE_CAP
	0xaea2,     // KVM_SET_TSC_KHZ
	0xaea3,     // KVM_GET_TSC_KHZ
	0x4008ae90, // KVM_SET_CPUID2
	0x4008ae89, // KVM_SET_MSRS
	0xc008ae88, // KVM_GET_MSRS
	0x4090ae82, // KVM_SET_REGS
	0x4138ae84, // KVM_SET_SREGS
	0x4004ae99, // KVM_SET_MP_STATE
	0x8004ae98, // KVM_GET_MP_STATE
	0x8400ae8e, // KVM_GET_LAPIC
	0x4400ae8f, // KVM_SET_LAPIC
	0x8040ae9f, // KVM_GET_VCPU_EVENTS
	0x4040aea0, // KVM_SET_VCPU_EVENTS
}

// kvmReceiveRequests are what only a process makes that takes over a machine
// from elsewhere: they write what another has read.
var kvmReceiveRequests = []uint32{
	0x8208ae63, // KVM_SET_IRQCHIP
	0x4070aea0, // KVM_SET_PIT2
	0x4080aea2, // KVM_SET_DEBUGREGS
	0x5000aea5, // KVM_SET_XSAVE
	0x4188aea7, // KVM_SET_XCRS
}

// kvmEncryptRequests are what only the process of an encrypted guest makes.
// /dev/sev itself it asks for nothing: KVM does so in its place, with commands
// about this guest only.
var kvmEncryptRequests = []uint32{
	0xc008aeba, // KVM_MEMORY_ENCRYPT_OP
	0x8010aebb, // KVM_MEMORY_ENCRYPT_REG_REGION
}
