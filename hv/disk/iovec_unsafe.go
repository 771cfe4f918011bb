package disk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// vectored is preadv(2) or pwritev(2), as op says. The package unix has both,
// but allocates a vector per call.
func vectored(op uintptr, fd int, v *vector, n int, off int64) (int, unix.Errno) {
	done, _, errno := unix.Syscall6(op, uintptr(fd), uintptr(unsafe.Pointer(v)), uintptr(n), uintptr(off), 0, 0)
	return int(done), errno
}
