package parent

import (
	"os"
	"strconv"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// vhostDevice is the kernel's data path for virtio network devices.
const vhostDevice = "/dev/vhost-net"

// queues is how many pairs of queues each interface of a VM has: one for each
// CPU, within bounds.
func queues(d *config.VM) int {
	return max(1, min(d.CPUs, vmop.MaxQueues/max(1, len(d.NICs))))
}

// openVhost lets the kernel move the frames of an interface, unless somebody
// has to look at them: at requests for addresses, or at who sends. Without
// vhost the VM process moves them.
func (n *nic) openVhost() {
	if n.arg.Local != nil || n.arg.Locked {
		return
	}
	for range n.taps {
		f, err := os.OpenFile(vhostDevice, os.O_RDWR, 0)
		if err != nil {
			return
		}
		n.vhost = append(n.vhost, f)
	}
}

// files hands over the descriptors of interface i, under the names that the VM
// process knows them by.
func (n *nic) files(i int) []named {
	var all []named
	add := func(name string, files []*os.File) {
		for k, f := range files {
			full := name + strconv.Itoa(i)
			if k > 0 {
				full += "." + strconv.Itoa(k)
			}
			all = append(all, named{full, f})
		}
	}
	add("tap", n.taps)
	add("vhost", n.vhost)
	n.taps, n.vhost = nil, nil
	return all
}

// close gives the descriptors back that were not handed over.
func (n *nic) close() {
	closeAll(n.taps)
	closeAll(n.vhost)
	n.taps, n.vhost = nil, nil
}
