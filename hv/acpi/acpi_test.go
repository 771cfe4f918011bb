package acpi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmd/hv/mem"
	"vmd/internal/golden"
)

var configs = map[string]Config{
	"one-cpu": {
		CPUs:   1,
		MMIO32: Window{0xc0000000, 0x3ec00000},
	},
	"all-parts": {
		CPUs:    4,
		MMIO32:  Window{0xc0000000, 0x3ec00000},
		MMIO64:  Window{0x4000000000, 0x1000000000},
		FWCfg:   true,
		PVPanic: true,
	},
	"many-cpus": {
		CPUs:   257,
		MMIO32: Window{0xc0000000, 0x3ec00000},
	},
}

func build(t *testing.T, c Config) *Tables {
	t.Helper()
	tb, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

// The tables are part of the machine's version: they must not change unnoticed.
func TestGolden(t *testing.T) {
	for n, c := range configs {
		t.Run(n, func(t *testing.T) {
			blob, rsdp := build(t, c).At(0xe0040)
			got := "rsdp\n" + hex.Dump(rsdp) + "tables at 0xe0040\n" + hex.Dump(blob)
			golden.Check(t, filepath.Join("testdata", n+".hex"), got)
		})
	}
}

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

// walk follows a loaded set of tables from the RSDP as a guest does.
func walk(t *testing.T, m *mem.Memory, at mem.GPA) map[string][]byte {
	t.Helper()
	read := func(gpa mem.GPA, n uint64) []byte {
		b, err := m.Slice(gpa, n)
		if err != nil {
			t.Fatalf("read %d bytes at %#x: %v", n, gpa, err)
		}
		return b
	}
	out := make(map[string][]byte)
	get := func(gpa uint64) []byte {
		h := read(mem.GPA(gpa), headerSize)
		b := read(mem.GPA(gpa), uint64(binary.LittleEndian.Uint32(h[4:])))
		if string(b[:4]) != "FACS" && sum(b) != 0 {
			t.Errorf("%s: bytes add up to %#x, want 0", b[:4], sum(b))
		}
		out[string(b[:4])] = b
		return b
	}
	r := read(at, rsdpSize)
	if string(r[:8]) != "RSD PTR " || sum(r[:20]) != 0 || sum(r) != 0 {
		t.Fatalf("no RSDP at %#x: % x", at, r)
	}
	x := get(binary.LittleEndian.Uint64(r[24:]))
	for i := headerSize; i < len(x); i += 8 {
		get(binary.LittleEndian.Uint64(x[i:]))
	}
	f := out["FACP"]
	if f == nil {
		t.Fatal("no FADT")
	}
	d := get(uint64(binary.LittleEndian.Uint32(f[fadtDSDT:])))
	if d2 := get(binary.LittleEndian.Uint64(f[fadtXDSDT:])); &d[0] != &d2[0] {
		t.Error("DSDT and X_DSDT differ")
	}
	facs := binary.LittleEndian.Uint32(f[fadtFACS:])
	if get(uint64(facs)); facs%64 != 0 {
		t.Errorf("FACS at %#x, want a multiple of 64", facs)
	}
	return out
}

func TestLoad(t *testing.T) {
	for n, c := range configs {
		t.Run(n, func(t *testing.T) {
			m, err := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 1<<20)})
			if err != nil {
				t.Fatal(err)
			}
			tb := build(t, c)
			end, err := tb.Load(m, 0xe0000)
			if err != nil {
				t.Fatal(err)
			}
			if end > 0xf0000 {
				t.Errorf("tables end at %#x, want below 0xf0000 where SMBIOS begins", end)
			}
			got := walk(t, m, 0xe0000)
			for _, sig := range []string{"XSDT", "FACP", "FACS", "DSDT", "APIC"} {
				if got[sig] == nil {
					t.Errorf("no %s", sig)
				}
			}
			if n := countCPUs(got["APIC"]); n != c.CPUs {
				t.Errorf("MADT has %d CPUs, want %d", n, c.CPUs)
			}
		})
	}
}

func countCPUs(madt []byte) (n int) {
	for b := madt[44:]; len(b) > 0; b = b[b[1]:] {
		if b[0] == 0 || b[0] == 9 {
			n++
		}
	}
	return n
}

func TestLoadRefuses(t *testing.T) {
	m, _ := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 0xe0100)})
	tb := build(t, configs["one-cpu"])
	for _, at := range []mem.GPA{0xe0000, 0xe0008, 0x200000, 0xffffffe0} {
		if _, err := tb.Load(m, at); err == nil {
			t.Errorf("Load at %#x into %#x bytes: no error", at, m.Size())
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	ok := configs["one-cpu"]
	for n, change := range map[string]func(*Config){
		"no cpu":        func(c *Config) { c.CPUs = 0 },
		"too many cpus": func(c *Config) { c.CPUs = MaxCPUs + 1 },
		"no window":     func(c *Config) { c.MMIO32 = Window{} },
		"window wraps":  func(c *Config) { c.MMIO32.Size = 1 << 32 },
		"64 wraps":      func(c *Config) { c.MMIO64 = Window{1 << 63, 1<<63 + 1} },
		"bad link":      func(c *Config) { c.Links = [4]uint32{10, 10, 11, 24} },
	} {
		c := ok
		change(&c)
		if _, err := Build(c); err == nil {
			t.Errorf("%s: Build(%+v): no error", n, c)
		}
	}
}

// runScript does what firmware does with a loader script.
func runScript(t *testing.T, script []byte, files map[string][]byte, addr map[string]mem.GPA) {
	t.Helper()
	str := func(b []byte) string { return string(bytes.TrimRight(b[:fileNameSize], "\x00")) }
	u32 := binary.LittleEndian.Uint32
	for ; len(script) > 0; script = script[cmdSize:] {
		switch c := script[4:cmdSize]; u32(script) {
		case cmdAllocate:
			if files[str(c)] == nil || uint32(addr[str(c)])%u32(c[56:]) != 0 {
				t.Fatalf("allocate %q aligned to %d", str(c), u32(c[56:]))
			}
		case cmdAddPointer:
			Pointer{int(u32(c[112:])), int(c[116])}.apply(files[str(c)], addr[str(c[56:])])
		case cmdAddChecksum:
			Checksum{int(u32(c[56:])), int(u32(c[60:])), int(u32(c[64:]))}.apply(files[str(c)])
		default:
			t.Fatalf("unknown command % x", script[:4])
		}
	}
}

func TestScript(t *testing.T) {
	tb := build(t, configs["all-parts"])
	files := map[string][]byte{TablesFile: bytes.Clone(tb.Blob), RSDPFile: bytes.Clone(tb.RSDP)}
	runScript(t, tb.Script(), files, map[string]mem.GPA{TablesFile: 0x7ffe0000, RSDPFile: 0xf5a40})
	blob, rsdp := tb.At(0x7ffe0000)
	if !bytes.Equal(files[TablesFile], blob) || !bytes.Equal(files[RSDPFile], rsdp) {
		t.Error("firmware that follows the script gets other tables than At")
	}
}

func TestPkgLength(t *testing.T) {
	for _, tc := range []struct {
		body int
		want []byte
	}{
		{0, []byte{1}},
		{62, []byte{63}},
		{63, []byte{0x41, 4}}, // 65
		{4093, []byte{0x4f, 0xff}},
		{4094, []byte{0x81, 0x00, 0x01}}, // 4097
		{1<<20 - 4, []byte{0x8f, 0xff, 0xff}},
		{1<<20 - 3, []byte{0xc1, 0x00, 0x00, 0x01}},
	} {
		if got := pkg(make([]byte, tc.body)); !bytes.Equal(got[:len(tc.want)], tc.want) || len(got) != tc.body+len(tc.want) {
			t.Errorf("pkg of %d bytes: begins % x, has %d bytes; want % x, %d", tc.body, got[:4], len(got), tc.want, tc.body+len(tc.want))
		}
	}
}

func TestEncodings(t *testing.T) {
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"eisa", eisaID("PNP0A03"), "0c41d00a03"},
		{"zero", integer(0), "00"},
		{"one", integer(1), "01"},
		{"byte", integer(0xff), "0aff"},
		{"word", integer(0x100), "0b0001"},
		{"dword", integer(0xc0000000), "0c000000c0"},
		{"qword", integer(1 << 32), "0e0000000001000000"},
		{"ports", ports(0x3f8, 8), "4701f803f8030108"},
		{"irq", edgeIRQ(4), "221000"},
		{"level irq", levelIRQ(10), "89060009010a000000"},
		{"name", name("_UID", integer(1)), "085f55494401"},
		{"root", seg(`\_SB`), "5c5f53425f"},
	} {
		if got := hex.EncodeToString(tc.got); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// Where ACPICA's compiler is installed, it must read the DSDT without a
// complaint and compile what it read.
func TestDisassembles(t *testing.T) {
	iasl, err := exec.LookPath("iasl")
	if err != nil {
		t.Skip("iasl is not installed")
	}
	for n, c := range configs {
		t.Run(n, func(t *testing.T) {
			m, _ := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 1<<20)})
			if _, err := build(t, c).Load(m, 0xe0000); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for sig, b := range walk(t, m, 0xe0000) {
				if err := os.WriteFile(filepath.Join(dir, sig+".aml"), b, 0o644); err != nil {
					t.Fatal(err)
				}
				out := run(t, dir, iasl, "-d", sig+".aml")
				if strings.Contains(out, "Invalid") || strings.Contains(out, "rror:") {
					t.Errorf("iasl -d %s: %s", sig, out)
				}
			}
			out := run(t, dir, iasl, "-f", "DSDT.dsl")
			if !strings.Contains(out, " 0 Errors, 0 Warnings") {
				t.Errorf("iasl on the disassembled DSDT: %s", out)
			}
		})
	}
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
