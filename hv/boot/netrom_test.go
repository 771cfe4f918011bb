package boot

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// rom is an image of an expansion ROM of two units: header, PCI data structure,
// PnP header. kind is what firmware it is for.
func rom(kind, indicator byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 2*romUnit)
	copy(b, "\x55\xaa\x02")
	le.PutUint16(b[romPCIR:], 0x20)
	le.PutUint16(b[romPnP:], 0x40)
	copy(b[0x20:], "PCIR\xf4\x1a\x41\x10")
	b[0x20+pcirClass+2] = classNetwork
	le.PutUint16(b[0x20+pcirLength:], 2)
	b[0x20+pcirType], b[0x20+pcirIndicator] = kind, indicator
	copy(b[0x40:], "$PnP")
	le.PutUint16(b[0x40+pnpBEV:], 0x80)
	return summed(b)
}

// summed makes the sum of the bytes of b 0.
func summed(b []byte) []byte {
	var sum byte
	for _, c := range b[:len(b)-1] {
		sum += c
	}
	b[len(b)-1] = -sum
	return b
}

func romFile(b []byte) Image { return Image{R: bytes.NewReader(b), Size: int64(len(b))} }

func TestNetROM(t *testing.T) {
	pc := rom(pcirForPC, pcirLast)
	for name, file := range map[string][]byte{
		"alone":               pc,
		"before one for UEFI": append(rom(pcirForPC, 0), rom(3, pcirLast)...),
		"behind one for UEFI": append(rom(3, 0), pc...),
		"with something else": append(bytes.Clone(pc), 1, 2, 3),
		"with padding":        append(edited(func(b []byte) { b[0x20+pcirLength] = 4 }), make([]byte, 2*romUnit)...),
		"for virtio 0.9":      edited(func(b []byte) { b[0x27] = 0x00 }),
	} {
		b, err := NetROM(romFile(file))
		if err != nil || len(b) != 2*romUnit || b[0x20+pcirType] != pcirForPC || !bytes.Contains(file, b) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

// edited is a good image that change has been at.
func edited(change func(b []byte)) []byte {
	b := rom(pcirForPC, pcirLast)
	change(b)
	return summed(b)
}

func TestNetROMRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":         {nil, "0 bytes"},
		"too large":     {make([]byte, MaxNetROM+1), "4194305 bytes"},
		"firmware":      {make([]byte, 256<<10), "begins with 0000"},
		"no PCIR":       {edited(func(b []byte) { b[0x20] = 'Q' }), "no PCI data structure"},
		"PCIR outside":  {edited(func(b []byte) { b[romPCIR+1] = 0xff }), "PCI data structure: file has 1024 bytes"},
		"length 0":      {edited(func(b []byte) { b[0x20+pcirLength] = 0 }), "it says that it has no bytes"},
		"cut short":     {rom(pcirForPC, pcirLast)[:1000], "file has 1000 bytes, needs 1024"},
		"code outside":  {edited(func(b []byte) { b[romInitSize] = 3 }), "needs 1536"},
		"no code":       {edited(func(b []byte) { b[romInitSize] = 0 }), "file has 0 bytes"},
		"only for UEFI": {rom(3, pcirLast), "no image for a PC's BIOS"},
		"next missing":  {rom(3, 0), "image at offset 1024: file has 1024 bytes"},
		"next garbage":  {append(rom(3, 0), make([]byte, 512)...), "image at offset 1024: it begins with"},
		"of an e1000":   {edited(func(b []byte) { b[0x24], b[0x25] = 0x86, 0x80 }), "vendor 0x8086 and class 0x02"},
		"of a disk":     {edited(func(b []byte) { b[0x20+pcirClass+2] = 1 }), "class 0x01"},
		"checksum":      {append(edited(func([]byte) {})[:2*romUnit-1], 1), "checksum is"},
		"no PnP":        {edited(func(b []byte) { b[0x40] = 'S' }), "no boot entry vector"},
		"PnP outside":   {edited(func(b []byte) { b[romPnP+1] = 0xff }), "no boot entry vector"},
		"no vector":     {edited(func(b []byte) { b[0x40+pnpBEV] = 0 }), "no boot entry vector"},
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := NetROM(romFile(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d bytes, %v; want … %s", len(b), err, c.want)
			}
		})
	}
	if err := CheckNetROM(rom(3, pcirLast)); err == nil {
		t.Error("an image for other firmware was taken")
	}
	if _, err := NetROM(Image{R: strings.NewReader("\x55\xaa"), Size: 1024}); err == nil || !strings.Contains(err.Error(), "read 28 bytes") {
		t.Errorf("a file that is shorter than it was: %v", err)
	}
}

// What distributions have, those for UEFI with a BIOS's image in them included.
func TestNetROMOfPackages(t *testing.T) {
	found := false
	for _, path := range []string{"/usr/lib/ipxe/qemu/pxe-virtio.rom", "/usr/lib/ipxe/qemu/efi-virtio.rom"} {
		file, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		found = true
		if b, err := NetROM(romFile(file)); err != nil || !bytes.Contains(b, []byte("iPXE")) {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	if !found {
		t.Skip("needs the package ipxe-qemu")
	}
}

func FuzzNetROM(f *testing.F) {
	f.Add(rom(pcirForPC, pcirLast))
	f.Add(append(rom(3, 0), rom(pcirForPC, pcirLast)...))
	f.Add(rom(3, pcirLast))
	f.Fuzz(func(t *testing.T, file []byte) {
		b, err := NetROM(romFile(file))
		if err == nil && (len(b) == 0 || len(b)%romUnit != 0 || !bytes.Contains(file, b)) {
			t.Errorf("%d bytes of %d", len(b), len(file))
		}
		if err == nil && CheckNetROM(b) != nil {
			t.Errorf("what was taken is refused: %v", CheckNetROM(b))
		}
	})
}
