package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmd/hv/boot"
	"vmd/hv/disk"
	"vmd/hv/pci"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/vioscsi"
	"vmd/internal/testenv"
)

// seabios is the distribution's firmware.
func seabios(t *testing.T) *boot.Image {
	t.Helper()
	testenv.KVM(t)
	b, err := os.ReadFile("/usr/share/seabios/bios-256k.bin")
	if err != nil {
		t.Skipf("needs the package seabios: %v", err)
	}
	return blob(b)
}

func blob(b []byte) *boot.Image { return &boot.Image{R: bytes.NewReader(b), Size: int64(len(b))} }

// medium makes a disk or CD with these bytes.
func medium(t *testing.T, b []byte) disk.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := disk.NewRaw(f, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// bootCode is a boot sector that reads the first block after it with INT 13h,
// prints it with INT 10h up to a NUL, runs before, and switches off.
func bootCode(before ...byte) []byte {
	b := cat([]byte{
		0x31, 0xc0, 0x8e, 0xd8, // ds = 0
		0x8e, 0xd0, 0xbc, 0x00, 0x7c, // stack below
		0xbe, 0x00, 0x7d, // si = packet at 0x7d00
		0xb4, 0x42, 0xcd, 0x13, // extended read
		0x72, 0x0e, // jc off
		0xbe, 0x00, 0x80, // si = 0x8000
		0xac, 0x84, 0xc0, // lodsb, test al
		0x74, 0x06, // jz off
		0xb4, 0x0e, 0xcd, 0x10, // teletype
		0xeb, 0xf5, // next
	}, before, powerOff, halt)
	b = append(b, make([]byte, 512-len(b))...)
	copy(b[0x100:], []byte{16, 0, 1, 0, 0x00, 0x80, 0, 0, 1}) // one block, to 0:8000, from address 1
	b[510], b[511] = 0x55, 0xaa
	return b
}

// hardDisk has bootCode and text for it.
func hardDisk(text string, before ...byte) []byte {
	b := append(bootCode(before...), text...)
	return append(b, make([]byte, 1<<20-len(b))...)
}

// cdROM has the same by way of El Torito, without emulation (El Torito 1.0,
// sections 2 to 4).
func cdROM(text string) []byte {
	const block = 2048
	b := make([]byte, 32*block)
	le := binary.LittleEndian
	copy(b[1*block:], text)
	copy(b[16*block:], "\x01CD001\x01")
	copy(b[17*block:], "\x00CD001\x01EL TORITO SPECIFICATION")
	le.PutUint32(b[17*block+0x47:], 19)
	copy(b[18*block:], "\xffCD001\x01")
	c := b[19*block:]
	c[0], c[30], c[31] = 1, 0x55, 0xaa // validation entry
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += le.Uint16(c[i:])
	}
	le.PutUint16(c[28:], -sum)
	c[32] = 0x88 // bootable
	le.PutUint16(c[38:], 4)
	le.PutUint32(c[40:], 20)
	copy(b[20*block:], bootCode())
	return b
}

// firmwareMachine has what a guest with a disk and a CD has.
func firmwareMachine(t *testing.T, cpus int, disk, cd []byte) (m *Machine, out, log *tty) {
	t.Helper()
	log = newTTY()
	m, out = newMachine(t, func(c *Config) {
		c.Memory, c.CPUs, c.FirmwareLog, c.UUID = 32<<20, cpus, log, [16]byte{0xde, 0xad, 15: 0xef}
	})
	if disk != nil {
		d, err := vioblk.New(medium(t, disk), vioblk.Config{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.AddVirtio(pci.SlotDisk, "vioblk0", d); err != nil {
			t.Fatal(err)
		}
	}
	if cd != nil {
		if err := m.AddVirtio(pci.SlotCD, "cd0", vioscsi.New(medium(t, cd))); err != nil {
			t.Fatal(err)
		}
	}
	return m, out, log
}

func TestFirmwareBoots(t *testing.T) {
	fw := seabios(t)
	hd, cd := hardDisk("hello from the disk."), cdROM("hello from the CD.")
	for _, c := range []struct {
		name     string
		disk, cd []byte
		dev      BootDevice
		want     string
	}{
		{"disk", hd, nil, BootAny, "hello from the disk"},
		{"CD", nil, cd, BootAny, "hello from the CD"},
		{"CD by boot device", hd, cd, BootCD, "hello from the CD"},
		{"disk by boot device", hd, cd, BootDisk, "hello from the disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, out, log := firmwareMachine(t, 1, c.disk, c.cd)
			if err := m.Load(Boot{Firmware: fw, Device: c.dev}); err != nil {
				t.Fatal(err)
			}
			start(t, m)
			end(t, m, PowerOff)
			// Not the full stop: a last character waits for a clock tick (SeaBIOS
			// src/sercon.c).
			if got := out.String(); !strings.Contains(got, c.want) {
				t.Errorf("guest printed %q, want %q; firmware said\n%s", got, c.want, log)
			}
		})
	}
}

// What firmware was told it says, and with nothing to boot it stays.
func TestFirmwareFindsNothingToBoot(t *testing.T) {
	fw := seabios(t)
	t.Parallel()
	m, out, log := firmwareMachine(t, 2, make([]byte, 1<<20), nil)
	if err := m.Load(Boot{Firmware: fw, Device: BootDisk}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	out.wait(t, "No bootable device.")
	if !strings.Contains(out.String(), "Machine UUID dead0000-0000-0000-0000-0000000000ef") {
		t.Errorf("console shows %q", out)
	}
	for _, want := range []string{
		"Running on QEMU (i440fx)",
		"QEMU fw_cfg DMA interface supported",
		"qemu/e820: addr 0x0000000000000000 len 0x0000000002000000 [RAM]",
		"Moving pm_base to 0x600",
		"Found 2 cpu(s) max supported 2 cpu(s)",
		"Copying SMBIOS",
		"ACPI: parse DSDT",
		"sercon: configuring as primary display",
		"Searching bootorder for: /pci@i0cf8/*@4",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("firmware did not say %q:\n%s", want, log)
		}
	}
	m.Stop()
	end(t, m, Killed)
}

// spinROM is firmware of one page that prints from its copy below 1 MiB, tries
// to write to the one below 4 GiB, and switches off.
func spinROM() []byte {
	b := make([]byte, 4096)
	for i := range b {
		b[i] = 0xf4
	}
	copy(b, cat([]byte{
		0x2e, 0xa0, 0xf0, 0xff, // mov al, cs:[0xfff0]: of this copy
		0x2e, 0xc6, 0x06, 0xf0, 0xff, 0x90, // overwrite it
		0xba, 0xf8, 0x03, 0xee, // print what was there
	}, powerOff, halt))
	copy(b[4096-16:], []byte{0xea, 0x00, 0xf0, 0x00, 0xf0}) // jmp f000:f000
	return b
}

func TestFirmwareIsWhereAPCHasIt(t *testing.T) {
	m, out := newMachine(t, nil)
	if err := m.Load(Boot{Firmware: blob(spinROM())}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	end(t, m, PowerOff)
	if out.String() != "\xea" {
		t.Errorf("guest printed %q", out)
	}
	b := make([]byte, 1)
	if err := m.mem.Read(0xffff0, b); err != nil || b[0] != 0x90 {
		t.Errorf("copy below 1 MiB holds %#x, want what the guest wrote", b)
	}
	if m.rom[4096-16] != 0xea {
		t.Error("the guest changed its firmware")
	}
}

type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errors.New("cannot be read") }

func TestFirmwareRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		image  *boot.Image
		memory uint64
		want   string
	}{
		"too small":     {blob(make([]byte, boot.MinFirmware-1)), 4 << 20, "15 bytes"},
		"too large":     {blob(make([]byte, boot.MaxFirmware+1)), 4 << 20, "4194305 bytes"},
		"little memory": {blob(make([]byte, 256<<10)), 512 << 10, "needs 1 MiB"},
		"read error":    {&boot.Image{R: unreadable{}, Size: 4096}, 4 << 20, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := newMachine(t, func(cfg *Config) { cfg.Memory = c.memory })
			if err := m.Load(Boot{Firmware: c.image}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want … %s", err, c.want)
			}
		})
	}
}

func TestFirmwareOfAnySize(t *testing.T) {
	for _, size := range []int{16, 100, 4096, 200 << 10, boot.MaxFirmware} {
		m, out := newMachine(t, nil)
		b := make([]byte, size)
		// Far jumps lead nowhere in so little: print at once.
		copy(b[size-16:], []byte{0xba, 0xf8, 0x03, 0xb0, '!', 0xee, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x34, 0xef, 0xf4})
		if err := m.Load(Boot{Firmware: blob(b)}); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		start(t, m)
		end(t, m, PowerOff)
		if out.String() != "!" {
			t.Errorf("%d bytes: guest printed %q", size, out)
		}
	}
}

func TestBootOrder(t *testing.T) {
	full, _, _ := firmwareMachine(t, 1, make([]byte, 512), make([]byte, 2048))
	empty, _ := newMachine(t, nil)
	net, _ := newMachine(t, nil)
	if err := net.AddVirtio(pci.SlotNIC+1, "in an interface's place", viornd.New()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		m    *Machine
		dev  BootDevice
		want string
	}{
		{full, BootAny, ""},
		{full, BootDisk, "/pci@i0cf8/*@4\nHALT"},
		{full, BootCD, "/pci@i0cf8/*@3/*@0/*@0,0\nHALT"},
		{full, BootNet, "HALT"},
		{net, BootNet, "HALT"},
		// What is not there is not replaced by something else.
		{empty, BootAny, ""},
		{empty, BootDisk, "HALT"},
		{empty, BootCD, "HALT"},
	} {
		if got := c.m.bootOrder(c.dev); got != c.want {
			t.Errorf("device %d: %q, want %q", c.dev, got, c.want)
		}
	}
}
