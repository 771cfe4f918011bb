package boot

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vmd/hv/mem"
)

// multiboot is an image of a page that begins with a header.
func multiboot(flags uint32, addrs []uint32) []byte {
	head := u32s(append([]uint32{mbMagic, flags, -(mbMagic + flags)}, addrs...)...)
	if len(addrs) == 1 {
		return head
	}
	return append(head, make([]byte, 4096-len(head))...)
}

// multiboot2 is the same with tags.
func multiboot2(tags ...uint32) []byte {
	n := uint32(mb2Header + 4*len(tags) + 8)
	b := u32s(append([]uint32{mb2Magic, 0, n, -(mb2Magic + n)}, tags...)...)
	b = append(b, u32s(0, 8)...)
	return append(b, make([]byte, 4096-len(b))...)
}

func TestMultiboot(t *testing.T) {
	// The header is 32 bytes into the file, and the image begins 16 before it.
	flat := append(make([]byte, 32), multiboot(1<<16|3, []uint32{mi + 16, mi, mi + 1000, mi + 8192, mi + 100})...)
	elf := elf32(mi+100, load(mi, 8192, string(multiboot(3, nil))))
	for _, tc := range []struct {
		name string
		file []byte
		at   mem.GPA // of the header
	}{{"flat", flat, mi + 16}, {"ELF", elf, mi}} {
		t.Run(tc.name, func(t *testing.T) {
			m := guest(t, 8*mi)
			dirty(t, m, mi+4096+32, 4096)
			initrd := image([]byte("module"))
			e, err := Load(Params{Mem: m, Kernel: image(tc.file), Initrd: &initrd, Cmdline: "hello"})
			if err != nil {
				t.Fatal(err)
			}
			if e.Format != "multiboot" || e.Mode != Prot32 || e.RIP != mi+100 || e.RAX != 0x2badb002 {
				t.Errorf("entry %+v", e)
			}
			if got := u32At(t, m, tc.at); got != mbMagic {
				t.Errorf("image: %#x where its header should be", got)
			}
			if got := bytesAt(t, m, mi+8192-16, 16); !bytes.Equal(got, make([]byte, 16)) {
				t.Errorf("BSS holds % x", got)
			}
			checkMultiboot(t, m, mem.GPA(e.RBX))
		})
	}
}

func dirty(t *testing.T, m *mem.Memory, at mem.GPA, n int) {
	t.Helper()
	if err := m.Write(at, bytes.Repeat([]byte{0xaa}, n)); err != nil {
		t.Fatal(err)
	}
}

func checkMultiboot(t *testing.T, m *mem.Memory, at mem.GPA) {
	t.Helper()
	w := func(off mem.GPA) uint32 { return u32At(t, m, at+off) }
	if w(0) != 0x24d || w(4) != 640 || w(8) != 7*1024 {
		t.Errorf("flags %#x, memory %d and %d KiB", w(0), w(4), w(8))
	}
	for off, want := range map[mem.GPA]string{16: "hello\x00", 64: "vmd\x00"} {
		if got := string(bytesAt(t, m, mem.GPA(w(off)), len(want))); got != want {
			t.Errorf("string at %d: %q, want %q", off, got, want)
		}
	}
	mod := bytesAt(t, m, mem.GPA(w(24)), 16)
	le := binary.LittleEndian
	start, end := le.Uint32(mod), le.Uint32(mod[4:])
	if w(20) != 1 || end-start != 6 || string(bytesAt(t, m, mem.GPA(start), 6)) != "module" || bytesAt(t, m, mem.GPA(le.Uint32(mod[8:])), 1)[0] != 0 {
		t.Errorf("%d modules, % x", w(20), mod)
	}
	want := u32s(20, 0, 0, 0x9fc00, 0, 1, 20, 0x9fc00, 0, 0x60400, 0, 2, 20, mi, 0, 7*mi, 0, 1)
	if got := bytesAt(t, m, mem.GPA(w(48)), int(w(44))); !bytes.Equal(got, want) {
		t.Errorf("memory map % x", got)
	}
}

func TestMultiboot2(t *testing.T) {
	m := guest(t, 8*mi)
	if err := m.Write(0xe0000, []byte("RSD PTR ")); err != nil {
		t.Fatal(err)
	}
	head := multiboot2(
		1, 20, 1, 6, 3, 0, // wants cmdline, map, modules
		1|1<<16, 12, 9, 0, // and ELF symbols, if there are any
		3, 12, mi+64, 0,
		10, 24, 0, 0, 0, 0,
		77|1<<16, 8)
	initrd := image([]byte("module"))
	e, err := Load(Params{
		Mem: m, Kernel: image(elf64(mi, load(mi, 4096, string(head)))), Initrd: &initrd, Cmdline: "hello", RSDP: 0xe0000,
	})
	if err != nil {
		t.Fatal(err)
	}
	if e.Format != "multiboot2" || e.Mode != Prot32 || e.RIP != mi+64 || e.RAX != 0x36d76289 {
		t.Errorf("entry %+v", e)
	}
	total := u32At(t, m, mem.GPA(e.RBX))
	b := bytesAt(t, m, mem.GPA(e.RBX), int(total))[8:]
	le := binary.LittleEndian
	var types []uint32
	for len(b) > 0 {
		typ, n := le.Uint32(b), le.Uint32(b[4:])
		types = append(types, typ)
		checkTag(t, m, typ, b[8:n])
		b = b[(n+7)&^7:]
	}
	if len(types) != 7 || types[6] != 0 {
		t.Errorf("tags %v", types)
	}
}

func checkTag(t *testing.T, m *mem.Memory, typ uint32, data []byte) {
	t.Helper()
	want := map[uint32][]byte{
		0:  {},
		1:  []byte("hello\x00"),
		2:  []byte("vmd\x00"),
		4:  u32s(640, 7*1024),
		6:  u32s(24, 0, 0, 0, 0x9fc00, 0, 1, 0, 0x9fc00, 0, 0x60400, 0, 2, 0, mi, 0, 7*mi, 0, 1, 0),
		15: append([]byte("RSD PTR "), make([]byte, 28)...),
	}[typ]
	if typ == 3 {
		at, end := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:])
		if got := bytesAt(t, m, mem.GPA(at), int(end-at)); string(got) != "module" {
			t.Errorf("module %q", got)
		}
		return
	}
	if want == nil || !bytes.Equal(data, want) {
		t.Errorf("tag %d: % x, want % x", typ, data, want)
	}
}
