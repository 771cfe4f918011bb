package chipset

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"vmd/hv/mem"
)

const fwTestRAM = 64 << 10

func newFWCfg(t testing.TB, files ...FWCfgFile) (*FWCfg, *mem.Memory) {
	t.Helper()
	m, err := mem.New(mem.Region{Base: 0, Bytes: bytes.Repeat([]byte{0xaa}, fwTestRAM)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFWCfg(FWCfgConfig{Mem: m, UUID: [16]byte{1, 2, 15: 16}, CPUs: 3, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return f, m
}

// read selects an item and reads n bytes, one by one.
func (f *FWCfg) read(key uint16, n int) []byte {
	out16(f, fwSelect, key)
	b := make([]byte, n)
	for i := range b {
		b[i] = in8(f, fwData)
	}
	return b
}

var twoFiles = []FWCfgFile{{"etc/b", []byte("second")}, {"etc/a", []byte("1st")}}

func TestFWCfgItems(t *testing.T) {
	f, _ := newFWCfg(t, twoFiles...)
	name := func(s string) string { return s + strings.Repeat("\x00", fwNameSize-len(s)) }
	for _, tc := range []struct {
		name string
		key  uint16
		want string // and zeros after it
	}{
		{"signature", 0, "QEMU"},
		{"interfaces", 1, "\x03\x00\x00\x00"},
		{"UUID", 2, "\x01\x02" + strings.Repeat("\x00", 13) + "\x10"},
		{"no graphics", 4, "\x01\x00"},
		{"CPUs", 5, "\x03\x00"},
		{"at most", 0xf, "\x03\x00"},
		{"directory", 0x19, "\x00\x00\x00\x02" +
			"\x00\x00\x00\x03\x00\x20\x00\x00" + name("etc/a") +
			"\x00\x00\x00\x06\x00\x21\x00\x00" + name("etc/b")},
		{"first file", 0x20, "1st"},
		{"second file", 0x21, "second"},
		{"no third", 0x22, ""},
		{"legacy e820", 0x8003, ""},
	} {
		if got := f.read(tc.key, len(tc.want)+3); string(got) != tc.want+"\x00\x00\x00" {
			t.Errorf("%s: % x, want % x and zeros", tc.name, got, tc.want)
		}
	}
}

func TestFWCfgSelectsAtPowerOn(t *testing.T) {
	f, _ := newFWCfg(t)
	if got := in8(f, fwData); got != 'Q' {
		t.Errorf("first byte %q, want Q", got)
	}
	out8(f, fwData, 'x') // nothing can be written
	if got := in8(f, fwData); got != 'E' {
		t.Errorf("second byte %q, want E", got)
	}
}

func TestFWCfgDMASignature(t *testing.T) {
	f, _ := newFWCfg(t)
	var b [8]byte
	f.Read(fwDMAHigh, b[:4])
	f.Read(fwDMALow, b[4:])
	if string(b[:]) != "QEMU CFG" {
		t.Errorf("read %q", b)
	}
}

// request sends a request that lies at reqAt and returns what became of its control
// word.
func (f *FWCfg) request(t *testing.T, m *mem.Memory, control, n uint32, addr uint64) uint32 {
	t.Helper()
	const reqAt = 0x1000
	be := binary.BigEndian
	req := be.AppendUint32(be.AppendUint32(nil, control), n)
	if err := m.Write(reqAt, be.AppendUint64(req, addr)); err != nil {
		t.Fatal(err)
	}
	f.start(reqAt)
	b := make([]byte, 4)
	if err := m.Read(reqAt, b); err != nil {
		t.Fatal(err)
	}
	return be.Uint32(b)
}

// start writes the DMA registers.
func (f *FWCfg) start(at uint64) {
	b := binary.BigEndian.AppendUint64(nil, at)
	f.Write(fwDMAHigh, b[:4])
	f.Write(fwDMALow, b[4:])
}

func TestFWCfgDMA(t *testing.T) {
	const to = 0x2000
	for _, tc := range []struct {
		name    string
		control uint32
		n       uint32
		addr    uint64
		answer  uint32
		want    string // at to
	}{
		{"read a file", 0x21<<16 | 8 | 2, 6, to, 0, "second\xaa"},
		{"read past its end", 0x20<<16 | 8 | 2, 5, to, 0, "1st\x00\x00\xaa"},
		{"read what is not there", 0x77<<16 | 8 | 2, 2, to, 0, "\x00\x00\xaa"},
		{"without select", 2, 2, to, 0, "QE\xaa"},
		{"nothing asked", 0, 2, to, 0, "\xaa"},
		{"nothing to read", 0x20<<16 | 8 | 2, 0, 1 << 60, 0, "\xaa"},
		{"write", 0x20<<16 | 8 | 16, 2, to, 1, "\xaa"},
		{"end of memory", 0x20<<16 | 8 | 2, 2, fwTestRAM - 1, 1, "\xaa"},
		{"wraps", 0x20<<16 | 8 | 2, 2, 1<<64 - 1, 1, "\xaa"},
		{"too long", 0x20<<16 | 8 | 2, 1<<32 - 1, to, 1, "\xaa"},
	} {
		f, m := newFWCfg(t, twoFiles...)
		if got := f.request(t, m, tc.control, tc.n, tc.addr); got != tc.answer {
			t.Errorf("%s: answer %#x, want %#x", tc.name, got, tc.answer)
		}
		got := make([]byte, len(tc.want))
		if err := m.Read(to, got); err != nil || string(got) != tc.want {
			t.Errorf("%s: read %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestFWCfgDMASkips(t *testing.T) {
	f, m := newFWCfg(t, twoFiles...)
	f.request(t, m, 0x21<<16|8|4, 3, 0)
	if got := in8(f, fwData); got != 'o' {
		t.Errorf("after 3 bytes skipped: %q, want o", got)
	}
	f.request(t, m, 4, 1<<32-1, 0)
	if got := in8(f, fwData); got != 0 {
		t.Errorf("after all skipped: %q, want 0", got)
	}
}

func TestFWCfgDMAOutsideMemory(t *testing.T) {
	f, _ := newFWCfg(t)
	for _, at := range []uint64{fwTestRAM - 15, fwTestRAM, 1<<64 - 1, 1<<64 - 16, 1 << 40} {
		f.start(at) // nobody to tell
	}
	if got := in8(f, fwData); got != 'Q' {
		t.Errorf("first byte %q, want Q", got)
	}
}

func TestFWCfgRefuses(t *testing.T) {
	m, err := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 4096)})
	if err != nil {
		t.Fatal(err)
	}
	good := FWCfgConfig{Mem: m, CPUs: 1}
	for name, change := range map[string]func(*FWCfgConfig){
		"no memory":      func(c *FWCfgConfig) { c.Mem = nil },
		"no CPU":         func(c *FWCfgConfig) { c.CPUs = 0 },
		"no name":        func(c *FWCfgConfig) { c.Files = []FWCfgFile{{"", nil}} },
		"long name":      func(c *FWCfgConfig) { c.Files = []FWCfgFile{{strings.Repeat("x", 56), nil}} },
		"same name":      func(c *FWCfgConfig) { c.Files = []FWCfgFile{{"a", nil}, {"b", nil}, {"a", nil}} },
		"too many files": func(c *FWCfgConfig) { c.Files = make([]FWCfgFile, fwMaxFiles+1) },
		"long file":      func(c *FWCfgConfig) { c.Files = []FWCfgFile{{"a", make([]byte, fwMaxTransfer+1)}} },
	} {
		c := good
		change(&c)
		if _, err := NewFWCfg(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestFWCfgState(t *testing.T) {
	f, _ := newFWCfg(t, twoFiles...)
	f.read(0x21, 2)
	f.Write(fwDMAHigh, []byte{0, 0, 0, 7})
	s := f.Save()
	g, _ := newFWCfg(t, twoFiles...)
	if err := g.Restore(s); err != nil {
		t.Fatal(err)
	}
	if got := in8(g, fwData); got != 'c' || g.Save().DMAHigh != 7 {
		t.Errorf("next byte %q, high %d; want c, 7", got, g.Save().DMAHigh)
	}
	for _, read := range []int64{-1, 1 << 40, 1<<63 - 1, -1 << 63} { // from a stream that lies
		if g.Restore(FWCfgState{Key: 0x20, Read: read}) == nil {
			t.Errorf("a cursor at %d was taken", read)
		}
	}
	if err := g.Restore(FWCfgState{Key: 0x7777}); err != nil {
		t.Errorf("an item that is not there: %v", err) // a guest can select it
	}
	if got := in8(g, fwData); got != 0 {
		t.Errorf("nothing to read: %q, want 0", got)
	}
}

func TestFWCfgDoesNotAllocate(t *testing.T) {
	f, _ := newFWCfg(t, twoFiles...)
	b, two := make([]byte, 1), []byte{0x21, 0}
	if n := testing.AllocsPerRun(100, func() { f.Write(fwSelect, two); f.Read(fwData, b); f.start0() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var zero4 = make([]byte, 4)

func (f *FWCfg) start0() { f.Write(fwDMALow, zero4) }

// Whatever a guest writes, in whatever order, and whatever it has in its
// memory: the device answers, and what it holds stays as it is.
func FuzzFWCfg(f *testing.F) {
	f.Add([]byte{0, 0x21, 0, 1, 0, 0}, []byte{})
	f.Add([]byte{2, 0, 0, 3, 0, 0}, []byte{0, 0x21, 0, 10, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0x20, 0})
	f.Add([]byte{3, 0xff, 0xfd}, []byte{0, 0x19, 0, 10, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, accesses, ram []byte) {
		dev, m := newFWCfg(t, twoFiles...)
		b, err := m.Slice(0, fwTestRAM)
		if err != nil {
			t.Fatal(err)
		}
		copy(b, ram)
		for ; len(accesses) >= 3; accesses = accesses[3:] {
			v := accesses[1:3]
			switch accesses[0] & 7 {
			case 0:
				dev.Write(fwSelect, v)
			case 1:
				dev.Read(fwData, make([]byte, 1))
			case 2:
				dev.Write(fwDMAHigh, []byte{0, 0, v[0], v[1]})
			case 3:
				dev.Write(fwDMALow, []byte{0, 0, v[0], v[1]})
			default:
				n := 1 << (v[1] & 3)
				off := min(uint64(v[0])%FWCfgSize, FWCfgSize-uint64(n))
				dev.Write(off, make([]byte, n))
				dev.Read(off, make([]byte, n))
			}
		}
		if got := dev.read(0x21, 7); string(got) != "second\x00" {
			t.Errorf("the file is now %q", got)
		}
	})
}
