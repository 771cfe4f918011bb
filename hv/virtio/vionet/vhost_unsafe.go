package vionet

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// vhostCall is an ioctl(2) whose argument is b, or none if b is empty.
func vhostCall(fd int, req uintptr, b []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	if errno != 0 {
		return errno
	}
	return nil
}

// addressOf is where guest memory lies in this process. It does not move: it
// comes from mmap(2).
func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
