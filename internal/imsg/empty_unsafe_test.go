package imsg

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendEmpty sends a packet of no bytes with control message oob. The wrappers
// for sendmsg put a byte into such a packet (unix(7) asks for one on streams).
func sendEmpty(fd int, oob []byte) error {
	msg := unix.Msghdr{Control: &oob[0]}
	msg.SetControllen(len(oob))
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
