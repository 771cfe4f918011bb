package machine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// nameThread names the calling thread for ps and top; names are cut after 15
// bytes.
func nameThread(name string) {
	var b [16]byte
	copy(b[:15], name)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b)), 0, 0, 0)
}
