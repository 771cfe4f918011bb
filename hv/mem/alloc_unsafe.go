package mem

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a large page, and the alignment that lets KVM map
// guest memory with them: host and guest address must agree modulo hugePage.
const hugePage = 2 << 20

// mapAligned maps n bytes of private memory at an address that is a multiple
// of hugePage. whole is what to unmap in the end.
func mapAligned(n uint64) (b, whole []byte, err error) {
	whole, err = unix.Mmap(-1, 0, int(n+hugePage), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, err
	}
	skip := uint64(-address(whole) % hugePage)
	return whole[skip : skip+n : skip+n], whole, nil
}

// address is where b lies in this process.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// resident counts the pages of b, which starts on one, that are in memory
// (mincore(2)). vec has room for a byte for each.
func resident(b, vec []byte) (int, error) {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, address(b), uintptr(len(b)), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return 0, errno
	}
	n := 0
	for _, v := range vec[:(uint64(len(b))+hostPage-1)/hostPage] {
		n += int(v & 1)
	}
	return n, nil
}
