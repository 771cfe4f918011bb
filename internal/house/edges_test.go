package house

import (
	"strings"
	"testing"
)

// A rule forbids packages of this module to depend on others, through
// anybody, or only directly. Names are below the module, or whole import paths; one that
// ends in "/..." is for all below it too.
type rule struct {
	who    []string
	except []string // of who
	not    []string // what they must not depend on
	but    []string // of not
	direct bool
	why    string
}

// roles are the processes of vmd; only main knows all of them.
var roles = []string{"vmd/parent/...", "vmd/priv/...", "vmd/control/...", "vmd/vmm/...",
	"vmd/vm/...", "vmd/subagent/..."}

var libraries = []string{"hv/...", "net/...", "mib/...", "agentx/..."}

var machinery = []string{"hv/kvm/...", "hv/machine/...", "hv/virtio/...", "hv/pci/...", "hv/chipset/..."}

const netlink = "github.com/vishvananda/netlink/..."

var rules = []rule{
	{who: libraries, not: []string{"vmd/...", "vmctl/...", "internal/..."},
		but: []string{"internal/testenv", "internal/golden", "internal/scaled", "internal/notation"},
		why: "another program could use the libraries"},
	{who: libraries, direct: true, not: []string{"github.com/rs/zerolog/...", "log/slog", "log"},
		why: "a library returns errors, a role logs; those of others may be able to"},
	{who: []string{"internal/..."}, not: []string{"vmd/...", "vmctl/...", "agentx/...", "mib/...", "net/..."},
		why: "arrows point down"},
	{who: append([]string{"vmctl/..."}, roles...), except: []string{"vmd/vm/..."}, not: machinery,
		why: "what a guest reaches lives in its own process"},
	{who: append([]string{"vmctl/..."}, roles...), except: []string{"vmd/priv/..."}, not: []string{netlink, "net/vswitch/..."},
		why: "only priv changes the network"},
	{who: []string{"vmctl/..."}, not: []string{"vmd/...", "hv/...", "net/...", "mib/...", "agentx/...", "internal/..."},
		but: []string{"internal/vmop/...", "internal/imsg/...", "internal/scaled/...", "internal/notation", "internal/nearest", "hv/disk/...", "hv/state", "hv/mem"},
		why: "vmctl speaks to control, makes disks, and finds its way in the stream of a guest that moves"},
	{who: []string{"vmd/priv/...", "vmd/control/...", "vmd/vmm/...", "vmd/vm/..."},
		not: []string{"agentx/...", "mib/...", "vmd/config/..."},
		why: "only parent reads vm.conf, only subagent answers SNMP"},
	{who: []string{"vmd/parent/registry"}, direct: true,
		not: []string{"internal/imsg/...", "internal/privsep/...", "net", "os", "os/exec", "golang.org/x/sys/..."},
		why: "the registry is pure"},
	{who: []string{"hv/disk/...", "hv/mem/...", "hv/boot/...", "hv/state", "mib/...", "internal/vmop/...", "vmd/config/..."},
		not: []string{"os/exec", "net/http"},
		why: "parsers of foreign bytes start nothing"},
}

func TestImportRules(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, r := range rules {
			if !matches(p.ImportPath, r.who) || matches(p.ImportPath, r.except) {
				continue
			}
			deps := p.Deps
			if r.direct {
				deps = p.Imports
			}
			for _, dep := range deps {
				if matches(dep, r.not) && !matches(dep, r.but) {
					t.Errorf("%s depends on %s: %s\n\t(go list -deps ./%s)", local(p.ImportPath), local(dep), r.why, local(p.ImportPath))
				}
			}
		}
	}
}

func TestRolesDoNotMeet(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, own := range roles {
			if !matches(p.ImportPath, []string{own}) {
				continue
			}
			for _, dep := range p.Deps {
				if matches(dep, roles) && !matches(dep, []string{own}) {
					t.Errorf("%s depends on %s: roles send messages", local(p.ImportPath), local(dep))
				}
			}
		}
	}
}

// owners says which packages may import a module of somebody else, or a
// package of the standard library that opens a way out. One that is not here
// is not imported at all.
var owners = map[string][]string{
	"github.com/vishvananda/netlink":     {"net/vswitch/..."},
	"github.com/posteo/go-agentx":        {"agentx/..."},
	"github.com/spf13/cobra":             {"vmctl/cmd"},
	"github.com/spf13/pflag":             {"vmctl/cmd", "vmd"},
	"github.com/fxamacker/cbor":          {"internal/imsg", "hv/state"},
	"kernel.org/pub/linux/libs/security": {"internal/privsep", "internal/sandbox"},
	"golang.org/x/net/bpf":               {"internal/sandbox"},
	"github.com/coreos/go-systemd":       {"vmd"},
	"github.com/creack/pty":              {"vmd/parent", "e2e/harness"}, // a console for systemd
	"golang.org/x/term":                  {"vmctl/cmd"},
	"github.com/klauspost/compress":      {"hv/disk/...", "hv/state", "e2e/lab", "vmd/..."},
	"github.com/rs/zerolog":              {"internal/logging", "internal/privsep", "vmd/..."},
	"github.com/gosnmp/gosnmp":           {"e2e/harness", "vmctl/fleet/..."},
	"golang.org/x/sys":                   {"..."},
	"os/exec":                            {"internal/privsep", "vmd", "internal/testenv", "e2e/..."},
	"net/http":                           {},
	"plugin":                             {},
	"C":                                  {},
	"testing":                            {"internal/testenv", "internal/golden", "e2e/...", "hv/virtio/virtiotest"},
	"github.com/google/go-cmp":           {"internal/golden"},
	"github.com/rogpeppe/go-internal":    {},
	"go.uber.org/goleak":                 {},
	"pgregory.net/rapid":                 {},
}

func TestOwners(t *testing.T) {
	t.Parallel()
	imports := map[string]bool{}
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			name, known := owned(imported)
			imports[name] = true
			switch {
			case known && !matches(p.ImportPath, owners[name]):
				t.Errorf("%s imports %s; it is for %q", local(p.ImportPath), imported, owners[name])
			case !known && strings.Contains(imported, "."):
				t.Errorf("%s imports %s, which has no owner in this table", local(p.ImportPath), imported)
			}
		}
	}
	for name, who := range owners {
		if len(who) > 0 && !imports[name] {
			t.Errorf("%s is owned by %q, and nobody imports it", name, who)
		}
	}
}

// owned is the name that a package has in owners.
func owned(imported string) (name string, ok bool) {
	for name := imported; ; {
		if _, ok := owners[name]; ok {
			return name, true
		}
		// A major version is part of the path: cbor/v2, go-systemd/v22.
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return "", false
		}
		name = name[:i]
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		path, pattern string
		want          bool
	}{
		{"vmd/vmd/vm", "vmd/vm", true},
		{"vmd/vmd/vm", "vmd/vm/...", true},
		{"vmd/vmd/vmm", "vmd/vm/...", false},
		{"vmd/vmd", "vmd/...", true},
		{"vmd/vmd", "vmd", true},
		{"vmd/vmd/vm", "vmd", false},
		{"vmd/hv/kvm", "vmd/...", false},
		{"vmd/hv/kvm", "...", true},
		{"github.com/vishvananda/netlink/nl", netlink, true},
		{"net", "net/...", false},
		{"net/http", "net/...", false},
		{"vmd/net/tap", "net/...", true},
	} {
		if got := matches(tt.path, []string{tt.pattern}); got != tt.want {
			t.Errorf("matches(%q, %q) = %v", tt.path, tt.pattern, got)
		}
	}
}
