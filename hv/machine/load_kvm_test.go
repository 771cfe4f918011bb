package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"vmd/hv/boot"
	"vmd/hv/mem"
)

// elf64 makes an ELF64 file of one segment at kernelAt, entered at its start.
// With pvh it carries a PVH note that says so.
func elf64(code []byte, pvh bool) boot.Image {
	if !pvh {
		return elfNote(code, "", 0, nil, kernelAt)
	}
	return elfNote(code, "Xen\x00", 18, binary.LittleEndian.AppendUint64(nil, kernelAt), kernelAt)
}

// elfNote makes an ELF64 file of one segment at kernelAt and, if it has a name,
// a note.
func elfNote(code []byte, name string, typ uint32, desc []byte, entry uint64) boot.Image {
	const head, ph = 64, 56
	le := binary.LittleEndian
	note := cat(words(uint32(len(name)), uint32(len(desc)), typ), []byte(name), make([]byte, -len(name)&3), desc)
	n := 1
	if name != "" {
		n = 2
	}
	body := head + n*ph
	b := make([]byte, body)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // x86-64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], entry)
	le.PutUint64(b[32:], head)
	le.PutUint16(b[52:], head)
	le.PutUint16(b[54:], ph)
	le.PutUint16(b[56:], uint16(n))
	segment := func(i int, typ uint32, off, addr, size int) {
		p := b[head+i*ph:]
		le.PutUint32(p, typ)
		le.PutUint32(p[4:], 5)
		le.PutUint64(p[8:], uint64(off))
		le.PutUint64(p[16:], uint64(addr))
		le.PutUint64(p[24:], uint64(addr))
		le.PutUint64(p[32:], uint64(size))
		le.PutUint64(p[40:], uint64(size))
		le.PutUint64(p[48:], 4)
	}
	segment(0, 1, body, kernelAt, len(code))
	if n > 1 {
		segment(1, 4, body+len(code), 0, len(note))
	}
	return *blob(cat(b, code, note))
}

// out32 writes v to a port, in 32- and 64-bit code.
func out32(port uint16, v byte) []byte {
	return []byte{0x66, 0xba, byte(port), byte(port >> 8), 0xb0, v, 0xee}
}

// off32 enters S5.
var off32 = []byte{0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef}

func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name string
		pvh  bool
		code []byte
		want string
	}{
		// The magic number of start_info lies where EBX points (Xen,
		// docs/misc/pvh.pandoc): print its lowest byte, 'x'.
		{"PVH", true, []byte{0x8a, 0x03, 0x66, 0xba, 0xf8, 0x03, 0xee}, "x"},
		// mov rax, 0x4141414141414141 works only in 64-bit mode.
		{"flat", false, []byte{0x48, 0xb8, 'A', 'A', 'A', 'A', 'A', 'A', 'A', 'A', 0x66, 0xba, 0xf8, 0x03, 0xee}, "A"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, out := newMachine(t, nil)
			k := elf64(cat(c.code, out32(0x3f8, '.'), off32, halt), c.pvh)
			if err := m.Load(Boot{Kernel: k, Cmdline: "x"}); err != nil {
				t.Fatal(err)
			}
			start(t, m)
			end(t, m, PowerOff)
			if got := out.String(); got != c.want+"." {
				t.Errorf("guest printed %q, want %q", got, c.want+".")
			}
			if err := m.Load(Boot{Kernel: k}); err == nil {
				t.Error("loaded a kernel into a machine that has run")
			}
		})
	}
}

func TestLoadRefusesWhatIsNoKernel(t *testing.T) {
	m, _ := newMachine(t, nil)
	b := bytes.Repeat([]byte("no kernel"), 1000)
	if err := m.Load(Boot{Kernel: boot.Image{R: bytes.NewReader(b), Size: int64(len(b))}}); !errors.Is(err, boot.ErrFormat) {
		t.Errorf("got %v, want %v", err, boot.ErrFormat)
	}
}

// A guest looks for these in firmware's memory.
func TestLoadPutsTables(t *testing.T) {
	m, _ := newMachine(t, func(c *Config) { c.UUID = [16]byte{0xaa, 0xbb, 0xcc} })
	if err := m.Load(Boot{Kernel: elf64(halt, false)}); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[mem.GPA]string{rsdpAddr: "RSD PTR ", smbiosAddr: "_SM_"} {
		got := make([]byte, len(want))
		if err := m.mem.Read(at, got); err != nil || string(got) != want {
			t.Errorf("%q at %#x, want %q (%v)", got, at, want, err)
		}
	}
}
