package testenv

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestRequired(t *testing.T) {
	for _, tt := range []struct {
		list  string
		names []string
		want  bool
	}{
		{"", []string{"T1"}, false},
		{"T1", []string{"T1"}, true},
		{"t1", []string{"T1"}, true},
		{"T1L", []string{"T1"}, false},
		{"T0, T2 ,T3", []string{"T2"}, true},
		{"kvm", []string{"T2"}, true},
		{"root", []string{"T1"}, true},
		{"root", []string{"T2"}, false},
		{"T0,qemu-img", []string{"qemu-img"}, true},
		{"T0", []string{"T1", "snmpd"}, false},
		{"snmpd", []string{"T1", "snmpd"}, true},
		{",,", []string{""}, false},
	} {
		if got := required(tt.list, tt.names...); got != tt.want {
			t.Errorf("required(%q, %q) = %v, want %v", tt.list, tt.names, got, tt.want)
		}
	}
}

func TestRealKVM(t *testing.T) {
	dir := t.TempDir()
	if realKVM(dir) {
		t.Error("realKVM without a module = true")
	}
	if err := os.Mkdir(filepath.Join(dir, "kvm_amd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if !realKVM(dir) {
		t.Error("realKVM with kvm_amd = false")
	}
}

func TestProbeKVMRefuses(t *testing.T) {
	for _, path := range []string{"/dev/null", "/nonexistent"} {
		if err := probeKVM(path); err == nil {
			t.Errorf("probeKVM(%q) = nil", path)
		}
	}
}

func TestTool(t *testing.T) {
	if path := Tool(t, "sh"); !filepath.IsAbs(path) {
		t.Errorf("Tool(sh) = %q", path)
	}
	if path, err := LookTool("no-such-tool"); err == nil {
		t.Errorf("LookTool(no-such-tool) = %q", path)
	}
}

// outcome is a testing.TB that notes how a test ended.
type outcome struct {
	testing.TB
	failed, skipped bool
}

func (o *outcome) Helper()               {}
func (o *outcome) Fatalf(string, ...any) { o.failed = true; runtime.Goexit() }
func (o *outcome) Skipf(string, ...any)  { o.skipped = true; runtime.Goexit() }

func TestMissing(t *testing.T) {
	for _, tt := range []struct {
		require string
		fails   bool
	}{{"", false}, {"T1", false}, {"T0,T2", true}, {"kvm", true}} {
		t.Setenv(RequireVar, tt.require)
		var o outcome
		done := make(chan struct{})
		go func() {
			defer close(done)
			missing(&o, []string{"T2"}, "needs %s", "KVM")
		}()
		<-done
		if o.failed != tt.fails || o.skipped == tt.fails {
			t.Errorf("with %q: failed %v, skipped %v", tt.require, o.failed, o.skipped)
		}
	}
}
