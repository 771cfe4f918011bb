package machine

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vmd/hv/boot"
)

// Kernels whose boot protocols have no other kernel to be tested with here:
// small ones of our own that look at what they were handed, byte for byte, on a
// real vCPU.

// claim is what a kernel expects to find: want at an address.
type claim struct {
	at   uint32
	want []byte
}

// checker is 32-bit code, entered at its start at 1 MiB, that compares claims
// with memory and prints a dot for each that holds, and a letter, from A on,
// for one that does not. Its table follows: address, length, bytes; a length of
// 0 ends it.
func checker(claims []claim) []byte {
	code := []byte{
		0xfc,      // cld
		0xb3, 'A', // mov bl, 'A'
		0xbd, 0, 0, 0, 0, // mov ebp, table
		0x8b, 0x75, 0x00, // next: mov esi, [ebp]
		0x8b, 0x4d, 0x04, // mov ecx, [ebp+4]
		0x85, 0xc9, // test ecx, ecx
		0x74, 0x17, // jz done
		0x8d, 0x7d, 0x08, // lea edi, [ebp+8]
		0x8d, 0x2c, 0x0f, // lea ebp, [edi+ecx]
		0xf3, 0xa6, // repe cmpsb
		0xb0, '.', // mov al, '.'
		0x74, 0x02, // jz print
		0x88, 0xd8, // mov al, bl
		0x66, 0xba, 0xf8, 0x03, // print: mov dx, 0x3f8
		0xee,       // out dx, al
		0xfe, 0xc3, // inc bl
		0xeb, 0xdf, // jmp next
	}
	code = cat(code, off32, halt) // done:
	le := binary.LittleEndian
	le.PutUint32(code[4:], kernelAt+uint32(len(code)))
	for _, c := range claims {
		code = le.AppendUint32(code, c.at)
		code = le.AppendUint32(code, uint32(len(c.want)))
		code = append(code, c.want...)
	}
	return append(code, make([]byte, 8)...)
}

const kernelAt = 0x100000

func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// saved is code that puts registers where a claim can look at them: ESP, CR0,
// EAX, EBX, and what CPUID says the hypervisor is.
const savedAt = 0x180000

var saveRegisters = []byte{
	0x89, 0x25, 0x00, 0x00, 0x18, 0x00, // mov [savedAt], esp
	0xa3, 0x08, 0x00, 0x18, 0x00, // mov [savedAt+8], eax
	0x89, 0x1d, 0x0c, 0x00, 0x18, 0x00, // mov [savedAt+12], ebx
	0x0f, 0x20, 0xc0, // mov eax, cr0
	0xa3, 0x04, 0x00, 0x18, 0x00, // mov [savedAt+4], eax
	0xb8, 0x00, 0x00, 0x00, 0x40, // mov eax, 0x40000000
	0x0f, 0xa2, // cpuid
	0x89, 0x1d, 0x10, 0x00, 0x18, 0x00, // mov [savedAt+16], ebx
	0x89, 0x0d, 0x14, 0x00, 0x18, 0x00, // mov [savedAt+20], ecx
	0x89, 0x15, 0x18, 0x00, 0x18, 0x00, // mov [savedAt+24], edx
}

// expect runs a kernel and wants all its claims to hold.
func expect(t *testing.T, b Boot, claims []claim) {
	t.Helper()
	m, out := newMachine(t, nil)
	if err := m.Load(b); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	end(t, m, PowerOff)
	if got := out.String(); got != string(bytes.Repeat([]byte{'.'}, len(claims))) {
		t.Errorf("of %d claims: %q", len(claims), got)
	}
}

// program is saveRegisters and a checker; the checker's table stands where it
// would without the former.
func program(claims []claim) []byte {
	code := checker(claims)
	le := binary.LittleEndian
	le.PutUint32(code[4:], le.Uint32(code[4:])+uint32(len(saveRegisters)))
	return cat(saveRegisters, code)
}

func TestOpenBSDKernel(t *testing.T) {
	esp := uint32(0x10000 - 36)
	args := cat(
		// BOOTARG_MEMMAP: RAM, what firmware has, RAM, the end's entry.
		words(0, 12+4*20, 12+4*20),
		words(0, 0, 0x9fc00, 0, 1), words(0x9fc00, 0, 0x60400, 0, 2), words(0x100000, 0, 0x300000, 0, 1), words(0, 0, 0, 0, 0),
		// BOOTARG_CONSDEV: com0 at 0x3f8, 115200 baud.
		words(5, 12+32, 12+32, 0x800, 115200, 0x3f8, 0, 0, 0, 0, 0),
		// BOOTARG_BOOTMAC.
		words(7, 12+8, 12+8), []byte{0xfe, 0xe1, 0xbb, 0xd1, 0x12, 0x34, 0, 0},
		words(0xffffffff))
	claims := []claim{
		{savedAt, words(esp)},
		{savedAt + 4, words(0x11)}, // protected mode without paging
		{savedAt + 16, []byte("OpenBSDVMM58")},
		// Return address, howto, bootdev, API version, esym, extmem, cnvmem,
		// length and place of the arguments.
		{esp, words(0, 0x2000|2, 0xa0000004, 0x0e, 0, 0, 0, uint32(len(args)), 0x2000)},
		{0x2000, args},
		{uint32(rsdpAddr), []byte("RSD PTR ")},
	}
	k := elfNote(program(claims), "OpenBSD\x00", 1, []byte{0, 0, 0, 0}, 0xffffffff80000000+kernelAt)
	expect(t, Boot{Kernel: k, Cmdline: "-s", NetMAC: &[6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0x12, 0x34}}, claims)
}

func TestMultibootKernels(t *testing.T) {
	memMap := []uint32{0, 0, 0x9fc00, 0, 1, 0x9fc00, 0, 0x60400, 0, 2, 0x100000, 0, 0x300000, 0, 1}
	t.Run("1", func(t *testing.T) {
		claims := []claim{
			{savedAt + 8, words(0x2badb002)},
			{savedAt + 4, words(0x11)},
			{savedAt + 12, words(0x6000)},
			{savedAt + 16, []byte("KVMKVMKVM\x00\x00\x00")},
			{0x6000, words(0x245, 640, 3<<10)},
			{0x6000 + 16, words(0x20000)},
			{0x20000, []byte("hello\x00")},
			{0x7000, cat(words(20), words(memMap[:5]...), words(20), words(memMap[5:10]...), words(20), words(memMap[10:]...))},
		}
		const flags = 1<<16 | 3
		h := words(0x1badb002, flags, 1<<32-0x1badb002-flags, 0, kernelAt, 0, 0, kernelAt)
		expect(t, Boot{Kernel: headAt(h, 12, claims), Cmdline: "hello"}, claims)
	})
	t.Run("2", func(t *testing.T) {
		info := cat(
			words(1, 14), []byte("hello\x00\x00\x00"),
			words(2, 12), []byte("vmd\x00\x00\x00\x00\x00"),
			words(4, 16, 640, 3<<10),
			words(6, 16+3*24, 24, 0), words(memMap[:5]...), words(0), words(memMap[5:10]...), words(0), words(memMap[10:]...), words(0),
			words(15, 8+36), []byte("RSD PTR "))
		claims := []claim{
			{savedAt + 8, words(0x36d76289)},
			{savedAt + 12, words(0x20000)},
			{0x20008, info},
		}
		n := uint32(16 + 16 + 24 + 8)
		h := words(0xe85250d6, 0, n, -(0xe85250d6 + n),
			3, 12, kernelAt, 0, // entry
			2, 24, 0, kernelAt, 0, 0, // addresses
			0, 8)
		expect(t, Boot{Kernel: headAt(h, 16+16+8, claims), Cmdline: "hello"}, claims)
	})
}

// headAt appends a header to a program; its own address goes to off in it.
func headAt(h []byte, off int, claims []claim) boot.Image {
	code := program(claims)
	code = append(code, make([]byte, -len(code)&7)...)
	binary.LittleEndian.PutUint32(h[off:], kernelAt+uint32(len(code)))
	return *blob(append(code, h...))
}
