package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
)

// await has a guest wait for a word in a file.
func await(word, file string) string {
	return fmt.Sprintf("for i in $(seq 100); do grep -q %q %s && break; sleep 0.2; done; cat %s", word, file, file)
}

// A guest keeps its address when it asks again, also for ever shorter; one that
// asks for another is told that it cannot have it.
func renew(t *testing.T, d *harness.Daemon, b *harness.Console) {
	const script = "/tmp/lease.sh"
	b.Command(`run echo '#!/bin/sh' >` + script + `; echo 'echo $1 $ip $lease >>/tmp/leases' >>` + script + `; chmod 755 ` + script)
	b.Command("run udhcpc -f -i eth1 -s " + script + " >/dev/null 2>&1 & echo $! >/tmp/udhcpc")
	address := d.Row("b").Interfaces[1].Address
	const forever = "4294967295"
	if got := b.Command("run " + await("bound", "/tmp/leases")); !strings.Contains(got, "bound "+address+" "+forever) {
		t.Fatalf("leases: %q, want one of %s", got, address)
	}
	b.Command("run kill -USR1 $(cat /tmp/udhcpc)") // udhcpc(8): renew
	if got := b.Command("run " + await("renew", "/tmp/leases")); !strings.Contains(got, "renew "+address+" "+forever) {
		t.Errorf("leases: %q, want %s renewed", got, address)
	}
	b.Command("run kill $(cat /tmp/udhcpc)")
	const nak = 6 // RFC 2132, 9.6
	if got := b.Command("run traffic send -kind dhcp -answered eth1"); !strings.Contains(got, fmt.Sprintf("answer %d", nak)) {
		t.Errorf("a request for 10.0.0.1: %q", got)
	}
}

// The host has the first address of a prefix of its own; the guest takes the
// second by whatever means it has.
func inet6(t *testing.T, d *harness.Daemon, b *harness.Console) {
	row := d.Row("b").Interfaces[1]
	var host netip.Prefix
	for _, f := range strings.Fields(hostTool(t, "ip", "-6", "-o", "addr", "show", "dev", row.Tap, "scope", "global")) {
		if p, err := netip.ParsePrefix(f); err == nil {
			host = p
		}
	}
	a16, v4 := host.Addr().As16(), netip.MustParseAddr(row.Address).As4()
	if host.Bits() != 96 || a16[0] != 0xfd || [4]byte(a16[8:]) != v4 || a16[15] != 1 {
		t.Fatalf("the host has %v for a guest with %s", host, row.Address)
	}
	a16[15] = 2
	guest := netip.AddrFrom16(a16)
	b.Command("run echo 0 >/proc/sys/net/ipv6/conf/eth1/accept_dad")
	b.Command(fmt.Sprintf("run ip -6 addr add %v/96 dev eth1", guest))
	b.Command(fmt.Sprintf("run ping6 -c 2 -W 20 %v", host.Addr()))
}

// experimental is the EtherType of frames that only a test sends.
const experimental = 0x88b5

// sources hears frames of that type on all interfaces of the host, each once
// as it comes in, and counts them by source until last has sent one.
func sources(t *testing.T, fd int, last string) map[string]int {
	t.Helper()
	heard := make(map[string]int)
	b := make([]byte, 128)
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			t.Fatalf("frames: %v after %v", err, heard)
		}
		if n < 14 {
			continue
		}
		source := fmt.Sprintf("%x", b[6:12])
		heard[source]++
		if source == last {
			return heard
		}
	}
}

// Whoever is locked sends with its own address or not at all.
func spoof(t *testing.T, d *harness.Daemon, a, b *harness.Console) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, experimental<<8&0xff00|experimental>>8)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(harness.Patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	const count, stranger = 40, "0200000000aa"
	for _, c := range []struct {
		name    string
		console *harness.Console
		want    bool
	}{{"a", a, false}, {"b", b, true}} {
		before := stats(t, d, c.name)
		c.console.Command(fmt.Sprintf("run traffic send -source 02:00:00:00:00:aa -count %d eth0", count))
		c.console.Command("run traffic send eth0") // the last one
		own := strings.ReplaceAll(d.Row(c.name).Interfaces[0].MAC, ":", "")
		heard := sources(t, fd, own)
		if got := heard[stranger] >= count; got != c.want || !c.want && heard[stranger] != 0 {
			t.Errorf("%s sent %d frames as another; the host heard %v", c.name, count, heard)
		}
		if drops := stats(t, d, c.name).TxDrops - before.TxDrops; !c.want && drops < count {
			t.Errorf("%s: %d frames counted as lost, want %d", c.name, drops, count)
		}
	}
}

// interfaceStats is an interface among the counters of vmctl status -v --json.
type interfaceStats struct {
	RxPackets uint64 `json:"rx_packets"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxDrops   uint64 `json:"tx_drops"`
}

// stats are those of a VM's first interface.
func stats(t *testing.T, d *harness.Daemon, name string) interfaceStats {
	t.Helper()
	var s struct {
		VMs []struct {
			Counters struct {
				Interfaces []interfaceStats `json:"interfaces"`
			} `json:"counters"`
		} `json:"vms"`
	}
	out := d.Vmctl("status", "-v", "--json", name)
	if err := json.Unmarshal([]byte(out), &s); err != nil || len(s.VMs) != 1 || len(s.VMs[0].Counters.Interfaces) == 0 {
		t.Fatalf("vmctl status: %v: %s", err, out)
	}
	return s.VMs[0].Counters.Interfaces[0]
}

// Frames count whoever moves them: those of a are looked at, those of b left to
// the kernel.
func count(t *testing.T, d *harness.Daemon, a, b *harness.Console) {
	const frames = 30
	for name, console := range map[string]*harness.Console{"a": a, "b": b} {
		before := stats(t, d, name)
		if before.RxPackets == 0 || before.TxPackets == 0 {
			t.Errorf("%s has been pinged: %+v", name, before)
		}
		console.Command(fmt.Sprintf("run traffic send -count %d eth0", frames))
		harness.WaitFor(t, "the frames of "+name+" to be counted", func() bool {
			now := stats(t, d, name)
			return now.TxPackets >= before.TxPackets+frames && now.TxBytes >= before.TxBytes+frames*60
		})
	}
}
