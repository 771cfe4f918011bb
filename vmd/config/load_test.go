package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMissing checks when a file may be missing.
func TestMissing(t *testing.T) {
	opt := options()
	if _, err := Load("testdata/none", opt); err == nil || err.Error() != "testdata/none: open configuration: no such file or directory" {
		t.Errorf("explicit file: %v", err)
	}
	opt.Optional = true
	cfg, err := Load("testdata/none", opt)
	if err != nil || cfg.Parallel != 8 || cfg.Delay != 30*time.Second {
		t.Errorf("optional file: %+v, %v; want the defaults", cfg, err)
	}
	if _, err := Load("testdata/inc", opt); err == nil {
		t.Error("a directory was accepted")
	}
}

// TestOptionMacros checks -D.
func TestOptionMacros(t *testing.T) {
	text := "a=file\nswitch $a { interface bridge0 }\n"
	tests := []struct {
		name, in string
		macros   []string
		want     string // the switch's name, or the error
		warn     string
	}{
		{"file's own", text, nil, "file", ""},
		{"wins over the file", text, []string{"a=option"}, "option", ""},
		{"last one wins", text, []string{"a=first", "a=second"}, "second", ""},
		{"splits at the first equals sign", "switch $a { interface bridge0 }", []string{`a="b=c"`}, "b=c", ""},
		{"malformed", text, []string{"a"}, "file", `macro "a" on the command line is ignored: it is not name=value`},
		{"no name", text, []string{"=x"}, "file", `macro "=x" on the command line is ignored: it is not name=value`},
		{"unused", text, []string{"b=c"}, "file", `macro "b" is not used`},
		{"control bytes", text, []string{"a=x\ny"}, "file", `macro "a" on the command line is ignored: its value is too long or has control bytes`},
		{"too long", text, []string{"a=" + strings.Repeat("x", maxToken+1)}, "file", `macro "a" on the command line is ignored: its value is too long or has control bytes`},
		{"value is a number", "staggered start parallel $n delay 1\nswitch x { interface bridge0 }", []string{"n=4"}, "x", ""},
	}
	for _, tt := range tests {
		opt := options()
		opt.Macros = tt.macros
		cfg, err := load(tt.in, opt)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var warn []string
		for _, m := range cfg.Warnings {
			warn = append(warn, m.String())
		}
		if got := strings.Join(warn, "; "); cfg.Switches[0].Name != tt.want || got != tt.warn {
			t.Errorf("%s: switch %q, warnings %q; want %q, %q", tt.name, cfg.Switches[0].Name, got, tt.want, tt.warn)
		}
	}
}

// TestIncludeDepth counts files, the first one included.
func TestIncludeDepth(t *testing.T) {
	f := *files
	f.text = map[string]string{}
	for i := 1; i < maxDepth; i++ {
		f.text[fmt.Sprint("f", i)] = fmt.Sprintf("include f%d\n", i+1)
	}
	f.text[fmt.Sprint("f", maxDepth)] = "switch deep { interface bridge0 }"
	opt := options()
	opt.FS = &f
	cfg, err := Load("f1", opt)
	if err != nil || cfg.Switch("deep") == nil {
		t.Errorf("%d files deep: %v", maxDepth, err)
	}
	f.text["f0"] = "include f1"
	_, err = Load("f0", opt)
	want := fmt.Sprintf("f%d:1: include \"f%d\": files include each other more than %d deep", maxDepth-1, maxDepth, maxDepth)
	if err == nil || err.Error() != want {
		t.Errorf("%d files deep: %v, want %s", maxDepth+1, err, want)
	}
	f.text["self"] = "\ninclude self\n"
	if _, err = Load("self", opt); err == nil || err.Error() != `self:2: include "self": the file includes itself` {
		t.Errorf("file that includes itself: %v", err)
	}
}

// TestBounds checks that a small file cannot make much work.
func TestBounds(t *testing.T) {
	f := *files
	f.text = map[string]string{"leaf": "# nothing\n"}
	// Each level includes the next twice: 2^14 files without a bound.
	next := "leaf"
	for i := range 14 {
		name := fmt.Sprint("level", i)
		f.text[name] = strings.Repeat("include "+next+"\n", 2)
		next = name
	}
	opt := options()
	opt.FS = &f
	if _, err := Load(next, opt); err == nil || !strings.Contains(err.Error(), "more than 1024 files are included") {
		t.Errorf("doubling includes: %.200v", err)
	}

	big := "a=\"" + strings.Repeat("\t", 8000) + "\"\n" + strings.Repeat("$a ", 3000)
	if _, err := load(big, options()); err == nil || !strings.Contains(err.Error(), "macros expand to more than") {
		t.Errorf("expansion bomb: %.200v", err)
	}
	if _, err := load(strings.Repeat("# filler\n", maxBytes/9+1), options()); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large file: %.200v", err)
	}
	_, err := load(strings.Repeat("error\n", 5000), options())
	if n := len(err.(*Error).Messages); n != maxMessages+1 {
		t.Errorf("%d messages, want %d", n, maxMessages+1)
	}
}

// TestBase checks a file that adds to what is loaded.
func TestBase(t *testing.T) {
	base, err := load("local prefix 10.0.0.0/8\nagentx\nstaggered start parallel 3 delay 4\nsocket owner joe\n"+
		"switch s { interface bridge0 rdomain 2\n}\nvm t { disk \"/d\"\n memory 1G\n}", options())
	if err != nil {
		t.Fatal(err)
	}
	opt := options()
	opt.Base = base
	cfg, err := load("vm t instance u { disk \"/a\"\n interface { switch s }\n}\nstaggered start parallel 5 delay 6", opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.VMs) != 1 || cfg.VMs[0].MemoryBytes != 1<<30 || len(cfg.Switches) != 0 || len(cfg.Warnings) != 0 {
		t.Errorf("instance of a loaded vm: %+v", cfg)
	}
	if cfg.LocalPrefix != base.LocalPrefix || !cfg.AgentX.Enabled || cfg.SocketOwner != base.SocketOwner || cfg.Parallel != 5 {
		t.Errorf("global settings: %+v, want those of the base but parallel", cfg)
	}
	if _, err = load("vm x { disk \"/a\"\n interface { switch s rdomain 3 }\n}", opt); err == nil {
		t.Error("rdomain that differs from a loaded switch's was accepted")
	}
}

// TestHost reads real files with the host's own file system and users.
func TestHost(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	disk := write("disk.img", "")
	link := filepath.Join(dir, "link")
	if err := os.Symlink("disk.img", link); err != nil {
		t.Fatal(err)
	}
	write("more.conf", "vm b { disk \""+link+"\"\n owner root\n}\n")
	conf := write("vm.conf", "vm a { disk \""+disk+"\" }\ninclude \""+dir+"/more.conf\"\n")
	cfg, err := Load(conf, Options{})
	if err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(disk)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range cfg.VMs {
		if v.Disks[0].Path != real {
			t.Errorf("vm %d: disk %q, want %q", i, v.Disks[0].Path, real)
		}
	}
	if cfg.Parallel < 1 {
		t.Errorf("parallel is %d without a statement", cfg.Parallel)
	}
	_, err = Load(write("bad.conf", "vm a { disk \""+dir+"/none\" }\nvm b { owner \"no such user!\" }\nvm c { owner \":no such group!\" }\n"), Options{})
	for _, want := range []string{"no such file or directory", `user "no such user!": unknown`, `group "no such group!": unknown`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q in it", err, want)
		}
	}
	if _, err := (hostFS{}).Open(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open a missing file: %v", err)
	}
	if cfg, err = Load("/dev/null", Options{}); err != nil || len(cfg.VMs) != 0 {
		t.Errorf("/dev/null: %v", err)
	}
}

// TestMany holds the parser to a time that grows with the file and no faster:
// ten thousand VMs in one chain of instances.
func TestMany(t *testing.T) {
	const n = 10000
	var b strings.Builder
	b.WriteString("vm v0 { boot \"/bsd\"\n owner joe\n}\n")
	for i := n - 1; i > 0; i-- {
		fmt.Fprintf(&b, "vm v%d instance v%d { enable }\n", i-1, i)
	}
	cfg, err := load(b.String(), options())
	if err != nil {
		t.Fatalf("%.200v", err)
	}
	if len(cfg.VMs) != n || cfg.VM(fmt.Sprint("v", n-1)).Owner.UID != 1000 {
		t.Errorf("%d vms, want %d that all belong to joe", len(cfg.VMs), n)
	}
}

// example returns etc/vm.conf with its examples in force, and what they name.
func example(t testing.TB) (string, *fakeFS) {
	data, err := os.ReadFile("../../etc/vm.conf")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for i, l := range lines {
		if len(l) > 1 && l[0] == '#' && l[1] != ' ' {
			lines[i] = l[1:]
		}
	}
	f := *files
	f.modes = map[string]fs.FileMode{"/boot/vmlinuz": 0, "/boot/initrd.img": 0}
	for _, name := range []string{"web.qcow2", "new.qcow2", "build.img", "template.img", "copy.img"} {
		f.modes["/var/lib/vmd/images/"+name] = 0
	}
	return strings.Join(lines, "\n"), &f
}

// TestExample loads the example file as it is installed, and with its examples
// in force.
func TestExample(t *testing.T) {
	cfg, err := Load("../../etc/vm.conf", options())
	if err != nil || len(cfg.VMs)+len(cfg.Switches)+len(cfg.Warnings) != 0 {
		t.Errorf("as installed: %+v, %v; want nothing in force", cfg, err)
	}
	text, f := example(t)
	f.text = map[string]string{"t": text}
	opt := options()
	opt.FS = f
	cfg, err = Load("t", opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.VMs) != 5 || len(cfg.Switches) != 1 || len(cfg.Warnings) != 0 {
		t.Errorf("%d vms, %d switches, warnings %v; want 5, 1 and none", len(cfg.VMs), len(cfg.Switches), cfg.Warnings)
	}
	for _, v := range cfg.VMs {
		if v.Enabled {
			t.Errorf("vm %q of the example would be started", v.Name)
		}
	}
}

// TestExampleMutated changes every byte of the example, one at a time, to bytes
// that mean something to the lexer and to some that do not, leaves it out, and
// ends the file there.
func TestExampleMutated(t *testing.T) {
	text, f := example(t)
	// Comments need no second look.
	var b strings.Builder
	for _, l := range strings.Split(text, "\n") {
		if !strings.HasPrefix(l, "#") {
			b.WriteString(l + "\n")
		}
	}
	text = b.String()
	rnd := rand.New(rand.NewPCG(1, 2))
	opt := options()
	opt.FS = f
	for i := range text {
		for _, c := range []byte{0, '\n', '"', '{', '}', '\\', '$', byte(rnd.Uint32())} {
			mutated := text[:i] + string([]byte{c}) + text[i+1:]
			f.text = map[string]string{"t": mutated}
			checkOutcome(t, "t", opt, mutated)
		}
		for _, mutated := range []string{text[:i] + text[i+1:], text[:i]} {
			f.text = map[string]string{"t": mutated}
			checkOutcome(t, "t", opt, mutated)
		}
	}
}

// checkOutcome fails when Load neither succeeds nor says why, or when what it
// returns would not pass the checks again.
func checkOutcome(t *testing.T, name string, opt Options, text string) {
	cfg, err := Load(name, opt)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) || len(e.Messages) == 0 || cfg != nil {
			t.Fatalf("%q: Load = %v, %v", text, cfg, err)
		}
		for _, m := range e.Messages {
			if strings.ContainsAny(m.Text, "\n\x00\x1b") {
				t.Fatalf("%q: message with control bytes: %q", text, m.Text)
			}
		}
		return
	}
	for i := range cfg.VMs {
		v := &cfg.VMs[i]
		if err := v.Validate(); err != nil || cfg.VM(v.Name) != v {
			t.Fatalf("%q: vm %q was accepted: %v", text, v.Name, err)
		}
	}
	for i := range cfg.Switches {
		if s := &cfg.Switches[i]; cfg.Switch(s.Name) != s || bridgeError(s.Interface) != "" {
			t.Fatalf("%q: switch %q was accepted", text, s.Name)
		}
	}
	if cfg.Parallel < 1 || cfg.Delay < 0 || !cfg.LocalPrefix.IsValid() || !cfg.SocketOwner.HasGID {
		t.Fatalf("%q: global settings %+v", text, cfg)
	}
}

// FuzzParse feeds whole files.
func FuzzParse(f *testing.F) {
	confs, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range confs {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	text, _ := example(f)
	f.Add(text)
	f.Fuzz(func(t *testing.T, text string) {
		fsys := *files
		fsys.text = map[string]string{"t": text}
		opt := options()
		opt.FS = &fsys
		checkOutcome(t, "t", opt, text)
	})
}
