// Package sev starts guests whose memory is encrypted by AMD's SEV, or whose
// registers are too (SEV-ES): the commands that KVM and the firmware of the
// secure processor want, in their order, and the policy, the digest and the
// errors that go with them
// (Documentation/virt/kvm/x86/amd-memory-encryption.rst; AMD, SEV API
// specification, 55766).
//
//	Begin ─ RegisterMemory ─ Start ─ Encrypt… ─ EncryptRegisters ─ Finish
//	  vCPUs are made         what was loaded     SEV-ES only
//
// The package issues no KVM ioctl itself: a VM does, which hv/kvm has and a test
// can play.
package sev

import "fmt"

// Kind is how much of a guest is encrypted.
type Kind uint8

// The kinds. SEV-ES guests have encrypted memory too.
const (
	None Kind = iota
	SEV
	ES
)

func (k Kind) String() string {
	switch k {
	case None:
		return "none"
	case SEV:
		return "SEV"
	case ES:
		return "SEV-ES"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Commands of KVM_MEMORY_ENCRYPT_OP (linux/kvm.h, enum sev_cmd_id).
const (
	KVM_SEV_INIT               = 0
	KVM_SEV_ES_INIT            = 1
	KVM_SEV_LAUNCH_START       = 2
	KVM_SEV_LAUNCH_UPDATE_DATA = 3
	KVM_SEV_LAUNCH_UPDATE_VMSA = 4
	KVM_SEV_LAUNCH_MEASURE     = 6
	KVM_SEV_LAUNCH_FINISH      = 7
	KVM_SEV_GUEST_STATUS       = 16
	KVM_SEV_INIT2              = 22 // Linux 6.10
)

// The commands' structs, with the kernel's padding written out (asm/kvm.h).
// They are encoded with encoding/binary: its order is the machine's.
type (
	sevInit struct { // struct kvm_sev_init
		VMSAFeatures uint64
		Flags        uint32
		GHCBVersion  uint16
		_            uint16
		_            [8]uint32
	}
	launchStart struct { // struct kvm_sev_launch_start
		Handle       uint32
		Policy       uint32
		DHUaddr      uint64
		DHLen        uint32
		_            uint32
		SessionUaddr uint64
		SessionLen   uint32
		_            uint32
	}
	launchUpdateData struct { // struct kvm_sev_launch_update_data
		Uaddr uint64
		Len   uint32
		_     uint32
	}
	launchMeasure struct { // struct kvm_sev_launch_measure
		Uaddr uint64
		Len   uint32
		_     uint32
	}
	guestStatus struct { // struct kvm_sev_guest_status
		Handle uint32
		Policy uint32
		State  uint32
	}
)

// States of a guest as KVM_SEV_GUEST_STATUS has them (SEV API 55766, 4.3).
const stateRunning = 3

// C-bit, as leaf 0x8000001f of CPUID tells the guest (AMD64 vol. 3, E.4.17).
const (
	cpuidSEV = 1 << 1
	cpuidES  = 1 << 3

	maskCBit    = 0x3f
	shiftReduce = 6
	maskReduce  = 0x3f
)

// CPU is what the processor's leaf 0x8000001f says about encryption. The zero
// value is that of a processor without.
type CPU struct {
	Features uint32 // EAX
	Layout   uint32 // EBX
}

// Has says whether guests can be of kind k.
func (c CPU) Has(k Kind) bool {
	switch k {
	case None:
		return true
	case SEV:
		return c.Features&cpuidSEV != 0
	case ES:
		return c.Features&cpuidSEV != 0 && c.Features&cpuidES != 0
	}
	return false
}

// CBit is the bit of a physical address by which a guest's page table says that
// a page is encrypted.
func (c CPU) CBit() int { return int(c.Layout & maskCBit) }

// Reduction is by how many bits physical addresses are shorter.
func (c CPU) Reduction() int { return int(c.Layout >> shiftReduce & maskReduce) }

// Guest is what a guest of kind k is to see in the leaf: EAX and EBX. The guest
// learns of nothing that it has not got.
func (c CPU) Guest(k Kind) (features, layout uint32) {
	switch k {
	case SEV:
		features = cpuidSEV
	case ES:
		features = cpuidSEV | cpuidES
	default:
		return 0, 0
	}
	return features, c.Layout & (maskCBit | maskReduce<<shiftReduce)
}
