package e2e

import (
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

func TestMachineHasRealKVM(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	if !testenv.InLab() {
		return
	}
	b, err := os.ReadFile("/sys/module/kvm_amd/parameters/npt")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(b)); got != "Y" && got != "1" {
		t.Errorf("nested paging is %q: guests would take minutes", got)
	}
}

// Each of these loads a module: autoload works, also from a namespace.
func TestMachineHasStockNetworking(t *testing.T) {
	testenv.StockKernel(t)
	testenv.NetNS(t)
	ip := testenv.Tool(t, "ip")
	for _, args := range []string{
		"link add red type vrf table 10",
		"link add br0 type bridge vlan_filtering 1",
		"link add v0 type veth peer name v1",
		"link add link v0 name v0.7 type vlan id 7",
		"tuntap add t0 mode tap",
		"link set t0 master br0",
		"link set br0 master red",
	} {
		if out, err := exec.Command(ip, strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Errorf("ip %s: %v: %s", args, err, out)
		}
	}
}

func TestMachineHasSNMP(t *testing.T) {
	testenv.NetNS(t)
	m := testenv.Snmpd(t)
	vars := harness.Walk(t, m, ".1.3.6.1.2.1.1.3")
	if len(vars) != 1 || vars[0].Type != "TimeTicks" {
		t.Errorf("walk of sysUpTime = %+v", vars)
	}
	m.Restart()
	if v := harness.Get(t, m, ".1.3.6.1.2.1.1.3.0"); v.Type != "TimeTicks" {
		t.Errorf("sysUpTime.0 = %+v", v)
	}
}

func TestMachineHasUsers(t *testing.T) {
	for name, groups := range map[string][]string{
		"_vmd": {"_vmd"}, "_agentx": {"_agentx"},
		"alice": {"alice", "ops", "vmd"}, "bob": {"bob", "vmd"}, "carol": {"carol"},
	} {
		u, err := user.Lookup(name)
		if err != nil {
			t.Error(err)
			continue
		}
		ids, err := u.GroupIds()
		if err != nil {
			t.Error(err)
			continue
		}
		var got []string
		for _, id := range ids {
			g, err := user.LookupGroupId(id)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, g.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, groups) {
			t.Errorf("groups of %s = %q, want %q", name, got, groups)
		}
	}
}

func TestMachineHasGuests(t *testing.T) {
	for name, magic := range map[string]string{
		lab.GuestVMLinux: "\x7fELF", lab.GuestBzImage: "MZ", lab.GuestInitrd: "070701",
	} {
		b := make([]byte, len(magic))
		f, err := os.Open(harness.Guest(t, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := f.Read(b); err != nil || string(b) != magic {
			t.Errorf("%s begins with %q, %v; want %q", name, b, err, magic)
		}
		f.Close()
	}
}

// result matches the line that ends one test at the top level, and attr one
// that says which tier it found.
var (
	result = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+)`)
	attr   = regexp.MustCompile(`(?m)^=== ATTR +(\S+) ` + testenv.TierAttr + ` (\S+)`)
)

// TestPackages runs the tests of lab.Packages in this machine, each as a
// subtest of its own name.
func TestPackages(t *testing.T) {
	for binary := range strings.FieldsSeq(os.Getenv(lab.PackagesVar)) {
		dir := path.Dir(binary)
		t.Run(strings.TrimPrefix(dir, "/src/"), func(t *testing.T) {
			cmd := exec.Command(binary, "-test.v")
			cmd.Dir = filepath.Clean(dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			tiers := make(map[string][]string)
			for _, a := range attr.FindAllSubmatch(out, -1) {
				name, _, _ := strings.Cut(string(a[1]), "/")
				tiers[name] = append(tiers[name], string(a[2]))
			}
			found := result.FindAllSubmatch(out, -1)
			if len(found) == 0 {
				t.Error("no test ran")
			}
			for _, r := range found {
				t.Run(string(r[2]), func(t *testing.T) {
					for _, tier := range tiers[t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]] {
						t.Attr(testenv.TierAttr, tier)
					}
					switch string(r[1]) {
					case "FAIL":
						t.Fail()
					case "SKIP":
						t.SkipNow()
					}
				})
			}
		})
	}
}
