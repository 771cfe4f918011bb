package kvm

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl issues a request whose argument is a plain number. Other than KVM_RUN
// no request means anything by EINTR, and Go sends its own threads signals at
// any moment, so such a request is tried again.
func ioctl(fd int, req, arg uintptr) (uintptr, error) {
	for {
		r, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), req, arg)
		if errno == 0 {
			return r, nil
		}
		if errno != unix.EINTR {
			return r, errno
		}
	}
}

// ioctlPtr is ioctl for a request whose argument is a struct.
func ioctlPtr[T any](fd int, req uintptr, arg *T) (uintptr, error) {
	for {
		r, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg)))
		if errno == 0 {
			return r, nil
		}
		if errno != unix.EINTR {
			return r, errno
		}
	}
}

// addressOf is where b lies in this process, as KVM wants to know it.
func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// runOf looks at the start of a vCPU's shared pages as struct kvm_run. The
// mapping lies outside Go's heap and stays until the VCPU is closed.
func runOf(m []byte) *runPage { return (*runPage)(unsafe.Pointer(unsafe.SliceData(m))) }

// exitAs looks at the union of r as one of its members.
func exitAs[T any](r *runPage) *T { return (*T)(unsafe.Pointer(&r.Exit)) }

// coalescedRingOf looks at a page of a vCPU's shared pages as the VM's ring of
// coalesced writes.
func coalescedRingOf(page []byte) *coalescedRing {
	return (*coalescedRing)(unsafe.Pointer(unsafe.SliceData(page)))
}

// ioctlAttr issues a request about an attribute whose value is v.
func ioctlAttr(fd int, req uintptr, group uint32, attr uint64, v *uint64) error {
	a := deviceAttr{Group: group, Attr: attr, Addr: uint64(uintptr(unsafe.Pointer(v)))}
	_, err := ioctlPtr(fd, req, &a)
	runtime.KeepAlive(v)
	return err
}
