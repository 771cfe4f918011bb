package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmd/internal/golden"
)

// generated are golden files without a .conf: what they load is long and
// simple, or lies in several files or on the command line.
var generated = map[string]func(load func(files map[string]string, opt Options) string) string{
	"generated_depth": func(load func(map[string]string, Options) string) string {
		text := map[string]string{"t": "include f2\n"}
		for i := 2; i <= maxDepth; i++ {
			text[fmt.Sprint("f", i)] = fmt.Sprintf("include f%d\n", i+1)
		}
		text[fmt.Sprint("f", maxDepth+1)] = "switch deep { interface bridge0 }\n"
		out := load(text, options())
		text["t"] = "include f3\n"
		return out + load(text, options())
	},
	"generated_files": func(load func(map[string]string, Options) string) string {
		text := map[string]string{"leaf": "", "t": strings.Repeat("include leaf\n", maxFiles)}
		out := load(text, options())
		text["t"] = strings.Repeat("include leaf\n", maxFiles-1)
		return out + load(text, options())
	},
	"generated_bytes": func(load func(map[string]string, Options) string) string {
		out := load(map[string]string{"t": strings.Repeat("#", maxBytes+1)}, options())
		return out + load(map[string]string{"t": strings.Repeat("#", maxBytes)}, options())
	},
	"generated_expansion": func(load func(map[string]string, Options) string) string {
		const value = 8000
		text := "a=\"" + strings.Repeat("\t", value) + "\"\n"
		return load(map[string]string{"t": text + strings.Repeat("$a", maxBytes/value)}, options())
	},
	"generated_messages": func(load func(map[string]string, Options) string) string {
		return load(map[string]string{"t": strings.Repeat("nonsense\n", maxMessages+50)}, options())
	},
	"generated_macros": func(load func(map[string]string, Options) string) string {
		opt := options()
		opt.Macros = []string{"novalue", "=noname", "control=a\nb", "long=" + strings.Repeat("x", maxToken+1),
			"unused=1", "used=\"a=b\"", "file=option"}
		return load(map[string]string{"t": "file=file\nswitch $used { interface $file }\n"}, opt)
	},
	"generated_missing": func(load func(map[string]string, Options) string) string {
		out := load(nil, options())
		opt := options()
		opt.Optional = true
		return out + load(nil, opt)
	},
	"generated_clients": clients,
}

// TestGenerated compares them with testdata/NAME.ok.
func TestGenerated(t *testing.T) {
	load := func(text map[string]string, opt Options) string {
		f := *files
		f.text, opt.FS = text, &f
		return dump(Load("t", opt))
	}
	for name, make := range generated {
		t.Run(name, func(t *testing.T) {
			golden.Check(t, "testdata/"+name+".ok", make(load))
		})
	}
}

// TestEveryWordIsGolden: each word of the language stands in a golden file that
// is accepted.
func TestEveryWordIsGolden(t *testing.T) {
	confs, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	accepted := map[string]bool{}
	for _, name := range confs {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		ok, err := os.ReadFile(strings.TrimSuffix(name, ".conf") + ".ok")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(ok), "local prefix ") { // of dump
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			line, _, _ = strings.Cut(line, "#")
			for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t{},", r) }) {
				accepted[word] = true
			}
		}
	}
	words := languageWords()
	// These are looked for one by one.
	for _, w := range []string{"raw", "qcow2", "device", "cdrom", "disk", "net"} {
		words[w] = true
	}
	for w := range words {
		if !accepted[w] {
			t.Errorf("no golden file that is accepted has %q", w)
		}
	}
}

// clients has what is wrong with definitions that no file can have: those that
// clients send.
func clients(func(map[string]string, Options) string) string {
	var b strings.Builder
	say := func(what string, err error) {
		var text = "ok"
		if err != nil {
			text = err.Error()
		}
		fmt.Fprintf(&b, "%s: %s\n", what, text)
	}
	for _, c := range []struct {
		what string
		set  func(*VM)
	}{
		{"complete", func(*VM) {}},
		{"little memory", func(v *VM) { v.MemoryBytes = MinMemory - 1 }},
		{"much memory", func(v *VM) { v.MemoryBytes = MaxMemory + 1<<20 }},
		{"odd memory", func(v *VM) { v.MemoryBytes++ }},
		{"many CPUs", func(v *VM) { v.CPUs = MaxCPUs + 1 }},
		{"path with NUL", func(v *VM) { v.Disks[0].Path = "/a\x00b" }},
		{"path of bytes", func(v *VM) { v.CDROM = "/\xff" }},
		{"no path", func(v *VM) { v.Disks[0].Path = "" }},
		{"long path", func(v *VM) { v.Boot = strings.Repeat("b", MaxPath+1) }},
		{"tap", func(v *VM) { v.NICs = []NIC{{Tap: "eth0"}} }},
		{"rdomain", func(v *VM) { v.NICs = []NIC{{RDomain: RDomain{MaxRDomain + 1, true}}} }},
	} {
		v := VM{Name: "v", Disks: []Disk{{Path: "/d"}}}
		v.SetDefaults()
		c.set(&v)
		say("define with "+c.what, v.Validate())
	}
	for _, c := range []struct {
		what string
		vm   VM
	}{
		{"nothing", VM{}},
		{"cpus", VM{CPUs: 1}},
		{"memory", VM{MemoryBytes: 1 << 20}},
		{"disk", VM{Disks: []Disk{{Path: "/a"}}}},
		{"interfaces", VM{MinNICs: 3}},
		{"boot", VM{Boot: "/other"}},
		{"cdrom", VM{CDROM: "/other"}},
		{"owner", VM{Owner: Owner{UID: 8}, OwnerSet: true}},
		{"owner group", VM{Owner: Owner{UID: 1000, GID: 71, HasGID: true}, OwnerSet: true}},
		{"allow instance", VM{Allow: Allow{Options: AllowDisk}}},
	} {
		for _, uid := range []uint32{0, 1000} {
			parent, v := template(), c.vm
			v.Name = "v"
			say(fmt.Sprintf("instance by user %d with %s", uid, c.what), v.Instantiate(&parent, uid))
		}
	}
	// The caller tells them apart by these.
	for _, err := range []error{ErrNothingToBoot, ErrNotAllowed, ErrShared} {
		say("sentinel", errors.Unwrap(fmt.Errorf("%w", err)))
	}
	return b.String()
}
