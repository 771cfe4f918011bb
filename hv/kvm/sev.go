package kvm

import (
	"fmt"
	"runtime"
)

// VMType is what KVM_CREATE_VM makes.
type VMType uint32

// Types of VMs (asm/kvm.h). KVM_CAP_VM_TYPES answers with a bit for each; KVMs
// before Linux 6.10 know the first only, and SEV has other ways there.
const (
	KVM_X86_DEFAULT_VM VMType = 0
	KVM_X86_SEV_VM     VMType = 2
	KVM_X86_SEV_ES_VM  VMType = 3
)

// HasVMType says whether this KVM makes VMs of type t.
func (s *System) HasVMType(t VMType) bool { return s.Check(KVM_CAP_VM_TYPES)>>t&1 != 0 }

// sevCmd is struct kvm_sev_cmd.
type sevCmd struct {
	ID    uint32
	_     uint32
	Data  uint64
	Error uint32
	SevFD uint32
}

// encRegion is struct kvm_enc_region.
type encRegion struct {
	Addr uint64
	Size uint64
}

// EncryptOp has KVM carry out a command of its memory encryption
// (Documentation/virt/kvm/x86/amd-memory-encryption.rst). data is the command's
// struct, which KVM may write to, or nil; sevFD is a descriptor of /dev/sev.
// firmware is what that answered where the error is that the command failed.
func (vm *VM) EncryptOp(id uint32, data []byte, sevFD int) (firmware uint32, err error) {
	c := sevCmd{ID: id, SevFD: uint32(sevFD)}
	if len(data) > 0 {
		var pin runtime.Pinner // the kernel needs memory that does not move
		pin.Pin(&data[0])
		defer pin.Unpin()
		c.Data = addressOf(data)
	}
	_, err = ioctlPtr(vm.fd, KVM_MEMORY_ENCRYPT_OP, &c)
	return c.Error, err
}

// RegisterEncrypted tells KVM that the guest will have encrypted memory in b,
// which must be mapped memory. KVM holds all of its pages in place until the VM
// is closed, within this process's RLIMIT_MEMLOCK.
func (vm *VM) RegisterEncrypted(b []byte) error {
	r := encRegion{Addr: addressOf(b), Size: uint64(len(b))}
	if _, err := ioctlPtr(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, &r); err != nil {
		return fmt.Errorf("KVM_MEMORY_ENCRYPT_REG_REGION of %d bytes: %w", len(b), err)
	}
	return nil
}

// Address is where b lies in this process, for the structs that EncryptOp takes.
// b must not move until it has returned.
func (vm *VM) Address(b []byte) uint64 { return addressOf(b) }
