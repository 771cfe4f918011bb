package vswitch

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// lock makes the bridge drop what comes from l with a source address other than
// guest: the port is locked, and the address is a static entry of the bridge's
// table (bridge(8), "locked"). The VM's own process filters as well; this holds
// even if it is taken over.
//
// A bridge that filters VLANs is left alone. Its table is per VLAN, and a VLAN
// that the administrator adds to the port later would be cut off.
func (c *Conn) lock(l netlink.Link, b *netlink.Bridge, guest [6]byte) error {
	if b.VlanFiltering != nil && *b.VlanFiltering {
		return nil
	}
	err := c.h.NeighSet(&netlink.Neigh{
		LinkIndex:    l.Attrs().Index,
		Family:       unix.AF_BRIDGE,
		State:        netlink.NUD_NOARP | netlink.NUD_REACHABLE, // static: neither local nor aged
		Flags:        netlink.NTF_MASTER,
		HardwareAddr: guest[:],
	})
	if err != nil {
		return fmt.Errorf("lock %s: enter the guest's address on %s: %w", l.Attrs().Name, b.Name, err)
	}
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.Sockets = c.raw
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(l.Attrs().Index)
	req.AddData(msg)
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	port.AddRtAttr(nl.IFLA_BRPORT_LOCKED, []byte{1})
	req.AddData(port)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("lock port %s of %s: %w", l.Attrs().Name, b.Name, err)
	}
	return nil
}
