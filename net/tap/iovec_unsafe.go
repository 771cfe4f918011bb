package tap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// vectored is readv(2) or writev(2), as op says. The package unix has both, but
// allocates a vector per call.
func vectored(op, fd uintptr, v []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.Syscall(op, fd, uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)))
	return int(n), errno
}

// control is ioctl(2) with b as its argument.
func control(fd, req uintptr, b []byte) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	return errno
}
