package cmd

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmd/internal/vmop"
)

func TestParseRef(t *testing.T) {
	long := strings.Repeat("x", maxName)
	for _, tt := range []struct {
		word string
		want vmop.Ref
		err  string
	}{
		{"web", vmop.Ref{Name: "web"}, ""},
		{"7", vmop.Ref{ID: 7}, ""},
		{" +7", vmop.Ref{ID: 7}, ""},
		{"007", vmop.Ref{ID: 7}, ""},
		{"4294967295", vmop.Ref{ID: 4294967295}, ""},
		{"4294967296", vmop.Ref{Name: "4294967296"}, ""},
		{"12x", vmop.Ref{Name: "12x"}, ""},
		{"1_0", vmop.Ref{Name: "1_0"}, ""},
		{"0", vmop.Ref{}, ""},
		{long, vmop.Ref{Name: long}, ""},
		{long + "x", vmop.Ref{}, "name too long\nvmctl: invalid id: " + long + "x"},
		{"-1", vmop.Ref{}, "invalid id: -1"},
		{"", vmop.Ref{}, "invalid id: "},
	} {
		got, err := parseRef(tt.word)
		if got != tt.want || text(err) != tt.err {
			t.Errorf("parseRef(%q) = %+v, %q; want %+v, %q", tt.word, got, text(err), tt.want, tt.err)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Sizes as OpenBSD's vmctl reads them (scan_scaled(3)).
func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		word string
		want int64
		err  string
		warn string
	}{
		{"4.5G", 4831838208, "", ""},
		{" 512M", 512 << 20, "", ""},
		{"512m", 512 << 20, "", ""},
		{"1048576", 1 << 20, "", ""},
		{"1048577", 1 << 20, "", "disk size rounded to 1.0M"},
		{"4.6G", 4710 << 20, "", "disk size rounded to 4.6G"},
		{"1048575", 0, "disk size must be at least 1MB (did you mean 1048575M?)", ""},
		{"512", 0, "disk size must be at least 1MB (did you mean 512M?)", ""},
		{"1.9", 0, "disk size must be at least 1MB (did you mean 1.9M?)", ""},
		{".5M", 0, "disk size must be at least 1MB", ""},
		{"", 0, "disk size must be at least 1MB", ""},
		{"-1G", 0, "disk size must be at least 1MB", ""},
		{"10GB", 0, "invalid disk size: 10GB: Invalid argument", ""},
		{"10Gi", 0, "invalid disk size: 10Gi: Invalid argument", ""},
		{"1..2G", 0, "invalid disk size: 1..2G: Invalid argument", ""},
		{"--1G", 0, "invalid disk size: --1G: Invalid argument", ""},
		{"9E", 0, "invalid disk size: 9E: Numerical result out of range", ""},
		{"111111111111111111111", 0, "invalid disk size: 111111111111111111111: Numerical result out of range", ""},
	} {
		got, warning, err := parseSize("disk", tt.word)
		if got != tt.want || text(err) != tt.err || warning != tt.warn {
			t.Errorf("parseSize(%q) = %d, %q, warning %q; want %d, %q, %q",
				tt.word, got, text(err), warning, tt.want, tt.err, tt.warn)
		}
	}
}

// magicBytes begin every qcow2 file.
const magicBytes = "QFI\xfb"

// The first rule that decides wins: the prefix, the suffix, what the file is.
func TestDiskFormat(t *testing.T) {
	dir := t.TempDir()
	file := func(name, head string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(head), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	plain := file("plain.img", "boot")
	magic := file("magic.img", magicBytes+"\x00\x00\x00\x03")
	magicRaw := file("magic.raw", magicBytes)
	named := file("named.QCOW2", "boot")
	both := file("both.qcow2", magicBytes)
	short := file("short", "QFI")
	for _, tt := range []struct {
		arg, path, format string
		guessed           bool
	}{
		{plain, plain, formatRaw, false},
		{"qcow2:" + plain, plain, formatQcow2, false},
		{"raw:" + magic, magic, formatRaw, false},
		{magic, magic, formatQcow2, true},
		{magicRaw, magicRaw, formatQcow2, true},
		{named, named, formatQcow2, false},
		{both, both, formatQcow2, false},
		{short, short, formatRaw, false},
		{"nosuch.qcow2", "nosuch.qcow2", formatQcow2, false},
		{"nosuch.qc2", "nosuch.qc2", formatRaw, false},
		{"qcow2:nosuch", "nosuch", formatQcow2, false},
		{"./raw:x", "./raw:x", formatRaw, false},
		{"RAW:x", "RAW:x", formatRaw, false},
	} {
		path, format, guessed := diskFormat(tt.arg)
		if path != tt.path || format != tt.format || guessed != tt.guessed {
			t.Errorf("diskFormat(%q) = %q, %s, %v; want %q, %s, %v", tt.arg, path, format, guessed, tt.path, tt.format, tt.guessed)
		}
	}
}

// Each code has words; a new one needs its own.
func TestEveryCodeHasAReason(t *testing.T) {
	for c := vmop.OK + 1; !strings.HasPrefix(c.String(), "Code("); c++ {
		if reasons[c] == "" {
			t.Errorf("code %v has no reason", c)
		}
	}
}

func BenchmarkStatusTable(b *testing.B) {
	vms := make([]vmop.VM, 1000)
	for i := range vms {
		vms[i] = vmop.VM{ID: uint32(i + 1), Name: "vm", State: vmop.Running, PID: i + 2, MemoryBytes: 1 << 30, TTY: "/dev/pts/1"}
	}
	for b.Loop() {
		if err := writeTable(io.Discard, vms, newNames(), (&tool{}).stateColour()); err != nil {
			b.Fatal(err)
		}
	}
}
