package vm

import (
	"errors"
	"fmt"
	"strconv"

	"vmd/hv/virtio/vionet"
	"vmd/internal/counters"
	"vmd/internal/vmop"
	"vmd/net/dhcp"
	"vmd/net/tap"
)

// addNIC adds an interface with a pair of queues for each descriptor of its tap.
func (v *vm) addNIC(i int, n vmop.NICArg) error {
	if err := v.keepAnnouncer(i, n); err != nil {
		return err
	}
	taps, err := v.taps("tap" + strconv.Itoa(i))
	if err != nil {
		return err
	}
	var links []vionet.Link
	for k, t := range taps {
		if err := t.SetActive(k == 0); err != nil {
			return err
		}
		links = append(links, linkOf(t, n))
	}
	v.queues = append(v.queues, len(links))
	c := vionet.Config{MAC: n.MAC, LockMAC: n.Locked, MTU: uint16(n.MTU), Down: n.Down}
	if c.Vhost, err = v.vhosts("vhost"+strconv.Itoa(i), len(links)); err != nil {
		return err
	}
	if i < counters.MaxNICs {
		c.Counters = (*vionet.Counters)(&v.page.NIC[i])
	}
	return v.addVirtio(slotNIC+i, "vionet"+strconv.Itoa(i), vionet.New(c, links...))
}

// vhosts are up to n descriptors of vhost, called as those of a tap, which stay
// open as long as the process: there need be none.
func (v *vm) vhosts(name string, n int) ([]int, error) {
	var fds []int
	for k := range n {
		full := name
		if k > 0 {
			full += "." + strconv.Itoa(k)
		}
		f := v.files.take(full)
		if f == nil {
			break
		}
		fd := detach(f)
		if fd < 0 {
			return nil, fmt.Errorf("descriptor %q: cannot be duplicated", full)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// taps are the queues of the tap called name: "tap0", then "tap0.1" and so on as
// far as they were given.
func (v *vm) taps(name string) ([]*tap.Tap, error) {
	f, err := v.files.need(name)
	if err != nil {
		return nil, err
	}
	var taps []*tap.Tap
	for k := 1; f != nil; k++ {
		if len(taps) == vionet.MaxPairs {
			return nil, errors.New("its tap has too many queues")
		}
		t, err := tap.New(detach(f))
		if err != nil {
			return nil, err
		}
		taps = append(taps, t)
		f = v.files.take(name + "." + strconv.Itoa(k))
	}
	return taps, nil
}

// linkOf is a tap as the guest gets it: behind a responder if it is local.
func linkOf(t *tap.Tap, n vmop.NICArg) vionet.Link {
	l := n.Local
	if l == nil {
		return t
	}
	return dhcp.Respond(t, dhcp.Config{
		GuestMAC: n.MAC, HostMAC: n.HostMAC, Guest: l.Guest, Host: l.Host, HostName: l.HostName, NetBoot: l.NetBoot, DNS: l.DNS,
	})
}
