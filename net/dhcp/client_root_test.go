package dhcp

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
	"vmd/net/tap"
)

// guestScript is what udhcpc calls: it sets the address and says so.
const guestScript = `#!/bin/sh
[ "$1" = bound ] && %[1]s ip addr add "$ip/$mask" dev "$interface"
[ "$1" = deconfig ] || echo "$1 $ip $mask $router $dns $hostname $lease $serverid $boot_file" >%[2]s
`

// A DHCP client that we did not write gets its address and renews it. The
// kernel's side of a tap is the guest; it leaves checksums to us.
func TestAgainstUdhcpc(t *testing.T) {
	testenv.NetNS(t)
	busybox := testenv.Tool(t, "busybox")
	tp := guestInterface(t)
	renewals := serve(t, tp)

	dir := t.TempDir()
	fifo, script := filepath.Join(dir, "events"), filepath.Join(dir, "script")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, fmt.Appendf(nil, guestScript, busybox, fifo), 0o700); err != nil {
		t.Fatal(err)
	}
	events, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if err := events.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(busybox, "udhcpc", "-f", "-i", "guest0", "-s", script)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()

	lines := bufio.NewScanner(events)
	next := func(want string) {
		t.Helper()
		if !lines.Scan() {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("no event: %v\n%s", lines.Err(), log.String())
		}
		if got := strings.TrimSpace(lines.Text()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	const lease = " 100.64.1.3 31 100.64.1.2 100.64.1.2 web 4294967295 100.64.1.2"
	next("bound" + lease)
	if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	r := <-renewals
	if !r.partial {
		t.Error("the renewal came with its checksum: it was not of the kernel's making")
	}
	waitDisconnected(t, cmd.Process.Pid)
	if err := tp.WriteFrame([][]byte{r.answer}); err != nil {
		t.Fatal(err)
	}
	next("renew" + lease)
}

// guestInterface makes guest0, a tap with the guest's address that knows its host.
func guestInterface(t *testing.T) *tap.Tap {
	t.Helper()
	_, files, err := tap.Create(tap.Options{Name: "guest0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files[0].Close() })
	l, err := netlink.LinkByName("guest0")
	if err == nil {
		err = netlink.LinkSetHardwareAddr(l, net.HardwareAddr(testConfig.GuestMAC[:]))
	}
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err == nil {
		err = netlink.NeighSet(&netlink.Neigh{
			LinkIndex:    l.Attrs().Index,
			State:        netlink.NUD_PERMANENT,
			IP:           net.IP(testConfig.Host[:]),
			HardwareAddr: net.HardwareAddr(testConfig.HostMAC[:]),
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(files[0].Fd()))
	if err != nil {
		t.Fatal(err)
	}
	tp, err := tap.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := tp.SetOffload(unix.TUN_F_CSUM); err != nil {
		t.Fatal(err)
	}
	return tp
}

// waitDisconnected waits until process pid's network namespace has no UDP socket
// with a peer. udhcpc sends its renewal from one, and the answer is lost in it
// if it comes before the socket is closed again.
func waitDisconnected(t *testing.T, pid int) {
	t.Helper()
	const none = "00000000:0000"
	for deadline := time.Now().Add(20 * time.Second); ; {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", pid))
		if err != nil {
			t.Fatal(err)
		}
		sockets := strings.Split(strings.TrimSpace(string(b)), "\n")[1:]
		if !slices.ContainsFunc(sockets, func(l string) bool { return strings.Fields(l)[2] != none }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still connected:\n%s", b)
		}
	}
}

// unanswered is a unicast request that has not been answered yet.
type unanswered struct {
	partial bool // it lacked its checksum
	answer  []byte
}

// serve answers what comes out of tp until the test ends, but for unicast
// requests, which it returns.
func serve(t *testing.T, tp *tap.Tap) <-chan unanswered {
	done, renewals := make(chan struct{}), make(chan unanswered, 16)
	end := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 2000); ; {
			n, err := tp.ReadFrame([][]byte{b}, true)
			if err != nil {
				t.Error(err)
				return
			}
			if n == 0 {
				select {
				case <-end:
					return
				default:
					continue
				}
			}
			partial := b[0]&needsChecksum != 0
			out, ours := testConfig.AppendReply(make([]byte, headerLen), b[headerLen:n], partial)
			if !ours {
				continue
			}
			if [6]byte(b[headerLen:]) == testConfig.HostMAC {
				renewals <- unanswered{partial, out}
				continue
			}
			if err := tp.WriteFrame([][]byte{out}); err != nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() {
		close(end)
		tp.Wake()
		<-done
		tp.Close()
	})
	return renewals
}
