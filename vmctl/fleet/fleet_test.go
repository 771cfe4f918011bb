package fleet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vmd/vmctl/fleet/fleettest"
)

func agent(t *testing.T, max int, vars ...fleettest.Var) *fleettest.Agent {
	t.Helper()
	a, err := fleettest.New(max, vars...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// quick is a Config for an Agent: its time limit is to be short where nobody
// answers.
func quick(limit time.Duration) *Config {
	return &Config{settings: []setting{{apply: func(c *Credentials) {
		c.Version, c.Community, c.Timeout = "2c", fleettest.Community, limit
	}}}}
}

func machines(n int) (vms []fleettest.VM) {
	for i := range n {
		vms = append(vms, fleettest.VM{Name: fmt.Sprint("vm", i+1), Admin: 4, Oper: operShutdown})
	}
	return vms
}

func TestAsk(t *testing.T) {
	one := agent(t, 100, fleettest.Table(
		fleettest.VM{Name: "off", Admin: 4, Oper: operShutdown},
		fleettest.VM{Name: "young", Admin: 1, Oper: operRunning, Ticks: 100},
		fleettest.VM{Name: "old\x1b[2J\n", Admin: 1, Oper: operRunning, Ticks: 500},
		fleettest.VM{Name: "later", Admin: 1, Oper: operShutdown},
	)...)
	many := agent(t, 7, fleettest.Table(machines(100)...)...) // TooBig for what is asked at first
	none := agent(t, 100, fleettest.Table()...)
	got := Ask(context.Background(), quick(time.Minute), []string{one.Addr, many.Addr, none.Addr})
	if len(got) != 3 || got[0].Host != one.Addr || got[1].Host != many.Addr {
		t.Fatalf("answers %+v", got)
	}
	row := func(id uint32, name string, admin, oper int32, alive bool, up time.Duration) VM {
		v := VM{ID: id, Name: name, UUID: [16]byte{15: byte(id)}, Admin: admin, Oper: oper, Autostart: true, Persistent: true,
			CPUs: 2, Memory: 512 << 20, Uptime: up, CPUTime: 1500 * time.Millisecond}
		if alive {
			v.Allocated = 512 << 20
		}
		return v
	}
	want := []VM{
		row(3, "old?[2J?", 1, operRunning, true, 5*time.Second), row(2, "young", 1, operRunning, true, time.Second),
		row(1, "off", 4, operShutdown, false, 0), row(4, "later", 1, operShutdown, false, 0),
	}
	if d := cmp.Diff(want, got[0].VMs); d != "" || got[0].Err != nil {
		t.Errorf("%v, VMs (-want +got):\n%s", got[0].Err, d)
	}
	if got[0].VMs[3].State() != "waiting" || got[0].VMs[2].State() != "stopped" || got[0].VMs[0].State() != "running" {
		t.Errorf("states of %+v", got[0].VMs)
	}
	if len(got[1].VMs) != 100 || got[1].VMs[99].Name != "vm100" || got[1].Err != nil {
		t.Errorf("%d VMs of 100, %v", len(got[1].VMs), got[1].Err)
	}
	if len(got[2].VMs) != 0 || got[2].Err != nil {
		t.Errorf("an empty host: %v, %v", got[2].VMs, got[2].Err)
	}
}

// What is wrong with one host is that host's answer.
func TestAskInVain(t *testing.T) {
	good := agent(t, 100, fleettest.Table(machines(1)...)...)
	noMIB := agent(t, 100)
	circle := agent(t, 100, append(fleettest.Table(machines(1)...),
		fleettest.Var{OID: ".1.3.6.1.2.1.236.1.4.1.2.1", Type: fleettest.OctetString, Value: "again"})...)
	failing := agent(t, 100, fleettest.Table(machines(1)...)...)
	failing.Fail(5)
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	junk, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer junk.Close()
	go func() {
		b := make([]byte, 2000)
		for {
			_, from, err := junk.ReadFrom(b)
			if err != nil {
				return
			}
			junk.WriteTo([]byte("\x30\x84\xff\xff\xff\xff\x02\x01\x01"), from)
		}
	}()
	for host, want := range map[string]string{
		good.Addr:                   "",
		noMIB.Addr:                  "does not show",
		circle.Addr:                 "circles",
		failing.Addr:                "GenErr",
		silent.LocalAddr().String(): "no answer within 300ms",
		junk.LocalAddr().String():   "", // any error
		"127.0.0.1:0":               "port",
		"127.0.0.1:port":            "port",
		"no-such-host.invalid":      "no",
	} {
		limit := time.Minute
		if host == silent.LocalAddr().String() || host == junk.LocalAddr().String() {
			limit = 300 * time.Millisecond
		}
		got := Ask(context.Background(), quick(limit), []string{host})[0]
		if (got.Err == nil) != (host == good.Addr) || !strings.Contains(fmt.Sprint(got.Err), want) {
			t.Errorf("%s: %v, want %q", host, got.Err, want)
		}
	}
}

func TestConfig(t *testing.T) {
	c, err := parse(`# all hosts
user monitor
auth sha256  a long password
privacy aes another one
context vms

host *.old.example.org 10.0.0.?
version 2c
community public words
port 1161
host b.old.example.org
timeout 30
`)
	if err != nil {
		t.Fatal(err)
	}
	v3 := Credentials{Version: "3", User: "monitor", AuthProtocol: "sha256", AuthPassword: "a long password",
		PrivProtocol: "aes", PrivPassword: "another one", Context: "vms", Port: 161, Timeout: DefaultTimeout}
	old := v3
	old.Version, old.Community, old.Port = "2c", "public words", 1161
	slow := old
	slow.Timeout = 30 * time.Second
	for host, want := range map[string]Credentials{
		"new.example.org": v3, "a.old.example.org": old, "10.0.0.7": old, "b.old.example.org": slow, "10.0.0.77": v3,
	} {
		got := c.For(host)
		if got != want || got.check() != nil {
			t.Errorf("%s: %+v, %v; want %+v", host, got, got.check(), want)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		"user":                      `1: "user" has no value`,
		"\n\nusername x":            `3: unknown word "username"`,
		"version 1":                 `version "1"`,
		"auth md5 a long password":  `unknown protocol "md5"`,
		"auth sha short":            "8 characters",
		"privacy des long password": `unknown protocol "des"`,
		"port 0":                    "port", "port 65536": "port", "port x": "port",
		"timeout 0": "timeout", "timeout 301": "timeout", "timeout 1s": "timeout",
		"host [":                         "no pattern",
		strings.Repeat("#\n", maxConfig): "longer than",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                                 "no user",
		"version 2c":                       "no community",
		"user a\nprivacy aes longpassword": "no auth",
	} {
		c, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		cred := c.For("h")
		if err := cred.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestLoadWantsPrivacy(t *testing.T) {
	name := filepath.Join(t.TempDir(), "snmp.conf")
	if err := os.WriteFile(name, []byte("user x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name); err != nil {
		t.Errorf("mode 0600: %v", err)
	}
	for mode, want := range map[os.FileMode]string{0o640: "make it 0600", 0o604: "make it 0600", 0o620: "make it 0600"} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := Load(filepath.Dir(name)); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Load(name + "x"); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(name, []byte("user x\nbad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "snmp.conf:2: ") {
		t.Errorf("a mistake: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("host *\nversion 3\nuser u\nauth sha256 12345678\nprivacy aes 12345678\ncontext c\nport 1\ntimeout 2\n", "h")
	f.Add("# x\nversion 2c\ncommunity a b\nhost [a-z]* ?\\\n", "a")
	f.Fuzz(func(t *testing.T, text, host string) {
		c, err := parse(text)
		if err != nil {
			return
		}
		cred := c.For(host)
		if cred.Port == 0 || cred.Timeout <= 0 || cred.Version != "2c" && cred.Version != "3" {
			t.Errorf("%+v", cred)
		}
	})
}

// A table says nothing that does not fit a VM, whatever is in it.
func FuzzRows(f *testing.F) {
	f.Add(".1.3.6.1.2.1.236.1.4.1.6.1", int64(4), []byte("web"))
	f.Add(".1.3.6.1.2.1.236.1.4.1.15.2147483647", int64(-1), []byte{0xff, 0x1b})
	f.Fuzz(func(t *testing.T, name string, n int64, b []byte) {
		i, ok := parseName(name)
		if !ok {
			return
		}
		var r rows
		r.add(instance{2, i.index}, []byte("x"))
		r.add(instance{6, i.index}, int(4))
		for column := range 20 {
			for _, v := range []any{int(n), uint(n), uint32(n), uint64(n), b, string(b), nil} {
				r.add(instance{column, i.index}, v)
				r.add(i, v)
			}
		}
		for _, v := range r.vms() {
			if v.ID == 0 || v.Uptime < 0 || v.CPUTime < 0 || v.CPUs < 0 || len(v.Name) > 3*maxName ||
				strings.ContainsAny(v.Name, "\n\r\x1b\t") || v.State() == "" {
				t.Errorf("%+v", v)
			}
		}
	})
}
