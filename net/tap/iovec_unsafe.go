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
