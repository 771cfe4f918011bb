package mib

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vmd/internal/testenv"
)

// names are the objects of VM-MIB below vmMIB.
var names = map[string]string{
	"vmHvSoftware": "1.1.1", "vmHvVersion": "1.1.2", "vmHvObjectID": "1.1.3", "vmHvUpTime": "1.1.4",
	"vmNumber": "1.2", "vmTableLastChange": "1.3",
	"vmName": "1.4.1.2", "vmUUID": "1.4.1.3", "vmOSType": "1.4.1.4", "vmAdminState": "1.4.1.5",
	"vmOperState": "1.4.1.6", "vmAutoStart": "1.4.1.7", "vmPersistent": "1.4.1.8",
	"vmCurCpuNumber": "1.4.1.9", "vmMinCpuNumber": "1.4.1.10", "vmMaxCpuNumber": "1.4.1.11",
	"vmMemUnit": "1.4.1.12", "vmCurMem": "1.4.1.13", "vmMinMem": "1.4.1.14", "vmMaxMem": "1.4.1.15",
	"vmUpTime": "1.4.1.16", "vmCpuTime": "1.4.1.17",
	"vmCpuCoreTime": "1.5.1.2", "vmCpuAffinity": "1.6.1.3",
	"vmStorageParent": "1.7.1.3", "vmStorageSourceType": "1.7.1.4", "vmStorageSourceTypeString": "1.7.1.5",
	"vmStorageResourceID": "1.7.1.6", "vmStorageAccess": "1.7.1.7", "vmStorageMediaType": "1.7.1.8",
	"vmStorageMediaTypeString": "1.7.1.9", "vmStorageSizeUnit": "1.7.1.10",
	"vmStorageDefinedSize": "1.7.1.11", "vmStorageAllocatedSize": "1.7.1.12",
	"vmStorageReadIOs": "1.7.1.13", "vmStorageWriteIOs": "1.7.1.14",
	"vmStorageReadOctets": "1.7.1.15", "vmStorageWriteOctets": "1.7.1.16",
	"vmStorageReadLatency": "1.7.1.17", "vmStorageWriteLatency": "1.7.1.18",
	"vmNetworkIfIndex": "1.8.1.2", "vmNetworkParent": "1.8.1.3", "vmNetworkModel": "1.8.1.4",
	"vmNetworkPhysAddress":        "1.8.1.5",
	"vmPerVMNotificationsEnabled": "1.9", "vmBulkNotificationsEnabled": "1.10",
}

// indexes are objects that name a row and have no value.
var indexes = []string{"vmIndex", "vmCpuIndex", "vmStorageVmIndex", "vmStorageIndex", "vmNetworkIndex"}

func TestNamesAreAllObjects(t *testing.T) {
	if len(names) != len(vmMIB.objects) {
		t.Errorf("%d names, %d objects", len(names), len(vmMIB.objects))
	}
	for name, arcs := range names {
		if !slices.ContainsFunc(vmMIB.objects, func(o object) bool { return dotted(o.arcs) == arcs }) {
			t.Errorf("%s: there is no object %s", name, arcs)
		}
	}
}

const monitoring = "../etc/monitoring"

func monitoringFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(monitoring, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An OID of ours in a file for others is an object, a table, or an instance.
func TestMonitoringOIDs(t *testing.T) {
	ours := regexp.MustCompile(`1\.3\.6\.1\.(2\.1\.236|4\.1\.6876\.2\.1)((?:\.\d+)*)`)
	files, err := filepath.Glob(monitoring + "/*")
	if err != nil || len(files) < 5 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		found := ours.FindAllStringSubmatch(monitoringFile(t, filepath.Base(file)), -1)
		if len(found) == 0 && filepath.Base(file) != "alerts.yml" {
			t.Errorf("%s: no OID of ours", file)
		}
		for _, m := range found {
			rest := strings.TrimPrefix(m[2], ".")
			if m[1] == "2.1.236" && !isObject(rest) {
				t.Errorf("%s: %s is no object, table or instance", file, m[0])
			}
		}
	}
}

// isObject: rest is "" or a table, a column, or a scalar with or without .0.
func isObject(rest string) bool {
	for _, o := range vmMIB.objects {
		arcs := dotted(o.arcs)
		if rest == "" || rest == arcs || strings.HasPrefix(arcs, rest+".") || o.table == scalars && rest == arcs+".0" {
			return true
		}
	}
	return false
}

// Where a file gives a name to an OID, it is the MIB's.
func TestMonitoringNames(t *testing.T) {
	const oid = `['"]?\.?1\.3\.6\.1\.2\.1\.236\.([\d.]+?)`
	for file, c := range map[string]struct {
		pattern string
		pairs   int // at least
	}{
		"snmp_exporter.yml": {`name: (vm\w+)\n\s+oid: ` + oid + `\n`, 60},
		"telegraf.conf":     {`name = "(vm\w+)"\n\s+oid = ` + oid + `(?:\.0)?"`, 20},
		"zabbix.yml":        {`()snmp_oid: ` + oid + `(?:\.0|\.\{#SNMPINDEX\})'\n\s+key: '(vm\w+)`, 20},
	} {
		found := regexp.MustCompile(c.pattern).FindAllStringSubmatch(monitoringFile(t, file), -1)
		if len(found) < c.pairs {
			t.Errorf("%s: %d names, want %d at least", file, len(found), c.pairs)
		}
		for _, m := range found {
			name := m[1]
			if name == "" {
				name = m[3]
			}
			if names[name] != m[2] {
				t.Errorf("%s: %s is said to be %s, but is %s", file, name, m[2], names[name])
			}
		}
	}
}

// Alerts speak of metrics and labels that the exporter's module makes.
func TestAlertNames(t *testing.T) {
	module := monitoringFile(t, "snmp_exporter.yml")
	used := regexp.MustCompile(`\b(?:vm[A-Z]|hr)\w+`).FindAllString(monitoringFile(t, "alerts.yml"), -1)
	if len(used) < 10 {
		t.Fatalf("the alerts use %q", used)
	}
	for _, name := range used {
		made := strings.Contains(module, "name: "+name+"\n")
		if !made && !slices.Contains(indexes, name) {
			t.Errorf("alerts.yml uses %s, which snmp_exporter.yml does not make", name)
		}
	}
}

// Prometheus takes the alerts, and each goes off when it should and not before.
func TestAlerts(t *testing.T) {
	promtool := testenv.Tool(t, "promtool")
	dir := t.TempDir()
	for from, name := range map[string]string{
		filepath.Join(monitoring, "alerts.yml"): "alerts.yml",
		"testdata/alerts_test.yml":              "alerts_test.yml",
	} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// The UUIDs of a Zabbix template are version 4, and each is there once.
func TestZabbixUUIDs(t *testing.T) {
	text := monitoringFile(t, "zabbix.yml")
	all := regexp.MustCompile(`uuid: (\w+)`).FindAllStringSubmatch(text, -1)
	form := regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`)
	seen := make(map[string]bool)
	for _, m := range all {
		if !form.MatchString(m[1]) || seen[m[1]] {
			t.Errorf("uuid %s is not of version 4, or there twice", m[1])
		}
		seen[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`(?s)name: '(VirtualMachine\w+)'\s+mappings:(.*?)(?:- uuid|$)`).FindAllStringSubmatch(text, -1) {
		values := regexp.MustCompile(`value: '(\d+)'`).FindAllStringSubmatch(m[2], -1)
		if want := map[string]int{"VirtualMachineAdminState": 4, "VirtualMachineOperState": 12}[m[1]]; len(values) != want {
			t.Errorf("%s has %d values, want %d", m[1], len(values), want)
		}
		for i, v := range values {
			if v[1] != strconv.Itoa(i+1) {
				t.Errorf("%s: value %s is at place %d", m[1], v[1], i+1)
			}
		}
	}
}
