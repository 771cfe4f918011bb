package testenv

import (
	"net"
	"os"
	"testing"
	"time"
)

func interfaces(t *testing.T) []string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

func TestNetNSIsFresh(t *testing.T) {
	ns := NetNS(t)
	if got := interfaces(t); len(got) != 1 || got[0] != "lo" {
		t.Fatalf("interfaces = %q, want only lo", got)
	}
	l, err := net.Listen("tcp", "127.0.0.1:7")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() error {
		c, err := net.DialTimeout("tcp", "127.0.0.1:7", 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := ns.Do(dial); err != nil {
		t.Errorf("dial inside: %v", err)
	}
	if err := NewNamespace(t).Do(dial); err == nil {
		t.Error("dial from another namespace got through")
	}
}

func TestSnmpdRestarts(t *testing.T) {
	NetNS(t)
	m := Snmpd(t)
	for _, end := range []func(){m.Stop, m.Kill} {
		end()
		if c, err := net.Dial("unix", m.Socket); err == nil {
			c.Close()
			t.Fatal("AgentX socket answers after the end of snmpd")
		}
		m.Start()
		c, err := net.Dial("unix", m.Socket)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if _, err := os.Stat(m.Dir); err != nil {
		t.Error(err)
	}
}

func TestKVM(t *testing.T) {
	KVM(t)
	if RealKVM() && !realKVM("/sys/module") {
		t.Error("real KVM without its module")
	}
}
