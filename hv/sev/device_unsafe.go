package sev

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SEV_ISSUE_CMD is the request of /dev/sev (linux/psp-sev.h).
const SEV_ISSUE_CMD = 0xc0105300

// Device is a descriptor of /dev/sev.
type Device int

// Command implements Firmware.
func (d Device) Command(cmd uint32, data []byte) (FirmwareError, error) {
	var c [16]byte // struct sev_issue_cmd: u32 cmd, u64 data, u32 error, packed
	var pin runtime.Pinner
	defer pin.Unpin()
	le := binary.NativeEndian
	le.PutUint32(c[0:], cmd)
	if len(data) > 0 {
		pin.Pin(&data[0])
		le.PutUint64(c[4:], uint64(uintptr(unsafe.Pointer(&data[0]))))
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d), SEV_ISSUE_CMD, uintptr(unsafe.Pointer(&c)))
	if errno == 0 {
		return 0, nil
	}
	return FirmwareError(le.Uint32(c[12:])), errno
}
