package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vmd/internal/testenv"
)

func TestLoadOrder(t *testing.T) {
	dir := t.TempDir()
	dep := "kernel/a.ko:\nkernel/b.ko: kernel/a.ko\nkernel/c-d.ko.xz: kernel/b.ko kernel/a.ko\nkernel/e.ko: kernel/a.ko\n"
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dep), 0o644); err != nil {
		t.Fatal(err)
	}
	k := &kernel{modules: dir}
	if err := k.readDeps(); err != nil {
		t.Fatal(err)
	}
	got, err := k.loadOrder("c_d", "e")
	want := []string{"kernel/a.ko", "kernel/b.ko", "kernel/c-d.ko.xz", "kernel/e.ko"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("loadOrder = %q, %v; want %q", got, err, want)
	}
	if _, err := k.loadOrder("zz"); err == nil {
		t.Error("loadOrder(zz) = nil error")
	}
}

func TestCPIOUnpacks(t *testing.T) {
	tool := testenv.Tool(t, "cpio")
	var c cpio
	c.dir("d")
	c.file("d/f", []byte("hello"))
	c.link("d/l", "f")
	c.file("d/empty", nil)
	cmd := exec.Command(tool, "-i", "--quiet")
	cmd.Dir, cmd.Stdin = t.TempDir(), bytes.NewReader(c.finish())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(cmd.Dir, "d/l")); err != nil || string(b) != "hello" {
		t.Errorf("d/l = %q, %v", b, err)
	}
	if fi, err := os.Stat(filepath.Join(cmd.Dir, "d/empty")); err != nil || fi.Size() != 0 {
		t.Errorf("d/empty: %v, %v", fi, err)
	}
}

func TestUnLZ4(t *testing.T) {
	frame := func(block string) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, uint32(len(block))), block...)
	}
	long := "\xff" + strings.Repeat("x", 15) // 15 + 0 literals, then a match of 19 + 255 + 3
	long = "\xff\x00" + long[1:] + "\x01\x00\xff\x03" + "\x10y"
	for _, tt := range []struct {
		name, block, want string
		bad               bool
	}{
		{name: "literals", block: "\x30abc", want: "abc"},
		{name: "overlapping match", block: "\x14a\x01\x00" + "\x10b", want: "a" + "aaaaaaaa" + "b"},
		{name: "long lengths", block: long, want: strings.Repeat("x", 15+15+255+3+4) + "y"},
		{name: "literals missing", block: "\x30a", bad: true},
		{name: "offset zero", block: "\x10a\x00\x00", bad: true},
		{name: "offset before the start", block: "\x10a\x02\x00", bad: true},
		{name: "offset cut off", block: "\x10a\x02", bad: true},
		{name: "length cut off", block: "\xf0\xff", bad: true},
		{name: "larger than told", block: "\x1fa\x01\x00\xff\xff\xff\xff\xff\xff\xff\x00", bad: true},
	} {
		got, err := unlz4(frame(tt.block), 512)
		if (err != nil) != tt.bad || !tt.bad && string(got) != tt.want {
			t.Errorf("%s: %q, %v; want %q, error %v", tt.name, got, err, tt.want, tt.bad)
		}
	}
	if _, err := unlz4([]byte("\x05\x00\x00\x00a"), 16); err == nil {
		t.Error("a block longer than its file was accepted")
	}
}

func TestExtractVMLinuxRefuses(t *testing.T) {
	image := make([]byte, 0x400)
	copy(image[0x202:], "HdrS")
	for name, b := range map[string][]byte{
		"empty": nil, "no header": make([]byte, 0x400), "payload outside": func() []byte {
			b := slices.Clone(image)
			binary.LittleEndian.PutUint32(b[0x248:], 0xffffffff)
			binary.LittleEndian.PutUint32(b[0x24c:], 0xffffffff)
			return b
		}(), "no payload": image,
	} {
		if _, err := extractVMLinux(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUnpackStaysInside(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range []string{"./a/b", "../evil"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: 2, Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	dir := filepath.Join(top, "results")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unpack(&buf, dir); err == nil {
		t.Error("unpack of ../evil: no error")
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a/b")); err != nil || string(b) != "hi" {
		t.Errorf("a/b = %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(top, "evil")); err == nil {
		t.Error("unpack wrote outside of its folder")
	}
}

func TestScriptQuotes(t *testing.T) {
	o := Options{Command: []string{"printf", "%s|", "a b", "it's", "$HOME", ""}, Env: []string{"X=1 2"}}
	cmd := exec.Command("sh", "-c", strings.Replace(o.script(), "exec", `echo "$X";`, 1))
	out, err := cmd.Output()
	if want := "1 2\na b|it's|$HOME||"; err != nil || string(out) != want {
		t.Errorf("script printed %q, %v; want %q", out, err, want)
	}
}

func TestInnerFlags(t *testing.T) {
	args := []string{"-test.paniconexit0", "-test.timeout=10m0s", "-test.v=true", "-test.run=A/b",
		"-test.testlogfile=/tmp/x", "-test.count=1"}
	got := innerFlags(args, time.Minute)
	want := []string{"-test.timeout=1m0s", "-test.v=true", "-test.run=A/b", "-test.count=1"}
	if !slices.Equal(got, want) {
		t.Errorf("innerFlags = %q, want %q", got, want)
	}
}

func TestCachedBuildsOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	built := 0
	build := func(dir string) error {
		built++
		return os.WriteFile(filepath.Join(dir, "f"), nil, 0o644)
	}
	first, err := cached("x", []string{"a"}, build)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := cached("x", []string{"a"}, build); err != nil || again != first || built != 1 {
		t.Errorf("second call: %q, %v, built %d times", again, err, built)
	}
	if other, err := cached("x", []string{"b"}, build); err != nil || other == first || built != 2 {
		t.Errorf("other inputs: %q, %v, built %d times", other, err, built)
	}
}

func TestWantedPackages(t *testing.T) {
	for run, want := range map[string]int{
		"": len(Packages), "Packages/hv": len(Packages), "TestMachine": 0, "^TestPackages$": len(Packages), "(": 0,
	} {
		if got := len(wantedPackages(run)); got != want {
			t.Errorf("wantedPackages(%q) has %d, want %d", run, got, want)
		}
	}
}

func TestSecondLabWaits(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	unlock, err := oneAtATime(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := oneAtATime(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("second lab: %v, want %v", err, context.Canceled)
	}
	unlock()
	again, err := oneAtATime(t.Context())
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	again()
}
