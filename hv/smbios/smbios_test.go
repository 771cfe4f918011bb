package smbios

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"vmd/hv/mem"
	"vmd/internal/golden"
)

var uuid = [16]byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}

func build(t *testing.T, c Config) *Tables {
	t.Helper()
	tb, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

func TestGolden(t *testing.T) {
	tb := build(t, Config{UUID: uuid, Version: "1", Serial: "web", OEM: []string{"a=b"}, CPUs: 4, LowMemory: 3 << 30, HighMemory: 5 << 30})
	got := "entry point, structures at 0xf0020\n" + hex.Dump(tb.At(0xf0020)) + "structures\n" + hex.Dump(tb.Blob)
	golden.Check(t, "testdata/smbios.hex", got)
}

type structure struct {
	typ  byte
	data []byte // with the header
	strs []string
}

// walk finds the tables as Linux does and takes them apart (drivers/firmware/dmi_scan.c).
func walk(t *testing.T, m *mem.Memory) []structure {
	t.Helper()
	for gpa := mem.GPA(0xf0000); gpa < 0x100000; gpa += 16 {
		a, _ := m.Slice(gpa, 16)
		if string(a[:4]) != "_SM_" {
			continue
		}
		a, err := m.Slice(gpa, anchorSize)
		if err != nil || sum(a) != 0 || sum(a[16:]) != 0 || string(a[16:21]) != "_DMI_" {
			t.Fatalf("entry point at %#x: % x", gpa, a)
		}
		b, err := m.Slice(mem.GPA(le.Uint32(a[24:])), uint64(le.Uint16(a[22:])))
		if err != nil {
			t.Fatal(err)
		}
		out := split(b)
		if n := int(le.Uint16(a[28:])); len(out) != n {
			t.Errorf("%d structures, entry point says %d", len(out), n)
		}
		return out
	}
	t.Fatal("no entry point")
	return nil
}

func split(b []byte) (out []structure) {
	for len(b) > 4 {
		s := structure{typ: b[0], data: b[:b[1]]}
		end := int(b[1]) + bytes.Index(b[b[1]:], []byte{0, 0})
		for _, v := range bytes.Split(b[b[1]:end], []byte{0}) {
			s.strs = append(s.strs, string(v))
		}
		out, b = append(out, s), b[end+2:]
	}
	return out
}

func load(t *testing.T, c Config) []structure {
	t.Helper()
	m, err := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := build(t, c).Load(m, 0xf0000); err != nil {
		t.Fatal(err)
	}
	return walk(t, m)
}

func TestStructures(t *testing.T) {
	for _, tc := range []struct {
		name      string
		low, high uint64
		types     string
	}{
		{"below 4 GiB", 512 << 20, 0, "\x00\x01\x03\x04\x10\x11\x13\x20\x7f"},
		{"above 4 GiB", 3 << 30, 1 << 30, "\x00\x01\x03\x04\x10\x11\x13\x13\x20\x7f"},
		{"large", 3 << 30, 1 << 43, "\x00\x01\x03\x04\x10\x11\x13\x13\x20\x7f"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var types []byte
			var dimm uint64
			for _, s := range load(t, Config{UUID: uuid, CPUs: 2, LowMemory: tc.low, HighMemory: tc.high}) {
				types = append(types, s.typ)
				if s.typ == 17 {
					if dimm = uint64(le.Uint16(s.data[12:])); dimm == 0x7fff {
						dimm = uint64(le.Uint32(s.data[28:]))
					}
				}
			}
			if string(types) != tc.types {
				t.Errorf("types % x, want % x", types, tc.types)
			}
			if want := (tc.low + tc.high) >> 20; dimm != want {
				t.Errorf("memory device of %d MiB, want %d", dimm, want)
			}
		})
	}
}

// From SMBIOS 2.6 on, Linux prints the UUID with its first three fields
// swapped; what it prints must be what was asked for.
func TestUUID(t *testing.T) {
	s := load(t, Config{UUID: uuid, CPUs: 1, LowMemory: 1 << 28})[1]
	want := "33221100554477668899aabbccddeeff"
	if got := hex.EncodeToString(s.data[8:24]); got != want {
		t.Errorf("UUID bytes %s, want %s", got, want)
	}
}

func TestStringsAreCleaned(t *testing.T) {
	long := strings.Repeat("x", 200)
	s := load(t, Config{CPUs: 1, LowMemory: 1 << 28, Product: "a\x00b\nc", Version: long, OEM: []string{"", "é"}})
	if got := s[1].strs[1]; got != "a?b?c" {
		t.Errorf("product %q, want control bytes replaced", got)
	}
	if got := s[1].strs[2]; got != long[:maxString] {
		t.Errorf("version has %d bytes, want %d", len(got), maxString)
	}
	if got := s[4]; got.typ != 11 || got.strs[0] != " " || len(got.strs) != 2 {
		t.Errorf("OEM strings %q, want the empty one kept as a blank", got.strs)
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []Config{{}, {CPUs: 1 << 16}, {CPUs: 1, LowMemory: 1<<32 + 1}, {CPUs: 1, HighMemory: 1 << 53}, {CPUs: 1, OEM: make([]string, 17)}} {
		if _, err := Build(c); err == nil {
			t.Errorf("Build(%+v): no error", c)
		}
	}
	m, _ := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 1<<20)})
	tb := build(t, Config{CPUs: 1, LowMemory: 1 << 20})
	for _, at := range []mem.GPA{0xe0000, 0xf0008, 0xffff0} {
		if _, err := tb.Load(m, at); err == nil {
			t.Errorf("Load at %#x: no error", at)
		}
	}
}
