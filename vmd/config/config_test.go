package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmd/internal/golden"
)

// fakeFS has configuration files from testdata or its own text, and files that
// only exist.
type fakeFS struct {
	text  map[string]string      // configuration files
	modes map[string]fs.FileMode // others
	links map[string]string
}

// files are what the test configurations name.
var files = &fakeFS{
	modes: map[string]fs.FileMode{
		"/d": 0, "/a": 0, "/b": 0, "/c": 0, "/e": 0, "/d.img": 0, "/bsd": 0, "/bsd.rd": 0,
		"/vm/a.img": 0, "/vm/b.img": 0, "/vm/c.img": 0, "/vm/with space.img": 0,
		"/vm/vmlinuz": 0, "/vm/initrd.img": 0, "/vm/bios": 0,
		"/vm":                                fs.ModeDir,
		"/dev/sdz":                           fs.ModeDevice,
		"/dev/null":                          fs.ModeDevice | fs.ModeCharDevice,
		"/vm/fifo":                           fs.ModeNamedPipe,
		"/vm/noperm":                         fs.ModeIrregular,
		"/" + strings.Repeat("p", MaxPath):   0, // a byte too long
		"/" + strings.Repeat("q", MaxPath-1): 0, // just not
	},
	links: map[string]string{"/vm/link.img": "/vm/a.img"},
}

type fakeInfo struct {
	name string
	mode fs.FileMode
}

func (i fakeInfo) Name() string       { return i.name }
func (i fakeInfo) Size() int64        { return 0 }
func (i fakeInfo) Mode() fs.FileMode  { return i.mode }
func (i fakeInfo) ModTime() time.Time { return time.Time{} }
func (i fakeInfo) IsDir() bool        { return i.mode.IsDir() }
func (i fakeInfo) Sys() any           { return nil }

func (f *fakeFS) Open(name string) (io.ReadCloser, error) {
	if s, ok := f.text[name]; ok {
		return io.NopCloser(strings.NewReader(s)), nil
	}
	if strings.HasPrefix(name, "testdata/") || strings.HasPrefix(name, "../../etc/") {
		return os.Open(name)
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (f *fakeFS) Stat(name string) (fs.FileInfo, error) {
	mode, ok := f.modes[name]
	if !ok {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return fakeInfo{path.Base(name), mode}, nil
}

func (f *fakeFS) Realpath(name string) (string, error) {
	if to, ok := f.links[name]; ok {
		return to, nil
	}
	if _, ok := f.modes[name]; ok {
		return name, nil
	}
	if _, ok := f.text[name]; ok {
		return path.Clean(name), nil
	}
	if strings.HasPrefix(name, "testdata/") || strings.HasPrefix(name, "../../etc/") {
		return filepath.EvalSymlinks(name)
	}
	return "", &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
}

// fakeUsers knows joe (1000), alice (1001) and the groups staff (50), vmd (900).
type fakeUsers struct{}

func (fakeUsers) User(name string) (uint32, error) {
	switch name {
	case "root":
		return 0, nil
	case "joe":
		return 1000, nil
	case "alice":
		return 1001, nil
	}
	return 0, ErrUnknown
}

func (fakeUsers) Group(name string) (uint32, error) {
	switch name {
	case "wheel":
		return 0, nil
	case "staff":
		return 50, nil
	case "vmd":
		return 900, nil
	}
	return 0, ErrUnknown
}

func options() Options {
	return Options{FS: files, Users: fakeUsers{}, CPUs: 8}
}

// load reads text as the file "t".
func load(text string, opt Options) (*Config, error) {
	f := *files
	f.text = map[string]string{"t": text}
	opt.FS = &f
	return Load("t", opt)
}

// TestGolden compares what Load makes of testdata/NAME.conf with NAME.ok.
func TestGolden(t *testing.T) {
	confs, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(confs) == 0 {
		t.Fatalf("no test configurations: %v", err)
	}
	for _, name := range confs {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".conf"), func(t *testing.T) {
			cfg, err := Load(name, options())
			golden.Check(t, strings.TrimSuffix(name, ".conf")+".ok", dump(cfg, err))
		})
	}
}

// dump prints the outcome of Load, so that a difference shows in a diff.
func dump(c *Config, err error) string {
	var b strings.Builder
	var e *Error
	switch {
	case errors.As(err, &e):
		fmt.Fprintln(&b, e)
		dumpWarnings(&b, e.Warnings)
		return b.String()
	case err != nil:
		return "not an *Error: " + err.Error()
	}
	fmt.Fprintf(&b, "local prefix %v inet6 %v", c.LocalPrefix, c.LocalInet6)
	if c.LocalPrefix6.IsValid() {
		fmt.Fprintf(&b, " prefix %v", c.LocalPrefix6)
	}
	for _, a := range c.LocalDNS {
		fmt.Fprintf(&b, " dns %v", a)
	}
	fmt.Fprintf(&b, "\nsocket owner %s\n", dumpOwner(c.SocketOwner))
	fmt.Fprintf(&b, "agentx %v path %q context %q%s\n", c.AgentX.Enabled, c.AgentX.Path, c.AgentX.Context, dumpAgentX(&c.AgentX))
	fmt.Fprintf(&b, "parallel %d delay %v\n", c.Parallel, c.Delay)
	for _, s := range c.Switches {
		fmt.Fprintf(&b, "switch %q line %d interface %q group %q locked %v rdomain %s up %v\n",
			s.Name, s.Line, s.Interface, s.Group, s.Locked, dumpRDomain(s.RDomain), s.Up)
	}
	for i := range c.VMs {
		dumpVM(&b, &c.VMs[i])
	}
	dumpWarnings(&b, c.Warnings)
	return b.String()
}

func dumpVM(b *strings.Builder, v *VM) {
	fmt.Fprintf(b, "vm %q line %d enabled %v memory %d cpus %d owner %s", v.Name, v.Line, v.Enabled, v.MemoryBytes, v.CPUs, dumpOwner(v.Owner))
	for _, f := range []struct{ name, value string }{
		{"parent", v.Parent}, {"boot", v.Boot}, {"initrd", v.Initrd}, {"cmdline", v.Cmdline},
		{"device", v.BootDevice.String()}, {"cdrom", v.CDROM}, {"os", v.OS},
	} {
		if f.value != "" {
			fmt.Fprintf(b, " %s %q", f.name, f.value)
		}
	}
	if v.SEV {
		fmt.Fprintf(b, " sev es %v", v.SEVES)
	}
	if v.VirtioSet {
		fmt.Fprintf(b, " virtio transitional %v", v.Transitional)
	}
	if v.UUID != [16]byte{} {
		fmt.Fprintf(b, " uuid %x", v.UUID)
	}
	b.WriteByte('\n')
	if v.Limits != (Limits{}) {
		fmt.Fprintf(b, "  limit %+v\n", v.Limits)
	}
	if v.Restart.Set {
		fmt.Fprintf(b, "  restart %v max %d in %v\n", v.Restart.OnFailure, v.Restart.Max, v.Restart.Window)
	}
	if v.Allow != (Allow{}) {
		fmt.Fprintf(b, "  allow %07b owner %v %s\n", v.Allow.Options, v.Allow.HasOwner, dumpOwner(v.Allow.Owner))
	}
	for _, d := range v.Disks {
		fmt.Fprintf(b, "  disk %q format %q\n", d.Path, d.Format)
	}
	for _, n := range v.NICs {
		fmt.Fprintf(b, "  nic local %v tap %q switch %q group %q mac %x locked %v rdomain %s down %v\n",
			n.Local, n.Tap, n.Switch, n.Group, n.MAC, n.Locked, dumpRDomain(n.RDomain), n.Down)
	}
}

// dumpAgentX shows what differs from the default.
func dumpAgentX(a *AgentX) (s string) {
	if d := defaultAgentX(); a.PerVM != d.PerVM || a.Bulk != d.Bulk {
		s += fmt.Sprintf(" per-vm %v bulk %v", a.PerVM, a.Bulk)
	}
	if a.ReadOnly {
		s += " readonly"
	}
	if a.ObjectID != nil {
		s += fmt.Sprintf(" object-id %v", a.ObjectID)
	}
	if a.ProcessorIndex != DefaultProcessorIndex {
		s += fmt.Sprintf(" processor-index %d", a.ProcessorIndex)
	}
	if a.VMInfo {
		s += " vminfo"
	}
	return s
}

func dumpOwner(o Owner) string {
	if o.HasGID {
		return fmt.Sprintf("%d:%d", o.UID, o.GID)
	}
	return fmt.Sprint(o.UID)
}

func dumpRDomain(r RDomain) string {
	if r.Set {
		return fmt.Sprint(r.ID)
	}
	return "-"
}

func dumpWarnings(b *strings.Builder, l []Message) {
	for _, m := range l {
		fmt.Fprintf(b, "warning: %v\n", m)
	}
}
