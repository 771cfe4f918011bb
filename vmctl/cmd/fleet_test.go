package cmd

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmd/vmctl/fleet/fleettest"
)

// silentHost is where nobody answers, which is known to those who ask: others
// may take their time.
const silentHost = "127.0.0.2"

// fleetRun runs vmctl with credentials for fleettest's agents.
func fleetRun(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "snmp.conf")
	text := "version 2c\ncommunity " + fleettest.Community + "\ntimeout 60\nhost " + silentHost + "\ntimeout 1\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errw bytes.Buffer
	status = Main(append([]string{"--snmp-config", conf}, args...), strings.NewReader(""), &out, &errw)
	return out.String(), errw.String(), status
}

func fleetAgent(t *testing.T, vms ...fleettest.VM) string {
	t.Helper()
	a, err := fleettest.New(100, fleettest.Table(vms...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a.Addr
}

func TestFleetStatus(t *testing.T) {
	a := fleetAgent(t, fleettest.VM{Name: "off", Admin: 4, Oper: 11}, fleettest.VM{Name: "web", Admin: 1, Oper: 4, Ticks: 900})
	b := fleetAgent(t, fleettest.VM{Name: "bad", Admin: 1, Oper: 12})
	out, errs, status := fleetRun(t, "-H", a+","+b, "status")
	width := max(len(a), len(b))
	line := func(host, rest string) string { return host + strings.Repeat(" ", width-len(host)) + " " + rest + "\n" }
	want := line("HOST", "   ID   PID VCPUS  MAXMEM  CURMEM     TTY        OWNER    STATE NAME") +
		line(a, "    2     -     2    512M    512M       -            -  running web") +
		line(a, "    1     -     2    512M       -       -            -  stopped off") +
		line(b, "    1     -     2    512M       -       -            -  crashed bad")
	if out != want || errs != "" || status != 0 {
		t.Errorf("status %d, %s\n%s\nwant\n%s", status, errs, out, want)
	}
	for _, tt := range []struct {
		args   string
		names  string // last words of the lines
		status int
	}{
		{"-H " + a + " -H" + b + " status -r", "NAME web", 0},
		{"-vH" + a + " stat web", "NAME web", 0},
		{"-H " + a + "," + b + " show 1", "NAME off bad", 0},
		{"-H " + b + " status web", "NAME", 1},
	} {
		out, errs, status := fleetRun(t, strings.Fields(tt.args)...)
		var names []string
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			names = append(names, f[len(f)-1])
		}
		if got := strings.Join(names, " "); got != tt.names || status != tt.status || errs != "" {
			t.Errorf("%s: %q, status %d, %s", tt.args, got, status, errs)
		}
	}
}

// A host that is down is a line of its own, and the others are shown.
func TestFleetWithAHostDown(t *testing.T) {
	silent, err := net.ListenPacket("udp4", silentHost+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	down, up := silent.LocalAddr().String(), fleetAgent(t, fleettest.VM{Name: "web", Admin: 1, Oper: 4, Ticks: 900})
	out, errs, status := fleetRun(t, "-H", down+","+up, "status")
	if want := "vmctl: " + down + ": no answer within 1s\n"; errs != want || status != 1 || !strings.Contains(out, " running web\n") {
		t.Errorf("status %d, %s, want %s\n%s", status, errs, want, out)
	}
	out, _, status = fleetRun(t, "-H", down+","+up, "status", "--json")
	if before, _, _ := fleetRun(t, "--json", "-H", down+","+up, "status"); before != out {
		t.Errorf("--json before the command: %s, and behind it: %s", before, out)
	}
	var got jsonFleet
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Hosts) != 2 || got.Hosts[0].Error != "no answer within 1s" || len(got.Hosts[0].VMs) != 0 ||
		len(got.Hosts[1].VMs) != 1 || got.Hosts[1].VMs[0].Uptime != 9 || got.Hosts[1].VMs[0].State != "running" || status != 1 {
		t.Errorf("status %d: %s", status, out)
	}
}

func TestFleetArguments(t *testing.T) {
	for args, want := range map[string]string{
		"-H h start web":               "other hosts can only be asked for their status",
		"-H":                           "option requires an argument",
		"-H a,,b status":               `invalid host: ""`,
		"-H a/b status":                `invalid host: "a/b"`,
		"-H h status a b":              "[-r] [id]",
		"-H h status -x":               "unknown option -- x",
		"--snmp-config=/none -H h sta": "ambiguous argument",
		"--snmp-config=/none -Hh show": "/none: no such file",
	} {
		_, errs, status := fleetRun(t, strings.Fields(args)...)
		if status != 1 || !strings.Contains(strings.ToLower(errs), strings.ToLower(want)) {
			t.Errorf("%s: status %d, %q, want %q", args, status, errs, want)
		}
	}
}
