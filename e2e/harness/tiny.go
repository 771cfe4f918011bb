package harness

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// Tiny guests are some bytes of 32-bit code in an ELF file with a PVH entry
// (hvm/start_info.h): they run on every KVM, in milliseconds. Each prints a text
// and goes on with one of these.
var (
	// TinyHalt waits for ever, without work for the host and deaf to its
	// power button: cli; hlt.
	TinyHalt = []byte{0xfa, 0xf4, 0xeb, 0xfc}
	// TinyPowerOff enters S5 (acpi 6.5, 4.8.3.2.1).
	TinyPowerOff = []byte{0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef}
	// TinyReset writes to the reset register.
	TinyReset = []byte{0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee}
	// TinyFault loads an empty IDT and divides by zero.
	TinyFault = []byte{0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0x31, 0xc9, 0xf7, 0xf1}
	// TinyEcho sends back what comes in on COM1.
	TinyEcho = []byte{
		0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
		0xec,       // in al, dx
		0xa8, 0x01, // test al, 1
		0x74, 0xf7, // jz to the first
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xec,       // in al, dx
		0xee,       // out dx, al
		0xeb, 0xef, // jmp to the first
	}
)

const (
	tinyAt     = 0x100000 // GPA of the code
	tinyOffset = 0x100    // of the code in the file
)

// Tiny writes a tiny guest that prints text and then runs code, with a stack,
// to a file of dir, and returns its path.
func Tiny(t testing.TB, dir, name, text string, code []byte) string {
	t.Helper()
	var b bytes.Buffer
	le := binary.LittleEndian
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, le, v) // into memory: it cannot fail
		}
	}
	body := tinySay(text, code)
	// Elf32_Ehdr, two Elf32_Phdr, and the note XEN_ELFNOTE_PHYS32_ENTRY.
	b.WriteString("\x7fELF\x01\x01\x01" + string(make([]byte, 9)))
	put(uint16(2), uint16(3), uint32(1), uint32(tinyAt), uint32(52), uint32(0), uint32(0),
		uint16(52), uint16(32), uint16(2), uint16(0), uint16(0), uint16(0))
	size := uint32(len(body))
	put(uint32(1), uint32(tinyOffset), uint32(tinyAt), uint32(tinyAt), size, size, uint32(7), uint32(1))
	put(uint32(4), uint32(116), uint32(0), uint32(0), uint32(20), uint32(20), uint32(4), uint32(4))
	put(uint32(4), uint32(4), uint32(18), []byte("Xen\x00"), uint32(tinyAt))
	b.Write(make([]byte, tinyOffset-b.Len()))
	b.Write(body)
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// tinySay is code that prints text on COM1 and runs rest, followed by text.
func tinySay(text string, rest []byte) []byte {
	head := []byte{
		0xbc, 0, 0, 0x20, 0, // mov esp, 2 MiB
		0xbe, 0, 0, 0, 0, // mov esi, text
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xac,       // lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz out of here
		0xee,       // out dx, al
		0xeb, 0xf8, // jmp to lodsb
	}
	binary.LittleEndian.PutUint32(head[6:], uint32(tinyAt+len(head)+len(rest)))
	return append(append(append(head, rest...), text...), 0)
}
