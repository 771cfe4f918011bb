package kvm

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
)

// A VM that was not made for it has no encryption, on any host; the requests
// reach KVM all the same.
func TestEncryptionOfAPlainVM(t *testing.T) {
	g := newGuest(t, 0xf4)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	refused := func(err error) bool { return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) }
	const guestStatus = 16
	if _, err := g.vm.EncryptOp(guestStatus, make([]byte, 12), null); !refused(err) {
		t.Errorf("KVM_SEV_GUEST_STATUS: %v", err)
	}
	if err := g.vm.RegisterEncrypted(make([]byte, 4096)); !refused(err) {
		t.Errorf("KVM_MEMORY_ENCRYPT_REG_REGION: %v", err)
	}
}

// A VM can be made of the types that KVM_CAP_VM_TYPES names, and of no other.
func TestVMTypes(t *testing.T) {
	testenv.KVM(t)
	sys, err := OpenDevice("/dev/kvm")
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	for _, typ := range []VMType{KVM_X86_SEV_VM, KVM_X86_SEV_ES_VM, 63} {
		if typ == 63 && sys.HasVMType(typ) {
			t.Error("KVM names a type that is none")
		}
		vm, err := sys.CreateVMOf(typ, 0xfeffd000, 0xfeffc000)
		if err == nil {
			vm.Close()
		}
		if made := err == nil; made != sys.HasVMType(typ) {
			t.Errorf("type %d: named %v, error %v", typ, sys.HasVMType(typ), err)
		}
	}
}
