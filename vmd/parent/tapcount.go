package parent

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"vmd/internal/vmop"
	"vmd/vmd/parent/registry"
)

// sysClassNet is where the kernel shows its interfaces (Documentation/ABI/
// testing/sysfs-class-net).
const sysClassNet = "/sys/class/net"

// fillTaps fills in what the kernel has counted on taps. Where it moves an
// interface's frames itself (vhost) nothing of ours does, and the page stays
// empty. It is the host's kernel that answers: still nobody waits for a guest.
func fillTaps(s *vmop.Stats, nics []registry.RunNIC) {
	for i := range min(len(s.NICs), len(nics)) {
		if s.NICs[i] == (vmop.NICStats{}) {
			s.NICs[i] = tapStats(sysClassNet, nics[i])
		}
	}
}

// tapStats reads the counters of a tap: what it sends, the guest receives. They
// are zero if it is not there, or another has its name.
func tapStats(root string, n registry.RunNIC) (s vmop.NICStats) {
	dir := filepath.Join(root, n.Tap)
	if n.Tap == "" || filepath.Base(dir) != n.Tap || sysNumber(dir, "ifindex") != uint64(n.IfIndex) {
		return s
	}
	for _, c := range []struct {
		name string
		to   *uint64
	}{
		{"tx_packets", &s.RxPackets}, {"tx_bytes", &s.RxBytes}, {"tx_dropped", &s.RxDrops},
		{"rx_packets", &s.TxPackets}, {"rx_bytes", &s.TxBytes}, {"rx_dropped", &s.TxDrops},
	} {
		*c.to = sysNumber(dir, filepath.Join("statistics", c.name))
	}
	return s
}

// sysNumber is the number in a file of sysfs; 0 if there is none.
func sysNumber(dir, name string) uint64 {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64) // 0 with an error
	return n
}
