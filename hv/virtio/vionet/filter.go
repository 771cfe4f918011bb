package vionet

import "slices"

// maxTable is how many addresses of a kind the filter knows. A driver that
// gives more gets all of that kind: the filter is a favour (virtio 1.3,
// 5.1.6.5.2), no barrier.
const maxTable = 64

var broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// filter says which frames the guest receives. It is never changed, but
// replaced by the control queue's goroutine, so receivers share no lock.
type filter struct {
	mac               [6]byte
	promisc, allmulti bool
	unicast, multi    table
	// locked passes nothing that is for somebody else, whatever the driver
	// says (vm.conf(5), locked lladdr).
	locked bool
}

// table is a list of addresses.
type table struct {
	all  bool // there were more than maxTable
	list [][6]byte
}

func (t *table) has(mac [6]byte) bool { return t.all || slices.Contains(t.list, mac) }

// accepts says whether a frame for dst goes to the guest.
func (f *filter) accepts(dst [6]byte) bool {
	switch {
	case dst == f.mac:
		return true
	case dst[0]&1 != 0:
		return f.promisc || f.allmulti || dst == broadcast || f.multi.has(dst)
	}
	return !f.locked && (f.promisc || f.unicast.has(dst))
}

// addresses are all that f lists, the guest's own first; none if frames for
// others pass, too.
func (f *filter) addresses() [][6]byte {
	if f.promisc || f.unicast.all {
		return nil
	}
	return slices.Concat([][6]byte{f.mac, broadcast}, f.unicast.list, f.multi.list)
}
