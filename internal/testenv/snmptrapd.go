package testenv

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TrapReceiver is a real snmptrapd that prints what it receives.
type TrapReceiver struct {
	Addr string // host:port of its UDP address

	mu   sync.Mutex
	text bytes.Buffer
}

// Snmptrapd needs net-snmp's snmptrapd (T1). It starts one in the test's network
// namespace, which takes notifications of every community. It is killed when the
// test ends; a failed test shows what it received.
func Snmptrapd(t testing.TB) *TrapReceiver {
	t.Helper()
	bin, err := LookTool("snmptrapd")
	if err != nil {
		missing(t, []string{"T1", "snmptrapd"}, "needs snmptrapd: %v", err)
	}
	found(t, "T1")
	r := &TrapReceiver{}
	if r.Addr, err = freeUDP(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "snmptrapd.conf")
	if err := os.WriteFile(conf, []byte("disableAuthorization yes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-f", "-Lo", "-On", "-C", "-c", conf, "udp:"+r.Addr)
	cmd.Env = append(os.Environ(), "MIBS=", "MIBDIRS="+dir, "SNMP_PERSISTENT_DIR="+filepath.Join(dir, "state"))
	cmd.Stdout, cmd.Stderr = (*trapWriter)(r), (*trapWriter)(r)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start snmptrapd: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("snmptrapd:\n%s", r.Text())
		}
	})
	for end := time.Now().Add(snmpdPatience); !strings.Contains(r.Text(), "NET-SNMP version"); {
		if time.Now().After(end) {
			t.Fatalf("snmptrapd does not start:\n%s", r.Text())
		}
		time.Sleep(5 * time.Millisecond)
	}
	return r
}

// Text is what was received so far: for each notification a line that says from
// where, and one of its variables, by number, with tabs between.
func (r *TrapReceiver) Text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// Reset forgets what was received so far.
func (r *TrapReceiver) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Reset()
}

type trapWriter TrapReceiver

func (w *trapWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

// trapRoom is how many bytes a TrapSink holds unread. A notification takes about
// 1 KiB, and the kernel's own 208 KiB (rmem_default) are too few for hundreds at
// once where whoever reads has to wait for a processor.
const trapRoom = 16 << 20

// TrapSink returns a socket to receive notifications at. For root it loses none
// of a few thousand that nobody has read yet. It is closed when the test ends.
func TrapSink(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	raw, err := c.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, trapRoom)
		})
		err = errors.Join(cerr, err)
	}
	if errors.Is(err, unix.EPERM) {
		err = c.SetReadBuffer(trapRoom) // what the host allows (rmem_max)
	}
	if err != nil {
		t.Fatalf("room for notifications: %v", err)
	}
	return c
}
