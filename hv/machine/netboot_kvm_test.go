package machine

import (
	"encoding/binary"
	"strings"
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio/vionet"
)

// netROM is a ROM for a virtio network interface. When it is initialised it
// prints its interface's place on the bus, and when it is booted from text, runs
// before and switches off.
func netROM(text string, before ...byte) []byte {
	const unit, pcir, pnp, start, entry = 512, 0x20, 0x40, 0x60, 0x80
	le := binary.LittleEndian
	b := make([]byte, 2*unit)
	copy(b, []byte{0x55, 0xaa, byte(len(b) / unit), 0xe9, start - 6, 0}) // jmp start
	le.PutUint16(b[0x18:], pcir)
	le.PutUint16(b[0x1a:], pnp)
	copy(b[pcir:], "PCIR\xf4\x1a\x41\x10")
	b[pcir+0x0f], b[pcir+0x10], b[pcir+0x15] = 2, byte(len(b)/unit), 0x80
	copy(b[pnp:], "$PnP\x01\x02")
	le.PutUint16(b[pnp+0x1a:], entry)
	copy(b[start:], []byte{
		0x52, 0xba, 0xf8, 0x03, 0xee, 0x5a, // print al: device and function
		0xb8, 0x20, 0x00, 0xcb, // it can be booted from; return far
	})
	copy(b[entry:], cat([]byte{
		0x0e, 0x1f, // ds = cs
		0xbe, 0x00, 0x01, // si = text
		0xac, 0x84, 0xc0, // lodsb, test al
		0x74, 0x06, // jz off
		0xb4, 0x0e, 0xcd, 0x10, // teletype
		0xeb, 0xf5, // next
	}, before, powerOff, halt))
	copy(b[0x100:], text)
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[len(b)-1] = -sum
	return b
}

// addNIC adds an interface that nobody is at the other end of.
func addNIC(t *testing.T, m *Machine, slot int, transitional bool) {
	t.Helper()
	add := m.AddVirtio
	if transitional {
		add = m.AddTransitional
	}
	nic := vionet.New(vionet.Config{MAC: [6]byte{2, 0, 0, 0, 0, byte(slot)}}, &noLink{wake: make(chan struct{}, 1)})
	if err := add(slot, "vionet", nic); err != nil {
		t.Fatal(err)
	}
}

// The ROM is there for each interface, and the first is booted from, though a
// disk could be.
func TestFirmwareBootsFromTheNetwork(t *testing.T) {
	fw := seabios(t)
	for _, c := range []struct {
		name         string
		nics         []int
		transitional bool
		starts       string // what the ROMs print
	}{
		{"one interface", []int{pci.SlotNIC}, false, "\x40"},
		{"transitional", []int{pci.SlotNIC}, true, "\x40"},
		{"three", []int{pci.SlotNIC, pci.SlotNIC + 1, pci.SlotNIC + 7}, false, "\x40\x48\x78"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, out, log := firmwareMachine(t, 1, hardDisk("hello from the disk."), nil)
			for _, slot := range c.nics {
				addNIC(t, m, slot, c.transitional)
			}
			if err := m.Load(Boot{Firmware: fw, Device: BootNet, NetROM: netROM("hello from the network.")}); err != nil {
				t.Fatal(err)
			}
			start(t, m)
			end(t, m, PowerOff)
			got := out.String()
			if !strings.Contains(got, "hello from the network") || !startsROMs(got, c.starts) {
				t.Errorf("guest printed %q, want ROMs at %q; firmware said\n%s", got, c.starts, log)
			}
			if first, n := strings.Index(log.String(), "Running option rom at "), strings.Count(log.String(), "Running option rom at "); first < 0 || n != len(c.nics) {
				t.Errorf("%d ROMs ran, want %d:\n%s", n, len(c.nics), log)
			} else if seg := log.String()[first+22:][:4]; !strings.Contains(log.String(), "Booting from "+seg+":") {
				t.Errorf("not booted from the first ROM, at %s:\n%s", seg, log)
			}
		})
	}
}

// startsROMs says whether the bytes of want, which firmware prints itself too,
// are in got in this order.
func startsROMs(got, want string) bool {
	for _, c := range want {
		i := strings.IndexRune(got, c)
		if i < 0 {
			return false
		}
		got = got[i+1:]
	}
	return true
}

// Without a ROM, or without an interface, nothing is booted from; for another
// device the ROM is not there.
func TestNetROMIsForTheNetworkOnly(t *testing.T) {
	rom := netROM("no")
	for _, c := range []struct {
		name  string
		boot  Boot
		nics  int
		order string
		files string
	}{
		{"net", Boot{Device: BootNet, NetROM: rom}, 1, "/pci@i0cf8/*@8\nHALT", "pci1af4,1041.rom"},
		{"both kinds", Boot{Device: BootNet, NetROM: rom}, 2, "/pci@i0cf8/*@8\nHALT", "pci1af4,1000.rom pci1af4,1041.rom"},
		{"no interface", Boot{Device: BootNet, NetROM: rom}, 0, "HALT", ""},
		{"no ROM", Boot{Device: BootNet}, 1, "HALT", ""},
		{"disk", Boot{Device: BootDisk, NetROM: rom}, 1, "/pci@i0cf8/*@4\nHALT", ""},
		{"any", Boot{NetROM: rom}, 1, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _, _ := firmwareMachine(t, 1, make([]byte, 512), nil)
			for i := range c.nics {
				addNIC(t, m, pci.SlotNIC+i, i > 0)
			}
			c.boot.Firmware = blob(spinROM())
			if err := m.Load(c.boot); err != nil {
				t.Fatal(err)
			}
			files, err := m.firmwareFiles(c.boot.Device)
			if err != nil {
				t.Fatal(err)
			}
			var order string
			var roms []string
			for _, f := range files {
				switch {
				case f.Name == fileBootOrder:
					order = strings.TrimSuffix(string(f.Data), "\x00")
				case strings.HasPrefix(f.Name, "pci"):
					roms = append(roms, f.Name)
				}
			}
			if got := strings.Join(roms, " "); got != c.files || order != c.order {
				t.Errorf("ROMs %q, boot order %q; want %q and %q", got, order, c.files, c.order)
			}
		})
	}
}

// A stream is believed of a ROM what boot.NetROM could have returned.
func TestShapeWithNetROM(t *testing.T) {
	m, _ := newMachine(t, nil)
	if err := m.Load(Boot{Firmware: blob(spinROM()), Device: BootNet, NetROM: netROM("x")}); err != nil {
		t.Fatal(err)
	}
	fresh, _ := newMachine(t, nil)
	for name, c := range map[string]struct {
		change func(*shape)
		ok     bool
	}{
		"as it is":        {func(*shape) {}, true},
		"none":            {func(s *shape) { s.NetROM = nil }, true},
		"empty":           {func(s *shape) { s.NetROM = []byte{} }, false},
		"garbage":         {func(s *shape) { s.NetROM = make([]byte, 4096) }, false},
		"with more":       {func(s *shape) { s.NetROM = append(netROM("x"), make([]byte, 512)...) }, false},
		"for a disk":      {func(s *shape) { s.Device = BootDisk }, false},
		"without SeaBIOS": {func(s *shape) { s.ROM = 0 }, false},
	} {
		s := m.shape()
		c.change(&s)
		if err := fresh.fits(&s); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The ROM travels with a guest whose firmware is at work, too.
func TestNetBootMoves(t *testing.T) {
	fw := seabios(t)
	t.Parallel()
	m, out, log := firmwareMachine(t, 1, nil, nil)
	add := func(m *Machine) { addNIC(t, m, pci.SlotNIC, false) }
	add(m)
	if err := m.Load(Boot{Firmware: fw, Device: BootNet, NetROM: netROM("hello from the network.", awaitLeave...)}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	m = moveAlong(t, m, out, log, add, 1, 300, 800, 1500)
	leave(t, m)
	end(t, m, PowerOff)
	if got := out.String(); !strings.Contains(got, "hello from the network") {
		t.Errorf("guest printed %q; firmware said\n%s", got, log)
	}
}
