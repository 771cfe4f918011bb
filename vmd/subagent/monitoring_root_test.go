package subagent

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"vmd/internal/testenv"
	"vmd/internal/vmop"
)

// What the files for Zabbix and Telegraf ask for is there, when net-snmp's own
// tools ask a real snmpd for it.
func TestMonitoringFilesFindTheirObjects(t *testing.T) {
	walk := testenv.Tool(t, "snmpbulkwalk")
	h := newHost(t, vmop.SNMPConfig{Enabled: true})
	h.begin(named(3, "web"))
	h.await("1.2.0=1")
	var all []string
	for line := range strings.SplitSeq(output(t, walk, "-v2c", "-c", h.snmpd.ReadOnly, "-On", "-Oq", "-t", "20", h.snmpd.Addr, vmMIB), "\n") {
		name, _, _ := strings.Cut(line, " ")
		all = append(all, name)
	}
	oid := regexp.MustCompile(`\.?1\.3\.6\.1\.2\.1\.236(?:\.\d+)+`)
	for _, name := range []string{"zabbix.yml", "telegraf.conf"} {
		text, err := os.ReadFile("../../etc/monitoring/" + name)
		if err != nil {
			t.Fatal(err)
		}
		asked := oid.FindAllString(string(text), -1)
		if len(asked) < 20 {
			t.Errorf("%s asks for %q only", name, asked)
		}
		for _, o := range asked {
			o = "." + strings.TrimPrefix(o, ".")
			if !found(all, o) {
				t.Errorf("%s asks for %s, which there is not", name, o)
			}
		}
	}
}

// found: a name is o, or an instance of it.
func found(names []string, o string) bool {
	for _, n := range names {
		if n == o || strings.HasPrefix(n, o+".") {
			return true
		}
	}
	return false
}

// output runs a tool with net-snmp's environment for tests.
func output(t *testing.T, tool string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "MIBS=", "MIBDIRS="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}
