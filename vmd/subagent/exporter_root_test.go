package subagent

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmd/internal/testenv"
	"vmd/internal/vmop"
)

// oldModule makes of a module for snmp_exporter 0.23 one for older releases, as
// the file's head tells operators to. Debian 12 has 0.21.
func oldModule(text string) string {
	_, text, _ = strings.Cut(text, "modules:\n")
	return regexp.MustCompile(`(?m)^  `).ReplaceAllString(text, "") + "  version: 2\n  auth: {community: private}\n"
}

// Prometheus' own exporter reads a host with the module of etc/monitoring.
func TestExporter(t *testing.T) {
	exporter := testenv.Tool(t, "prometheus-snmp-exporter")
	text, err := os.ReadFile("../../etc/monitoring/snmp_exporter.yml")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, vmop.SNMPConfig{Enabled: true})
	stopped := named(9, "db")
	stopped.State, stopped.Admin = vmop.Stopped, vmop.AdminShutdown
	h.begin(named(3, "web"), stopped)
	h.await("1.2.0=2")
	got := scrape(t, exporter, oldModule(string(text)), h.snmpd.Addr)
	for _, want := range []string{
		`vmNumber 2`,
		`vmOperState{vmIndex="3",vmName="web",vmUUID="0x00000000000000000000000000000003"} 4`,
		`vmOperState{vmIndex="9",vmName="db",vmUUID="0x00000000000000000000000000000009"} 11`,
		`vmAdminState{vmIndex="9",vmName="db"} 4`,
		`vmCurCpuNumber{vmIndex="3",vmName="web"} 2`,
		`vmCpuCoreTime{vmCpuIndex="1",vmIndex="3",vmName="web"} 0`,
		`vmStorageReadOctets{vmName="web",vmStorageIndex="1",vmStorageResourceID="/var/vm/web.qcow2",vmStorageVmIndex="3"} 3`,
		`vmNetworkIfIndex{vmIndex="3",vmName="web",vmNetworkIndex="1",vmNetworkPhysAddress="02:00:00:00:00:01"} 17`,
	} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// scrape asks an exporter that has module for the metrics of target.
func scrape(t *testing.T, exporter, module, target string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "snmp.yml")
	if err := os.WriteFile(file, []byte(module), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(exporter, "--config.file="+file, "--web.listen-address="+addr)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("exporter:\n%s", log.String())
		}
	}()
	from := "http://" + addr + "/snmp?module=vm_mib&target=" + url.QueryEscape(target)
	client := http.Client{Timeout: 30 * time.Second}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r, err := client.Get(from)
		if err != nil {
			if time.Now().After(end) {
				t.Fatal(err)
			}
			continue // it does not listen yet
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v\n%s", r.Status, err, b)
		}
		return "\n" + string(b)
	}
}
