package tap

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// allMulticast is TUN_FLT_ALLMULTI (linux/if_tun.h).
const allMulticast = 1

// maxFilter is how many addresses SetFilter passes on.
const maxFilter = 256

// SetFilter has the tap drop frames that are for none of addrs before they are
// to be read; without any addrs it drops none. With allMulti, what is for any
// group passes. It is a favour: the kernel knows a few addresses, and passes all
// when there are more (update_filter), and groups it tells apart by a hash.
// It counts what it drops among the tap's lost frames.
func (t *Tap) SetFilter(addrs [][6]byte, allMulti bool) error {
	if len(addrs) > maxFilter {
		addrs = nil
	}
	var flags uint16
	if allMulti {
		flags = allMulticast
	}
	b := binary.NativeEndian.AppendUint16(nil, flags) // struct tun_filter
	b = binary.NativeEndian.AppendUint16(b, uint16(len(addrs)))
	for _, a := range addrs {
		b = append(b, a[:]...)
	}
	if errno := control(uintptr(t.fd), unix.TUNSETTXFILTER, b); errno != 0 {
		return fmt.Errorf("set the filter of a tap: %w", errno)
	}
	return nil
}
