// Package kvm speaks to Linux's KVM and is the only package that does: every
// ioctl on /dev/kvm and on the descriptors made from it is issued here. It
// mirrors the kernel's structs (abi.go) and knows no device.
//
// A System is /dev/kvm, a VM is one guest, a VCPU one of its processors. The
// process that makes a VM must be the one that runs it: KVM ties a VM to the
// address space of its maker (Documentation/virt/kvm/api.rst, 4.2). /dev/kvm
// itself may have been opened by somebody else.
//
// Descriptors are plain numbers, closed by Close and by nothing else: an
// os.File would close them from a finalizer while the kernel still used the
// number.
package kvm
