package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"vmd/hv/mem"
)

var bzBody = append(bytes.Repeat([]byte{0x90}, entry64Offset), "kernel"...)

func TestE820(t *testing.T) {
	low := mem.Region{Base: 0, Bytes: make([]byte, 4*mi)}
	high := mem.Region{Base: fourGiB, Bytes: make([]byte, 2*mi)}
	base := []Range{{0, 0x9fc00, RAM}, {0x9fc00, 0x60400, Reserved}, {0x100000, 3 * mi, RAM}}
	for _, tc := range []struct {
		name    string
		regions []mem.Region
		want    []Range
	}{
		{"low", []mem.Region{low}, base},
		{"low and high", []mem.Region{low, high}, append(slices.Clone(base), Range{fourGiB, 2 * mi, RAM})},
		{"tiny", []mem.Region{{Base: 0, Bytes: make([]byte, mi)}}, base[:2]},
	} {
		m, err := mem.New(tc.regions...)
		if err != nil {
			t.Fatal(err)
		}
		if got := E820(m); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestBzImage(t *testing.T) {
	m := guest(t, 32*mi)
	initrd := image(bytes.Repeat([]byte("initrd"), 1000))
	e, err := Load(Params{
		Mem: m, Kernel: image(bzImage(bzBody, nil)), Initrd: &initrd,
		Cmdline: "console=ttyS0", RSDP: 0xe0000, Seed: []byte("seedseed"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if e.Mode != Long64 || e.Format != "bzImage" || e.RIP != 16*mi+0x200 || e.RSI != 0x7000 || e.CS.L != 1 || e.RFLAGS != 2 {
		t.Errorf("entry %+v", e)
	}
	if e.CR0 != 0x80000033 || e.CR3 != 0x9000 || e.CR4 != 0x20 || e.EFER != 0x500 {
		t.Errorf("cr0 %#x cr3 %#x cr4 %#x efer %#x", e.CR0, e.CR3, e.CR4, e.EFER)
	}
	if got := bytesAt(t, m, 16*mi, len(bzBody)); !bytes.Equal(got, bzBody) {
		t.Error("kernel is not where it wants to be")
	}
	z := bytesAt(t, m, zeroPageAddr, pageSize)
	le := binary.LittleEndian
	at := le.Uint32(z[offRamdisk:])
	if size := le.Uint32(z[offRamdiskSize:]); size != 6000 || at != 32*mi-8192 {
		t.Errorf("initrd of %d bytes at %#x, want 6000 at %#x", size, at, 32*mi-8192)
	}
	if got := bytesAt(t, m, mem.GPA(at), 6000); !bytes.HasSuffix(got, []byte("initrdinitrd")) {
		t.Error("initrd is not where the zero page says")
	}
	if got := string(bytesAt(t, m, mem.GPA(le.Uint32(z[offCmdline:])), 14)); got != "console=ttyS0\x00" {
		t.Errorf("cmdline %q", got)
	}
	if z[offLoaderType] != 0xff || le.Uint64(z[offACPIRSDP:]) != 0xe0000 || string(z[offMagic:offMagic+4]) != "HdrS" {
		t.Errorf("zero page: type %#x rsdp %#x", z[offLoaderType], le.Uint64(z[offACPIRSDP:]))
	}
	if got := le.Uint32(z[0x26c:]); got != 0 {
		t.Errorf("zero page holds %#x after the header's end, want 0", got)
	}
	if z[offE820Count] != 3 || le.Uint64(z[offE820+40:]) != 0x100000 || le.Uint64(z[offE820+48:]) != 31*mi {
		t.Errorf("e820: %d entries, % x", z[offE820Count], z[offE820:offE820+60])
	}
	node := mem.GPA(le.Uint64(z[offSetupData:]))
	if got := bytesAt(t, m, node, 24); !bytes.Equal(got, []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x08\x00\x00\x00seedseed")) {
		t.Errorf("setup_data % x", got)
	}
}

func TestPageTablesMapLow4GiB(t *testing.T) {
	m := guest(t, 32*mi)
	e, err := Load(Params{Mem: m, Kernel: image(bzImage(bzBody, nil))})
	if err != nil {
		t.Fatal(err)
	}
	const addrMask = 0x000ffffffffff000
	for _, va := range []uint64{0, 0x7123, 0x1000000, 0x3fffffff, 0x40000000, 0xc0001000, 0xffffffff} {
		pml4e := u64At(t, m, mem.GPA(e.CR3+va>>39&0x1ff*8))
		pdpte := u64At(t, m, mem.GPA(pml4e&addrMask+va>>30&0x1ff*8))
		pde := u64At(t, m, mem.GPA(pdpte&addrMask+va>>21&0x1ff*8))
		if pml4e&3 != 3 || pdpte&3 != 3 || pde&0x83 != 0x83 || pde&addrMask|va&0x1fffff != va {
			t.Errorf("address %#x: entries %#x, %#x, %#x", va, pml4e, pdpte, pde)
		}
	}
	if got := u64At(t, m, e.GDT+mem.GPA(e.CS.Selector)); got != gdtCode64 {
		t.Errorf("GDT has %#x for CS", got)
	}
}

func TestBzImagePlacement(t *testing.T) {
	for _, tc := range []struct {
		name   string
		memMiB int
		change func(b []byte)
		rip    uint64 // 0: ErrMemory
	}{
		{"preferred", 20, nil, 16 * mi},
		{"low", 8, nil, 2 * mi},
		{"too small", 4, nil, 0},
		{"fixed", 8, func(b []byte) { b[offRelocatable] = 0 }, 0},
		{"preferred below 1 MiB", 8, func(b []byte) { clear(b[offPrefAddress : offPrefAddress+8]) }, 2 * mi},
		{"preferred wraps", 8, func(b []byte) { binary.LittleEndian.PutUint64(b[offPrefAddress:], ^uint64(0)-511) }, 2 * mi},
		{"all of memory", 64, func(b []byte) { binary.LittleEndian.PutUint32(b[offInitSize:], 1<<32-1) }, 0},
	} {
		e, err := Load(Params{Mem: guest(t, tc.memMiB*mi), Kernel: image(bzImage(bzBody, tc.change))})
		switch {
		case tc.rip == 0 && !errors.Is(err, ErrMemory):
			t.Errorf("%s: error %v, want ErrMemory", tc.name, err)
		case tc.rip != 0 && (err != nil || e.RIP != tc.rip+entry64Offset):
			t.Errorf("%s: rip %#x, error %v; want %#x", tc.name, e.RIP, err, tc.rip+entry64Offset)
		}
	}
}

func TestInitrd(t *testing.T) {
	initrd := func(n int) *Image { i := image(make([]byte, n)); return &i }
	below := func(max uint32) func(b []byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[offInitrdMax:], max) }
	}
	for _, tc := range []struct {
		name   string
		size   int
		change func(b []byte)
		want   uint32 // 0: ErrMemory
	}{
		{"top of memory", 4096, nil, 32*mi - 4096},
		{"just fits", 12 * mi, nil, 20 * mi},
		{"one more page", 12*mi + 1, nil, 0},
		{"larger than memory", 64 * mi, nil, 0},
		{"kernel's limit", 4096, below(24*mi - 1), 24*mi - 4096},
		{"limit not at a page's end", 4096, below(24*mi + 100), 24*mi - 4096},
		{"limit inside the kernel", 4096, below(18*mi - 1), 0},
		{"limit 4 GiB", 4096, below(1<<32 - 1), 32*mi - 4096},
	} {
		m := guest(t, 32*mi)
		_, err := Load(Params{Mem: m, Kernel: image(bzImage(bzBody, tc.change)), Initrd: initrd(tc.size)})
		if tc.want == 0 {
			if !errors.Is(err, ErrMemory) {
				t.Errorf("%s: error %v, want ErrMemory", tc.name, err)
			}
			continue
		}
		if got := u32At(t, m, zeroPageAddr+offRamdisk); err != nil || got != tc.want {
			t.Errorf("%s: at %#x, error %v; want %#x", tc.name, got, err, tc.want)
		}
	}
}

func TestPVH(t *testing.T) {
	text := load(mi, 0x3000, "pvh kernel")
	for _, tc := range []struct {
		name string
		file []byte
	}{
		{"8-byte note", elf64(0xdead, text, xenNote(4, 0, 0x10, 0, 0, 0, 0, 0))},
		{"4-byte note", elf64(0xdead, xenNote(4, 0, 0x10, 0), text)},
		{"32-bit", elf32(0xdead, text, xenNote(4, 0, 0x10, 0))},
		{"gzip", gzipped(t, elf64(0xdead, text, xenNote(4, 0, 0x10, 0)))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := guest(t, 4*mi)
			dirty, _ := m.Slice(mi, 0x4000)
			copy(dirty[0x2000:], "left over")
			initrd := image([]byte("initrd"))
			e, err := Load(Params{Mem: m, Kernel: image(tc.file), Initrd: &initrd, Cmdline: "quiet", RSDP: 0xe0000})
			if err != nil {
				t.Fatal(err)
			}
			if e.Mode != Prot32 || e.Format != "PVH" || e.RIP != 0x100004 || e.CR0 != 0x11 || e.CR4 != 0 || e.EFER != 0 || e.CS.DB != 1 || e.CS.L != 0 {
				t.Errorf("entry %+v", e)
			}
			if got := bytesAt(t, m, mi, 0x3000); !bytes.HasPrefix(got, []byte("pvh kernel\x00")) || bytes.Contains(got, []byte("left over")) {
				t.Error("segment not loaded, or its tail not zeroed")
			}
			checkStartInfo(t, m, mem.GPA(e.RBX))
		})
	}
}

func checkStartInfo(t *testing.T, m *mem.Memory, at mem.GPA) {
	t.Helper()
	if u32At(t, m, at) != startInfoMagic || u32At(t, m, at+4) != 1 || u64At(t, m, at+32) != 0xe0000 {
		t.Errorf("start_info % x", bytesAt(t, m, at, startInfoSize))
	}
	if got := string(bytesAt(t, m, mem.GPA(u64At(t, m, at+24)), 6)); got != "quiet\x00" {
		t.Errorf("cmdline %q", got)
	}
	mod := mem.GPA(u64At(t, m, at+16))
	if n := u32At(t, m, at+12); n != 1 || u64At(t, m, mod+8) != 6 {
		t.Fatalf("%d modules, the first has %d bytes", n, u64At(t, m, mod+8))
	}
	if got := string(bytesAt(t, m, mem.GPA(u64At(t, m, mod)), 6)); got != "initrd" {
		t.Errorf("initrd %q", got)
	}
	mm := mem.GPA(u64At(t, m, at+40))
	if n := u32At(t, m, at+48); n != 3 || u64At(t, m, mm+48) != mi || u64At(t, m, mm+56) != 3*mi || u32At(t, m, mm+64) != 1 {
		t.Errorf("memory map of %d entries: % x", n, bytesAt(t, m, mm, 72))
	}
}

func TestFlatELF(t *testing.T) {
	m := guest(t, 4*mi)
	e, err := Load(Params{Mem: m, Kernel: image(elf64(2*mi+1, load(2*mi, 4096, "\x90\xf4"), load(mi, 8, "data")))})
	if err != nil {
		t.Fatal(err)
	}
	if e.Mode != Long64 || e.Format != "ELF" || e.RIP != 2*mi+1 || e.RBX != uint64(startInfoAddr) || e.RSP == 0 {
		t.Errorf("entry %+v", e)
	}
	if got := string(bytesAt(t, m, mi, 4)); got != "data" {
		t.Errorf("second segment holds %q", got)
	}
}

func TestRefusesKernel(t *testing.T) {
	text := load(mi, 4096, "text")
	patch := func(b []byte, off int, v ...byte) []byte { copy(b[off:], v); return b }
	for _, tc := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "not a kernel that can be loaded"},
		{"text file", []byte("#!/bin/sh\n"), "not a kernel that can be loaded"},
		{"large zeros", make([]byte, 1<<16), "not a kernel that can be loaded"},
		{"bz cut off", bzImage(nil, nil), "cut off"},
		{"bz header only", bzImage(nil, nil)[:0x210], "needs 656 at offset 0"},
		{"bz old protocol", bzImage(bzBody, func(b []byte) { b[offVersion] = 0x0b }), "boot protocol 2.11, need 2.12"},
		{"bz 32-bit only", bzImage(bzBody, func(b []byte) { b[offXLoadFlags] = 0 }), "no 64-bit entry"},
		{"bz low", bzImage(bzBody, func(b []byte) { b[offLoadFlags] = 0 }), "loaded low"},
		{"bz short header", bzImage(bzBody, func(b []byte) { b[offJump] = 0x20 }), "header ends at 0x222"},
		{"bz setup beyond file", bzImage(bzBody, func(b []byte) { b[offSetupSects] = 255 }), "cut off"},
		{"bz alignment", bzImage(bzBody, func(b []byte) { b[offAlignment] = 3; b[offPrefAddress+7] = 1 }), "power of two"},
		{"elf header", []byte("\x7fELF\x02\x01"), "ELF header: file has 6 bytes"},
		{"elf cut at 60", elf64(mi, text)[:60], "ELF header"},
		{"elf big-endian", patch(elf64(mi, text), 5, 2), "not little-endian"},
		{"elf object", patch(elf64(mi, text), 16, 1), "type 1"},
		{"elf arm", patch(elf64(mi, text), 18, 183), "machine 183"},
		{"elf class", patch(elf64(mi, text), 4, 9), "class 9"},
		{"elf phentsize", patch(elf64(mi, text), 54, 57), "of 57 bytes"},
		{"elf no headers", elf64(mi), "0 program headers"},
		{"elf many headers", patch(elf64(mi, text), 56, 129), "129 program headers"},
		{"elf phoff", patch(elf64(mi, text), 32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "program headers: file has"},
		{"elf offset", patch(elf64(mi, text), ehdr64Size+8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "outside the file"},
		{"elf filesz over memsz", elf64(mi, load(mi, 3, "text")), "4 bytes in the file, 3 in memory"},
		{"elf low", elf64(0x7000, load(0x7000, 4096, "text")), "below 1 MiB"},
		{"elf above memory", elf64(5*mi, load(5*mi, 4096, "text")), "guest memory too small"},
		{"elf memsz", elf64(mi, load(mi, 3*mi+1, "text")), "needs 4 MiB at 0x100000, guest has 4 MiB"},
		{"elf wraps", elf64(mi, load(mi, 1<<64-mi, "text")), "guest memory too small"},
		{"elf overlap", elf64(mi, text, load(mi+4095, 2, "x")), "overlap"},
		{"elf entry outside", elf64(2*mi, text), "entry point 0x200000 is in no segment"},
		{"elf entry in a note", elf64(mi, testSeg{ptNote, mi, 4096, 4, []byte("text")}), "in no segment"},
		{"pvh entry outside", elf64(mi, text, xenNote(0, 0, 0x20, 0)), "in no segment"},
		{"32-bit without note", elf32(mi, text), "without a PVH note"},
		{"note of 2 bytes", elf32(mi, text, xenNote(4, 0)), "without a PVH note"},
		{"openbsd random data outside", elf64(mi, text, testSeg{ptOpenBSDRandomize, 2 * mi, 8, 8, make([]byte, 8)}), "in no segment"},
		{"multiboot of nothing", multiboot(0, nil), "no ELF file"},
		{"multiboot of a video mode", multiboot(4, nil), "wants 0x4"},
		{"multiboot image before the file", multiboot(1<<16, []uint32{mi + 64, mi, 0, 0, mi}), "header at 0 of the file"},
		{"multiboot image after its header", multiboot(1<<16, []uint32{mi, 2 * mi, 0, 0, mi}), "header at 0 of the file"},
		{"multiboot end before start", multiboot(1<<16, []uint32{mi, mi, mi - 4096, 0, mi}), "file has"},
		{"multiboot BSS end", multiboot(1<<16, []uint32{mi, mi, 0, mi + 4, mi}), "file has"},
		{"multiboot entry", multiboot(1<<16, []uint32{mi, mi, 0, 0, 2 * mi}), "in no segment"},
		{"multiboot low", multiboot(1<<16, []uint32{4096, 4096, 0, 0, 4096}), "below 1 MiB"},
		{"multiboot cut off", multiboot(1<<16, []uint32{mi}), "cut off"},
		{"multiboot2 of nothing", multiboot2(), "no ELF file"},
		{"multiboot2 tag of no bytes", multiboot2(1, 0), "tag 1 of 0 bytes"},
		{"multiboot2 tag", multiboot2(9, 12, 0, 0), "tag 9 is not supported"},
		{"multiboot2 request", multiboot2(1, 12, 9, 0), "information 9"},
		{"gzip rubbish", append([]byte{0x1f, 0x8b, 8}, make([]byte, 30)...), "gzip"},
		{"gzip cut off", gzipped(t, elf64(mi, text))[:40], "gzip"},
		{"gzip text", gzipped(t, []byte("hello")), "not a kernel that can be loaded"},
	} {
		_, err := Load(Params{Mem: guest(t, 4*mi), Kernel: image(tc.file)})
		if err == nil || !strings.HasPrefix(err.Error(), "kernel: ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want kernel: … %s", tc.name, err, tc.want)
		}
	}
}

func TestRefusesParams(t *testing.T) {
	ok := Params{Mem: guest(t, 32*mi), Kernel: image(bzImage(bzBody, nil))}
	broken := Image{io.NewSectionReader(strings.NewReader("short"), 0, 5), 4096}
	for _, tc := range []struct {
		name   string
		change func(*Params)
		want   string
	}{
		{"nothing", func(p *Params) { *p = Params{} }, "no memory or no image"},
		{"negative size", func(p *Params) { p.Kernel.Size = -1 }, "no memory or no image"},
		{"initrd without reader", func(p *Params) { p.Initrd = &Image{} }, "no memory or no image"},
		{"tiny guest", func(p *Params) { p.Mem = guest(t, mi) }, "need at least 2 MiB"},
		{"cmdline too long", func(p *Params) { p.Cmdline = strings.Repeat("x", 2048) }, "cmdline: 2048 bytes, the kernel takes 2047"},
		{"cmdline far too long", func(p *Params) {
			p.Kernel, p.Cmdline = image(elf64(mi, load(mi, 4, "text"))), strings.Repeat("x", 65536)
		}, "the kernel takes 65535"},
		{"cmdline with NUL", func(p *Params) { p.Cmdline = "a\x00b" }, "NUL"},
		{"initrd shorter than said", func(p *Params) { p.Initrd = &broken }, "initrd: read 4096 bytes at offset 0: unexpected EOF"},
	} {
		p := ok
		tc.change(&p)
		if _, err := Load(p); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %s", tc.name, err, tc.want)
		}
	}
}

func TestGunzipBoundsOutput(t *testing.T) {
	packed := image(gzipped(t, make([]byte, mi)))
	if _, err := gunzip(packed, mi); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
	if _, err := gunzip(packed, mi-1); err == nil || !strings.Contains(err.Error(), "unpacks to more than") {
		t.Errorf("one byte more: error %v", err)
	}
}

func TestGunzipReadsAnywhere(t *testing.T) {
	want := make([]byte, 100000)
	for i := range want {
		want[i] = byte(i * i >> 8)
	}
	i, err := gunzip(image(gzipped(t, want)), mi)
	if err != nil {
		t.Fatal(err)
	}
	var got [100]byte
	for _, off := range []uint64{0, 100, 99900, 5, 50000, 50050} {
		if err := i.read(got[:], off); err != nil || !bytes.Equal(got[:], want[off:off+100]) {
			t.Errorf("at %d: error %v", off, err)
		}
	}
	for range maxRewinds + 1 {
		err = i.read(got[:], 0)
	}
	if !errors.Is(err, errRewinds) {
		t.Errorf("after %d steps backwards: error %v, want %v", maxRewinds+1, err, errRewinds)
	}
}

// FuzzLoad: whatever the kernel file, Load returns, starts the guest only
// inside what it loaded, and leaves the firmware's part of memory alone.
func FuzzLoad(f *testing.F) {
	text := load(mi, 4096, "text")
	f.Add(bzImage(bzBody, nil), []byte("initrd"))
	f.Add(elf64(mi, text, load(2*mi, 64, "data")), []byte{})
	f.Add(elf64(0, text, xenNote(0, 0, 0x10, 0)), []byte("initrd"))
	f.Add(elf32(mi, text, xenNote(0, 0, 0x10, 0)), []byte{})
	f.Add(gzipped(f, elf64(mi, text)), []byte{})
	f.Add(openBSD(), []byte{})
	f.Add(multiboot(1<<16, []uint32{mi, mi, 0, mi + 4096, mi + 32}), []byte("initrd"))
	f.Add(multiboot2(2, 24, mi, mi, 0, mi+4096, 3, 12, mi, 0), []byte{})
	m := guest(f, 4*mi)
	all, _ := m.Slice(0, 4*mi)
	untouched := make([]byte, 0x100000-0x30000)
	f.Fuzz(func(t *testing.T, kernel, initrd []byte) {
		clear(all)
		i := image(initrd)
		e, err := Load(Params{Mem: m, Kernel: image(kernel), Initrd: &i, Cmdline: "quiet", Seed: []byte("seed")})
		if err == nil && (e.RIP < mi || e.RIP >= 4*mi) {
			t.Errorf("starts at %#x", e.RIP)
		}
		if !bytes.Equal(all[0x30000:0x100000], untouched) {
			t.Error("wrote between the command line and 1 MiB")
		}
	})
}
