package privsep

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setComm sets the calling thread's name (PR_SET_NAME, prctl(2)).
func setComm(name *[16]byte) error {
	return unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}
