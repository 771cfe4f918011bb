package testenv

import (
	"bytes"
	"fmt"
	"math/rand/v2"
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

// MasterAgent is a real snmpd that serves AgentX on private paths.
type MasterAgent struct {
	Socket string // path of the AgentX socket
	Addr   string // host:port of its UDP address
	Dir    string // its private folder, for sockets of the test too

	// ReadOnly and ReadWrite are the community names for SNMPv2c.
	ReadOnly, ReadWrite string

	t   testing.TB
	bin string

	mu   sync.Mutex
	log  bytes.Buffer
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd was waited for
}

// snmpdPatience bounds the wait for snmpd to answer; on a slow machine it
// takes a second.
const snmpdPatience = 30 * time.Second

// Snmpd needs net-snmp's snmpd (T1). It starts one in the test's network
// namespace, with private paths and port, and waits until it answers. Lines
// are added to its configuration, as "trap2sink 127.0.0.1:2162 public". It is
// killed when the test ends; a failed test shows its log.
func Snmpd(t testing.TB, lines ...string) *MasterAgent {
	t.Helper()
	bin, err := LookTool("snmpd")
	if err != nil {
		missing(t, []string{"T1", "snmpd"}, "needs snmpd: %v", err)
	}
	found(t, "T1")
	// A short path: a Unix socket's name has 107 bytes at most (unix(7)).
	dir, err := os.MkdirTemp("", "snmpd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m := &MasterAgent{
		t: t, bin: bin, Dir: dir,
		Socket:   filepath.Join(dir, "agentx"),
		ReadOnly: "public", ReadWrite: "private",
	}
	if m.Addr, err = freeUDP(); err != nil {
		t.Fatal(err)
	}
	conf := m.config(lines)
	if err := os.WriteFile(filepath.Join(dir, "snmpd.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			t.Logf("snmpd:\n%s", m.Log())
		}
	})
	m.Start()
	return m
}

func (m *MasterAgent) config(lines []string) string {
	return strings.Join(append([]string{
		"agentAddress udp:" + m.Addr,
		"master agentx",
		"agentXSocket unix:" + m.Socket,
		"agentXPerms 0777 0755",
		"rocommunity " + m.ReadOnly,
		"rwcommunity " + m.ReadWrite,
	}, lines...), "\n") + "\n"
}

// Start starts the agent after Stop or Kill, on the same socket and address,
// and waits until it answers.
func (m *MasterAgent) Start() {
	m.t.Helper()
	// A socket left by Kill would look like a master that is there.
	os.Remove(m.Socket)
	cmd := exec.Command(m.bin, "-f", "-Lo", "-C", "-c", filepath.Join(m.Dir, "snmpd.conf"))
	// The persistent folder is another: at its end snmpd writes a file
	// snmpd.conf there.
	cmd.Env = append(os.Environ(), "MIBS=", "MIBDIRS="+m.Dir,
		"SNMP_PERSISTENT_DIR="+filepath.Join(m.Dir, "state"))
	cmd.Stdout, cmd.Stderr = (*logWriter)(m), (*logWriter)(m)
	if err := cmd.Start(); err != nil {
		m.t.Fatalf("start snmpd: %v", err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	m.cmd, m.done = cmd, done
	if err := m.awaitAnswer(); err != nil {
		m.t.Fatalf("snmpd on %s: %v\n%s", m.Addr, err, m.Log())
	}
}

// Stop ends the agent in good order (SIGTERM) and waits for it.
func (m *MasterAgent) Stop() { m.end(unix.SIGTERM) }

// Kill ends the agent as a crash would (SIGKILL) and waits for it.
func (m *MasterAgent) Kill() { m.end(unix.SIGKILL) }

// Signal sends a signal to the agent, as one that suspends it.
func (m *MasterAgent) Signal(sig unix.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(sig); err != nil {
		m.t.Fatalf("send %v to snmpd: %v", sig, err)
	}
}

// Restart is Stop and Start.
func (m *MasterAgent) Restart() {
	m.t.Helper()
	m.Stop()
	m.Start()
}

func (m *MasterAgent) end(sig unix.Signal) {
	if m.cmd == nil {
		return
	}
	m.cmd.Process.Signal(sig)
	select {
	case <-m.done:
	case <-time.After(snmpdPatience):
		m.cmd.Process.Kill()
		<-m.done
	}
	m.cmd = nil
}

// Log returns what the agent wrote so far.
func (m *MasterAgent) Log() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.String()
}

type logWriter MasterAgent

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

// sysUpTimeGet is an SNMPv2c GetRequest of sysUpTime.0 for the community
// "public" (RFC 3416, 3), written out so that this package needs no SNMP.
const sysUpTimeGet = "\x30\x26\x02\x01\x01\x04\x06public" +
	"\xa0\x19\x02\x01\x01\x02\x01\x00\x02\x01\x00" +
	"\x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x03\x00\x05\x00"

// awaitAnswer asks until the agent answers and its AgentX socket is there.
func (m *MasterAgent) awaitAnswer() error {
	conn, err := net.Dial("udp", m.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, 1500)
	for end := time.Now().Add(snmpdPatience); time.Now().Before(end); {
		select {
		case <-m.done:
			return fmt.Errorf("ended at once: %v", m.cmd.ProcessState)
		default:
		}
		// A port nobody listens on yet is an error at once: the wait
		// below is then the pace of the questions.
		conn.Write([]byte(sysUpTimeGet))
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(buf); err == nil {
			if _, err := os.Stat(m.Socket); err == nil {
				return nil
			}
		} else {
			time.Sleep(10 * time.Millisecond)
		}
	}
	return fmt.Errorf("no answer in %v", snmpdPatience)
}

// freeUDP returns an address on 127.0.0.1 that nobody uses now. Its port is none
// that the kernel gives to sockets that ask for any (ip_local_port_range, ip(7)):
// one of those could have it before the program that it is for.
func freeUDP() (string, error) {
	const first, count = 10000, 20000
	for try := 0; ; try++ {
		c, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(count)))
		if err == nil {
			defer c.Close()
			return c.LocalAddr().String(), nil
		}
		if try == 100 {
			return "", fmt.Errorf("find a free port: %w", err)
		}
	}
}
