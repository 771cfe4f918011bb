package boot

import (
	"bytes"
	"slices"
	"testing"

	"vmd/hv/mem"
)

// What Loaded names is all that the guest's memory holds afterwards, in an order
// that does not depend on chance.
func TestLoadedNamesAllThatIsThere(t *testing.T) {
	initrd := bytes.Repeat([]byte("initrd"), 1000)
	for name, kernel := range map[string][]byte{
		"bzImage":    bzImage(bzBody, nil),
		"PVH":        elf64(2*mi, load(2*mi, 3*pageSize, "kernel"), xenNote(0, 0, 32, 0)),
		"flat":       elf64(2*mi, load(2*mi, 3*pageSize, "kernel")),
		"OpenBSD":    openBSD(),
		"multiboot":  multiboot(1<<16, []uint32{2 * mi, 2 * mi, 0, 0, 2 * mi}),
		"multiboot2": elf64(mi, load(mi, 4096, string(multiboot2(3, 12, mi+64, 0)))),
	} {
		type run struct {
			at mem.GPA
			n  uint64
		}
		var runs [2][]run
		for i := range runs {
			m, img := guest(t, 32*mi), image(initrd)
			p := Params{Mem: m, Kernel: image(kernel), CBit: 1 << 47, Loaded: func(at mem.GPA, n uint64) { runs[i] = append(runs[i], run{at, n}) }}
			if name != "OpenBSD" {
				p.Initrd, p.Cmdline = &img, "console=ttyS0"
			}
			if _, err := Load(p); err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
			for _, r := range runs[i] {
				b, err := m.Slice(r.at, r.n)
				if err != nil {
					t.Fatal(err)
				}
				clear(b)
			}
			all := m.Regions()[0].Bytes
			if at := bytes.IndexFunc(all, func(r rune) bool { return r != 0 }); at >= 0 {
				t.Errorf("%s: nobody said that %#x was loaded", name, at)
			}
		}
		if len(runs[0]) < 3 || !slices.Equal(runs[0], runs[1]) {
			t.Errorf("%s: loaded %v, then %v", name, runs[0], runs[1])
		}
	}
}

// A kernel relies on the zeros after its data.
func TestLoadedNamesZeros(t *testing.T) {
	var end mem.GPA
	_, err := Load(Params{
		Mem: guest(t, 32*mi), Kernel: image(elf64(2*mi, load(2*mi, 3*pageSize, "kernel"))),
		Loaded: func(at mem.GPA, n uint64) {
			if at >= 2*mi {
				end = max(end, at+mem.GPA(n))
			}
		},
	})
	if err != nil || end != 2*mi+3*pageSize {
		t.Errorf("loaded up to %#x, error %v", end, err)
	}
}

func TestPageTablesHaveTheCBit(t *testing.T) {
	const c = 1 << 51
	var maps [2][]byte
	for i, bit := range []uint64{0, c} {
		m := guest(t, 32*mi)
		e, err := Load(Params{Mem: m, Kernel: image(bzImage(bzBody, nil)), CBit: bit})
		if err != nil {
			t.Fatal(err)
		}
		maps[i] = bytesAt(t, m, mem.GPA(e.CR3), 6*pageSize)
	}
	entries := 0
	for i := 0; i < len(maps[0]); i += 8 {
		plain, private := u64(maps[0][i:]), u64(maps[1][i:])
		if plain != 0 {
			entries++
			plain |= c
		}
		if private != plain {
			t.Errorf("entry %d is %#x, want %#x", i/8, private, plain)
		}
	}
	if entries != 1+4+4*512 {
		t.Errorf("%d entries", entries)
	}
}

func u64(b []byte) (v uint64) {
	for i := range 8 {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

func TestTablesAreACPIs(t *testing.T) {
	m := guest(t, 4*mi)
	want := []Range{
		{0, 0x9fc00, RAM}, {0x9fc00, 0x40400, Reserved}, {0xe0000, 0x20000, ACPI}, {0x100000, 3 * mi, RAM},
	}
	if got := withTables(E820(m)); !slices.Equal(got, want) {
		t.Errorf("map %v, want %v", got, want)
	}
}
