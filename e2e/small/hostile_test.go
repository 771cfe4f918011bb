package small

import (
	"context"
	"errors"
	"net"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

const socket = client.DefaultSocket

// served fails the test unless ordinary clients are answered.
func served(t *testing.T, d *harness.Daemon) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for _, name := range []string{"root", "alice"} {
		var c *client.Client
		err := as(name, func() (err error) {
			c, err = client.Dial(ctx, socket)
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer c.Close()
		vms, err := c.List(ctx, vmop.ListRequest{})
		if err != nil || len(vms) == 0 || vms[0].State != vmop.Running {
			t.Fatalf("list for %s: %v, %v", name, vms, err)
		}
	}
}

// dial connects as bob: he is the one who means harm.
func dial(t *testing.T) *net.UnixConn {
	t.Helper()
	return connect(t, "bob")
}

func connect(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	var c *net.UnixConn
	err := as(name, func() (err error) {
		c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// as runs f on a thread with the user's ids, which ends afterwards. What counts
// is who connects (SO_PEERCRED, unix(7)).
func as(name string, f func() error) error {
	cred, err := harness.Credential(name)
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock it
		done <- become(cred, f)
	}()
	return <-done
}

// become changes the ids of the calling thread alone: package unix would change
// those of all. The group is the one that may use the socket.
func become(cred *syscall.Credential, f func() error) error {
	if cred.Uid != 0 {
		group, err := user.LookupGroup("vmd")
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(group.Gid)
		if err != nil {
			return err
		}
		for _, c := range [][2]uintptr{{unix.SYS_SETRESGID, uintptr(gid)}, {unix.SYS_SETRESUID, uintptr(cred.Uid)}} {
			if _, _, errno := unix.RawSyscall(c[0], c[1], c[1], c[1]); errno != 0 {
				return errno
			}
		}
	}
	return f()
}

// ends fails the test unless the daemon ends the connection.
func ends(t *testing.T, c *net.UnixConn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, imsg.MaxPayload+64)
	for {
		n, err := c.Read(b)
		if os.IsTimeout(err) {
			t.Fatal("the connection stays")
		}
		if n == 0 || err != nil {
			return
		}
	}
}

// list is a List request as a client writes it.
func list(t *testing.T) []byte {
	t.Helper()
	body, err := imsg.Marshal(vmop.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	head := []byte{1, 0, byte(vmop.List), 0, 1, 0, 0, 0, 0, 0, 0, 0}
	return append(head, body...)
}

func TestHostileClients(t *testing.T) {
	dir := setUp(t)
	d := harness.StartVMD(t, halting(t, dir, "a"))
	before := map[string]harness.Row{"a": d.Await("a", "running")}
	control := harness.Role(t, "control", 0)
	good := connect(t, "alice") // one that was there before, and stays
	for _, c := range []struct {
		name string
		run  func(t *testing.T, d *harness.Daemon)
	}{
		{"garbage", garbage}, {"half a message", halfMessage}, {"ten thousand requests", manyRequests},
		{"connection storm", storm}, {"descriptors", descriptors}, {"never reads", neverReads},
		{"descriptors that do not close", slowDescriptors},
		{"keeps connections", manyConnections},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, d)
			served(t, d)
			sameRuns(t, d, before)
		})
	}
	if now := harness.Role(t, "control", 0); now != control {
		t.Errorf("control is process %d, was %d", now, control)
	}
	if _, err := good.Write(list(t)); err != nil {
		t.Fatal(err)
	}
	if n, err := good.Read(make([]byte, imsg.MaxPayload)); err != nil || n == 0 {
		t.Errorf("a client from before got %d bytes, %v", n, err)
	}
}

func garbage(t *testing.T, d *harness.Daemon) {
	for _, packet := range [][]byte{
		{0}, []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 12), make([]byte, 60<<10),
		append([]byte{1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0}, 0xff, 0xff),
		append([]byte{1, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0}, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
	} {
		c := dial(t)
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
		served(t, d)
		c.Close()
	}
}

// A packet is whole or it is none: half of one is one that lies.
func halfMessage(t *testing.T, d *harness.Daemon) {
	whole := list(t)
	for n := 1; n < 12; n++ {
		c := dial(t)
		if _, err := c.Write(whole[:n]); err != nil {
			t.Fatal(err)
		}
		ends(t, c)
	}
}

// Bob asks more than he may in a minute: he waits, others do not.
func manyRequests(t *testing.T, d *harness.Daemon) {
	const requests = 10_000
	c := dial(t)
	packet := list(t)
	var sent, answered atomic.Int64
	var both sync.WaitGroup
	both.Go(func() {
		for range requests {
			if _, err := c.Write(packet); err != nil {
				return
			}
			sent.Add(1)
		}
	})
	both.Go(func() {
		b := make([]byte, imsg.MaxPayload+64)
		for {
			n, err := c.Read(b)
			if n == 0 || err != nil {
				return
			}
			if vmop.Type(b[2]) == vmop.Answer {
				answered.Add(1)
			}
		}
	})
	harness.WaitFor(t, "bob to be answered some hundred times", func() bool {
		served(t, d)
		return answered.Load() >= 300
	})
	c.Close()
	both.Wait()
	t.Logf("%d requests were sent, %d answered", sent.Load(), answered.Load())
}

// All of a user's connections at once are no more than his share.
func storm(t *testing.T, d *harness.Daemon) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := as("bob", func() error {
				for range 500 {
					c, err := net.Dial("unixpacket", socket)
					if err == nil {
						c.Close()
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// What a client sends along with a request that wants none is closed.
func descriptors(t *testing.T, d *harness.Daemon) {
	control := harness.Role(t, "control", 0)
	parent := d.PID()
	before := fds(t, control) + fds(t, parent)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	many := make([]int, imsg.MaxFiles)
	for i := range many {
		many[i] = int(null.Fd())
	}
	for range 50 {
		c := dial(t)
		_, _, err := c.WriteMsgUnix(list(t), unix.UnixRights(many...), nil)
		if err != nil && !errors.Is(err, unix.EPIPE) { // turned away: these are many connections
			t.Fatal(err)
		}
		c.Close()
	}
	served(t, d)
	harness.WaitFor(t, "descriptors to be closed", func() bool { return fds(t, control)+fds(t, parent) <= before })
}

func fds(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A client that asks and does not read fills its own socket, and no other's.
func neverReads(t *testing.T, d *harness.Daemon) {
	packet := list(t)
	for range 2 {
		c := dial(t)
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		for range 5000 {
			if _, err := c.Write(packet); err != nil {
				break // it is not read from any more, or has been given up
			}
		}
		served(t, d)
	}
}

// One user who takes all the connections he can get does not lock others out.
func manyConnections(t *testing.T, d *harness.Daemon) {
	for range 400 {
		dial(t)
	}
	for _, name := range []string{"root", "alice"} {
		if r := d.VmctlAs(name, "status"); r.Status != 0 || !strings.Contains(r.Stdout, "running") {
			t.Errorf("vmctl status of %s: %+v", name, r)
		}
	}
	// Connections of his that have just ended count until control sees it.
	harness.WaitFor(t, "bob to be turned away", func() bool {
		r := d.VmctlAs("bob", "status")
		if r.Status != 0 && !strings.Contains(r.Stderr, "too many clients of one user") {
			t.Fatalf("vmctl status of bob: %+v", r)
		}
		dial(t)
		return r.Status != 0
	})
}
