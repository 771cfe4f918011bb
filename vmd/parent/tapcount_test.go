package parent

import (
	"os"
	"path/filepath"
	"testing"

	"vmd/internal/vmop"
	"vmd/vmd/parent/registry"
)

func TestTapStats(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "tap3", "statistics")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"../ifindex": "7\n", "tx_packets": "1\n", "tx_bytes": "2\n", "tx_dropped": "3\n",
		"rx_packets": "4\n", "rx_bytes": "18446744073709551615\n", "rx_dropped": "nonsense\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all := vmop.NICStats{RxPackets: 1, RxBytes: 2, RxDrops: 3, TxPackets: 4, TxBytes: 1<<64 - 1}
	for _, c := range []struct {
		name string
		nic  registry.RunNIC
		want vmop.NICStats
	}{
		{"the guest's side", registry.RunNIC{Tap: "tap3", IfIndex: 7}, all},
		{"another tap of its name", registry.RunNIC{Tap: "tap3", IfIndex: 8}, vmop.NICStats{}},
		{"gone", registry.RunNIC{Tap: "tap4", IfIndex: 7}, vmop.NICStats{}},
		{"never was", registry.RunNIC{}, vmop.NICStats{}},
		{"not a name", registry.RunNIC{Tap: "x/../tap3", IfIndex: 7}, vmop.NICStats{}},
	} {
		if got := tapStats(root, c.nic); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// What vmd counted itself counts.
func TestFillTapsLeavesWhatThereIs(t *testing.T) {
	own := vmop.NICStats{TxDrops: 5}
	s := vmop.Stats{NICs: []vmop.NICStats{own, {}}}
	lo, err := os.ReadFile(filepath.Join(sysClassNet, "lo", "ifindex"))
	if err != nil {
		t.Fatal(err)
	}
	nic := registry.RunNIC{Tap: "lo", IfIndex: int(lo[0] - '0')}
	fillTaps(&s, []registry.RunNIC{nic, nic, nic})
	if s.NICs[0] != own {
		t.Errorf("counted %+v, shown %+v", own, s.NICs[0])
	}
}
