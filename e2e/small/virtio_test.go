package small

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"vmd/e2e/harness"
)

// oldDriver is a tiny guest's code that answers each key with the first byte of
// the next sector of its first disk, which it reads as a driver of virtio 0.9
// does (virtio 1.3, 4.1.4.10 and 2.7.2): by ports, and with a page's number for
// the queue of 256. Without such registers it says "-".
//
//	0x300000  descriptors       0x303000  header of the request
//	0x301000  available ring    0x303010  its status
//	0x302000  used ring         0x304000  the sector
var oldDriver = []byte{
	0x66, 0xba, 0xf8, 0x0c, // mov dx, 0xcf8
	0xb8, 0x10, 0x20, 0x00, 0x80, // mov eax, 0x80002010
	0xef,                   // out dx, eax
	0x66, 0xba, 0xfc, 0x0c, // mov dx, 0xcfc
	0xed,       // in eax, dx
	0xa8, 0x01, // test al, 1
	0x75, 0x08, // jnz begin
	0xb0, 0x2d, // mov al, '-'
	0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xee, // out dx, al
	0xf4, // hlt
	// begin: reset, then the driver is there and wants no features
	0x83, 0xe0, 0xfc, // and eax, 0xfffffffc
	0x89, 0xc3, // mov ebx, eax
	0x8d, 0x53, 0x12, // lea edx, [ebx+18]
	0xb0, 0x00, // mov al, 0
	0xee,       // out dx, al
	0xb0, 0x03, // mov al, 3
	0xee,             // out dx, al
	0x8d, 0x53, 0x04, // lea edx, [ebx+4]
	0x31, 0xc0, // xor eax, eax
	0xef,             // out dx, eax
	0x8d, 0x53, 0x0e, // lea edx, [ebx+14]
	0x66, 0xef, // out dx, ax
	0x8d, 0x53, 0x08, // lea edx, [ebx+8]
	0xb8, 0x00, 0x03, 0x00, 0x00, // mov eax, 0x300
	0xef,             // out dx, eax
	0x8d, 0x53, 0x12, // lea edx, [ebx+18]
	0xb0, 0x07, // mov al, 7
	0xee,                         // out dx, al
	0xbf, 0x00, 0x00, 0x30, 0x00, // mov edi, 0x300000
	0xc7, 0x07, 0x00, 0x30, 0x30, 0x00, // mov dword [edi], 0x303000
	0xc6, 0x47, 0x08, 0x10, // mov byte [edi+8], 16
	0xc7, 0x47, 0x0c, 0x01, 0x00, 0x01, 0x00, // mov dword [edi+12], 0x10001
	0xc7, 0x47, 0x10, 0x00, 0x40, 0x30, 0x00, // mov dword [edi+16], 0x304000
	0xc6, 0x47, 0x19, 0x02, // mov byte [edi+25], 2
	0xc7, 0x47, 0x1c, 0x03, 0x00, 0x02, 0x00, // mov dword [edi+28], 0x20003
	0xc7, 0x47, 0x20, 0x10, 0x30, 0x30, 0x00, // mov dword [edi+32], 0x303010
	0xc6, 0x47, 0x28, 0x01, // mov byte [edi+40], 1
	0xc6, 0x47, 0x2c, 0x02, // mov byte [edi+44], 2
	0x31, 0xf6, // xor esi, esi
	// key: wait for one, and read the next sector
	0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
	0xec,       // in al, dx
	0xa8, 0x01, // test al, 1
	0x74, 0xf7, // jz key
	0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xec,                               // in al, dx
	0x89, 0x35, 0x08, 0x30, 0x30, 0x00, // mov [0x303008], esi
	0xc6, 0x05, 0x10, 0x30, 0x30, 0x00, 0x3f, // mov byte [0x303010], '?'
	0x66, 0xff, 0x05, 0x02, 0x10, 0x30, 0x00, // inc word [0x301002]
	0x8d, 0x53, 0x10, // lea edx, [ebx+16]
	0x31, 0xc0, // xor eax, eax
	0x66, 0xef, // out dx, ax
	// until the device has used the request
	0x66, 0xa1, 0x02, 0x20, 0x30, 0x00, // mov ax, [0x302002]
	0x66, 0x3b, 0x05, 0x02, 0x10, 0x30, 0x00, // cmp ax, [0x301002]
	0x75, 0xf1, // jne to the mov above
	0xa0, 0x10, 0x30, 0x30, 0x00, // mov al, [0x303010]
	0x84, 0xc0, // test al, al
	0x75, 0x05, // jnz say
	0xa0, 0x00, 0x40, 0x30, 0x00, // mov al, [0x304000]
	// say: its first byte, or why not
	0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xee,       // out dx, al
	0x46,       // inc esi
	0xeb, 0xb2, // jmp key
}

// lettered makes a disk whose sectors are of A, of B, and so on.
func lettered(t *testing.T, dir string) string {
	t.Helper()
	path := harness.NewDisk(t, dir, "letters.img", 1)
	var b []byte
	for l := byte('A'); l <= 'Z'; l++ {
		b = append(b, strings.Repeat(string(l), 512)...)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return path
}

// A guest that knows virtio 0.9 only has a disk if its definition says so, or
// that of the VM that it is an instance of.
func TestTransitionalVirtio(t *testing.T) {
	dir := setUp(t)
	kernel := harness.Tiny(t, dir, "k", "ready\n", oldDriver)
	vm := func(head string, lines ...string) string {
		name := strings.ReplaceAll(head, `"`, "")
		name = name[strings.LastIndexByte(name, ' ')+1:]
		if err := os.MkdirAll(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("disk %q", lettered(t, dir+"/"+name)))
		return fmt.Sprintf("vm %s {\n\tmemory 8M\n\tboot %q\n\t%s\n}\n", head, kernel, strings.Join(lines, "\n\t"))
	}
	conf := "staggered start parallel 9 delay 0\n" + vm(`"old"`, "virtio transitional") + vm(`"new"`, "virtio modern") + vm(`"plain"`) +
		vm(`"old" instance "same"`) + vm(`"old" instance "newer"`, "virtio modern")
	d := harness.StartVMD(t, conf)
	for name, want := range map[string]string{"old": "AB", "same": "AB", "new": "-", "newer": "-", "plain": "-"} {
		d.Await(name, "running")
		c := d.Console(name)
		c.Expect("ready\n")
		for _, l := range want {
			if l != '-' {
				c.Type("x")
			}
			c.Expect(string(l))
		}
	}
	// It is a change for the next start.
	d.WriteConfig(strings.Replace(conf, "virtio transitional", "virtio modern", 1))
	d.Vmctl("reload")
	for name, want := range map[string]bool{"old": true, "same": true, "new": false, "newer": false} {
		if out := d.Vmctl("status", "-v", name); strings.Contains(out, "virtio: by the next start") != want {
			t.Errorf("%s: changed is to be %v:\n%s", name, want, out)
		}
	}
}

// A guest takes its kind of devices along, and is refused where it is defined to
// have others.
func TestTransitionalVirtioMoves(t *testing.T) {
	dir := setUp(t)
	w := &travel{t: t, next: 'A', disk: lettered(t, dir), guest: harness.Tiny(t, dir, "k", "tiny a\n", oldDriver)}
	w.a = harness.StartVMD(t, w.define("a", "virtio transitional"))
	w.b = harness.StartBeside(t, w.define("a", "disable"))
	w.here = w.a
	w.a.Await("a", "running")
	w.counts()
	m := w.a.MoveTo(w.b, harness.MoveOptions{VM: "a", Confirm: true})
	if want := "it is defined with virtio modern, the guest has virtio transitional"; !strings.Contains(m.Received.Stderr, want) {
		t.Errorf("receive: status %d, %s; want %q", m.Received.Status, m.Received.Stderr, want)
	}
	w.stays(m)
	for _, conf := range []string{w.define("a", "disable", "virtio transitional"), ""} {
		w.b.WriteConfig(conf)
		w.b.Vmctl("reload")
		for range 2 { // there and back
			w.move(harness.MoveOptions{})
			w.counts()
		}
	}
}
