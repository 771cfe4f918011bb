package boot

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"vmd/hv/mem"
)

// openBSDEntry is the entry point's virtual address; the low 28 bits are where
// it is loaded.
const openBSDEntry = 0xffffffff80100000 + 8

// openBSD is a kernel with random data, symbols and a section nobody wants. Its
// sections stand in the order symbols, strings, names, as linkers write them.
func openBSD() []byte {
	b := elf64(openBSDEntry,
		load(mi, 4099, "text text random"),
		testSeg{ptOpenBSDRandomize, mi + 10, 6, 1, []byte("random")})
	le := binary.LittleEndian
	names := "\x00.symtab\x00.strtab\x00.shstrtab\x00.debug_line\x00.comment\x00"
	type section struct {
		name string
		typ  uint32
		data string
	}
	list := []section{
		{"", 0, ""}, {".symtab", shtSymtab, "symbols!!"}, {".strtab", shtStrtab, "strings"},
		{".debug_line", 1, "lines"}, {".comment", 1, "comment"}, {".shstrtab", shtStrtab, names},
	}
	var hs []byte
	for _, s := range list {
		h := make([]byte, shdrSize)
		le.PutUint32(h[shdrName:], uint32(strings.Index(names, s.name)))
		le.PutUint32(h[shdrType:], s.typ)
		le.PutUint64(h[shdrOffset:], uint64(len(b)))
		le.PutUint64(h[shdrBytes:], uint64(len(s.data)))
		b = append(b, s.data...)
		hs = append(hs, h...)
	}
	le.PutUint64(b[ehdrShoff:], uint64(len(b)))
	le.PutUint16(b[ehdrShentsz:], shdrSize)
	le.PutUint16(b[ehdrShnum:], uint16(len(list)))
	le.PutUint16(b[ehdrShstr:], uint16(len(list)-1))
	return append(b, hs...)
}

func TestOpenBSD(t *testing.T) {
	for _, packed := range []bool{false, true} {
		file := openBSD()
		if packed {
			file = gzipped(t, file)
		}
		m := guest(t, 8*mi)
		e, err := Load(Params{Mem: m, Kernel: image(file), Cmdline: "-s -ac", NetMAC: &[6]byte{0xfe, 0xe1, 0xbb, 1, 2, 3}})
		if err != nil {
			t.Fatal(err)
		}
		if e.Mode != Prot32 || e.Format != OpenBSD || e.RIP != mi+8 || e.RSP != 0xffdc || e.CR0&cr0PG != 0 {
			t.Errorf("entry %+v", e)
		}
		// After 4099 bytes at 1 MiB, at the next multiple of 8: an ELF header, six
		// section headers, and four sections in multiples of 8.
		const syms = mi + 4104
		const esym = syms + 64 + 6*64 + 16 + 8 + 8 + 48
		stack := bytesAt(t, m, mem.GPA(e.RSP), 36)
		want := u32s(0, 0x2000|0x400|2|1, 0xa0000004, 0xe, esym, 0, 0, 92+44+20+4, 0x2000)
		if !bytes.Equal(stack, want) {
			t.Errorf("stack % x\nwant  % x", stack, want)
		}
		if got := bytesAt(t, m, mi, 16); string(got[:10]) != "text text " || string(got[10:]) == "random" {
			t.Errorf("text is now %q", got)
		}
		checkArgs(t, m)
		checkSymbols(t, m, syms)
	}
}

func u32s(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// checkArgs compares the boot arguments with what sys/arch/amd64/include/
// biosvar.h says they look like.
func checkArgs(t *testing.T, m *mem.Memory) {
	t.Helper()
	want := bytes.Join([][]byte{
		u32s(0, 92, 92), // BOOTARG_MEMMAP
		u32s(0, 0, 0x9fc00, 0, 1),
		u32s(0x9fc00, 0, 0x60400, 0, 2),
		u32s(mi, 0, 7*mi, 0, 1),
		u32s(0, 0, 0, 0, 0),
		u32s(5, 44, 44), // BOOTARG_CONSDEV
		u32s(0x800, 115200, 0x3f8, 0, 0, 0, 0, 0),
		{7, 0, 0, 0, 20, 0, 0, 0, 20, 0, 0, 0, 0xfe, 0xe1, 0xbb, 1, 2, 3, 0, 0}, // BOOTARG_BOOTMAC
		{0xff, 0xff, 0xff, 0xff}, // BOOTARG_END
	}, nil)
	if got := bytesAt(t, m, 0x2000, len(want)); !bytes.Equal(got, want) {
		t.Errorf("arguments % x\nwant      % x", got, want)
	}
}

func checkSymbols(t *testing.T, m *mem.Memory, at mem.GPA) {
	t.Helper()
	le := binary.LittleEndian
	h := bytesAt(t, m, at, 64)
	if string(h[:4]) != "\x7fELF" || le.Uint64(h[40:]) != 64 || le.Uint64(h[32:]) != 0 || le.Uint16(h[54:]) != 0 || le.Uint16(h[56:]) != 0 || le.Uint16(h[60:]) != 6 {
		t.Errorf("ELF header % x", h)
	}
	for i, want := range []string{"", "symbols!!", "strings", "lines", "", "\x00.symtab"} {
		s := bytesAt(t, m, at+64+mem.GPA(64*i), 64)
		alloc := le.Uint64(s[8:])&2 != 0
		if alloc != (want != "") {
			t.Errorf("section %d: SHF_ALLOC %v", i, alloc)
		}
		if want == "" {
			continue
		}
		if got := string(bytesAt(t, m, at+mem.GPA(le.Uint64(s[24:])), len(want))); got != want {
			t.Errorf("section %d holds %q, want %q", i, got, want)
		}
	}
}

func TestOpenBSDWithoutSymbols(t *testing.T) {
	m := guest(t, 4*mi)
	note := testSeg{ptNote, 0, 0, 4, note(noteOpenBSD, noteOpenBSDID, []byte{0, 0, 0, 0})}
	e, err := Load(Params{Mem: m, Kernel: image(elf64(openBSDEntry, load(mi, 4096, "text"), note))})
	if err != nil || e.Format != OpenBSD {
		t.Fatalf("%+v, %v", e, err)
	}
	if got := u32At(t, m, mem.GPA(e.RSP)+16); got != 0 {
		t.Errorf("end of symbols %#x, want 0", got)
	}
	if got := u32At(t, m, mem.GPA(e.RSP)+4); got != 0x2000 {
		t.Errorf("howto %#x, want 0x2000", got)
	}
}

func TestOpenBSDRefuses(t *testing.T) {
	patch := func(off int, v ...byte) []byte { b := openBSD(); copy(b[off:], v); return b }
	shdr := func(i, field int) int {
		return int(binary.LittleEndian.Uint64(openBSD()[ehdrShoff:])) + i*shdrSize + field
	}
	far := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}
	for _, tc := range []struct {
		name, cmdline string
		file          []byte
		want          string
	}{
		{"unknown option", "-x", openBSD(), `"-x"`},
		{"no option", "quiet", openBSD(), `"quiet"`},
		{"lone dash", "-", openBSD(), `"-"`},
		{"entry outside", "", patch(24, 0, 0, 0x30), "in no segment"},
		{"section headers outside", "", patch(ehdrShoff, far...), "symbols: file has"},
		{"many section headers", "", patch(ehdrShnum, 1, 1), "257 section headers"},
		{"odd section headers", "", patch(ehdrShentsz, 65), "of 65 bytes"},
		{"names outside", "", patch(shdr(5, shdrOffset), far...), "names of sections"},
		{"symbols outside", "", patch(shdr(1, shdrOffset), far...), "section 1"},
		{"symbols without end", "", patch(shdr(1, shdrBytes), far...), "section 1"},
	} {
		_, err := Load(Params{Mem: guest(t, 4*mi), Kernel: image(tc.file), Cmdline: tc.cmdline})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want … %s", tc.name, err, tc.want)
		}
	}
}

func TestIsFirmware(t *testing.T) {
	zeros := make([]byte, MaxFirmware+1)
	for _, tc := range []struct {
		name string
		file []byte
		want bool
	}{
		{"firmware", zeros[:256<<10], true},
		{"smallest", zeros[:16], true},
		{"largest", zeros[:MaxFirmware], true},
		{"too small", zeros[:15], false},
		{"too large", zeros, false},
		{"ELF", elf64(mi, load(mi, 4096, "text")), false},
		{"broken ELF", []byte("\x7fELF and more bytes"), false},
		{"bzImage", bzImage(bzBody, nil), false},
		{"multiboot", multiboot(0, nil), false},
		{"gzip", gzipped(t, zeros[:1000]), false},
		{"web page", []byte("<html>\r\n\t<h1>404 Pas trouvé</h1>\n"), false},
		{"script", append([]byte("#!/bin/sh\n"), bytes.Repeat([]byte("# text\n"), 1000)...), false},
		{"text and code", append([]byte("firmware of 1999\n"), zeros[:16]...), true},
		{"flash", append(bytes.Repeat([]byte{0xff}, 4000), zeros[:96]...), true},
	} {
		if got := IsFirmware(image(tc.file)); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
