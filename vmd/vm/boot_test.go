package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"vmd/hv/machine"
	"vmd/internal/vmop"
)

// given makes the files that came with a request.
func given(t *testing.T, contents map[string][]byte) files {
	t.Helper()
	f := files{}
	for name, b := range contents {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		f[name] = file
	}
	return f
}

// bootROM is the least that passes for a network boot ROM.
func bootROM() []byte {
	b := make([]byte, 512)
	copy(b, []byte{0x55, 0xaa, 1})
	b[0x18], b[0x1a] = 0x20, 0x40
	copy(b[0x20:], "PCIR\xf4\x1a\x41\x10")
	b[0x2f], b[0x30], b[0x35] = 2, 1, 0x80
	copy(b[0x40:], "$PnP")
	b[0x5a] = 0x80
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[511] = -sum
	return b
}

func TestWhatToBoot(t *testing.T) {
	kernel := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 64)...)
	bios, rom := append(make([]byte, 4000), bytes.Repeat([]byte{0xf4}, 96)...), bootROM()
	for _, c := range []struct {
		name   string
		device string
		nics   int
		files  map[string][]byte
		code   vmop.Code // of the error, if there is one

		firmware, rom, mac bool
	}{
		{name: "kernel", nics: 1, files: map[string][]byte{"kernel": kernel}},
		{name: "kernel, net", device: "net", nics: 1, files: map[string][]byte{"kernel": kernel}, mac: true},
		{name: "kernel, net, ROM", device: "net", nics: 1, files: map[string][]byte{"kernel": kernel, "netrom": rom}, mac: true},
		{name: "kernel, net, garbage", device: "net", nics: 1, files: map[string][]byte{"kernel": kernel, "netrom": bios}, mac: true},
		{name: "firmware", nics: 1, files: map[string][]byte{"firmware": bios}, firmware: true},
		{name: "firmware, net", device: "net", nics: 1, files: map[string][]byte{"firmware": bios, "netrom": rom}, firmware: true, rom: true},
		{name: "firmware, net, no interface", device: "net", files: map[string][]byte{"firmware": bios}, firmware: true},
		{name: "firmware, net, no ROM", device: "net", nics: 1, files: map[string][]byte{"firmware": bios}, code: vmop.ErrNoBootROM},
		{name: "firmware, net, garbage", device: "net", nics: 1, files: map[string][]byte{"firmware": bios, "netrom": bios}, code: vmop.ErrNoBootROM},
		{name: "firmware, disk", device: "disk", nics: 1, files: map[string][]byte{"firmware": bios}, firmware: true},
		{name: "own firmware, net", device: "net", nics: 1, files: map[string][]byte{"kernel": bios, "netrom": rom}, firmware: true, rom: true},
		{name: "own firmware, net, no ROM", device: "net", nics: 1, files: map[string][]byte{"kernel": bios}, code: vmop.ErrNoBootROM},
		{name: "own firmware with an initrd", nics: 1, files: map[string][]byte{"kernel": bios, "initrd": bios}, code: vmop.ErrKernel},
		{name: "nothing", nics: 1, code: vmop.ErrNoFirmware},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &vm{files: given(t, c.files), spec: vmop.VMStartRequest{BootDevice: c.device, NICs: make([]vmop.NICArg, c.nics)}}
			b, _, err := v.whatToBoot()
			if c.code != vmop.OK {
				if err == nil || codeOf(err) != c.code {
					t.Errorf("error %v, want %v", err, c.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (b.Firmware != nil) != c.firmware || (b.Kernel.R != nil) == c.firmware || (b.NetROM != nil) != c.rom || (b.NetMAC != nil) != c.mac {
				t.Errorf("%+v", b)
			}
			if c.device == "net" && b.Device != machine.BootNet {
				t.Errorf("boot device %v", b.Device)
			}
		})
	}
}
