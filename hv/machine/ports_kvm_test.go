package machine

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vmd/hv/kvm"
	"vmd/hv/pci"
	"vmd/hv/virtio/viornd"
)

func TestPortAccessDoesNotAllocate(t *testing.T) {
	m, out := newMachine(t, nil)
	out.text.Grow(1 << 16)
	for _, c := range []struct {
		name string
		port uint16
		out  bool
		size int
	}{
		{"console output", 0x3f8, true, 1},
		{"console status", 0x3fd, false, 1},
		{"PCI address", 0xcf8, true, 4},
		{"PCI data", 0xcfc, false, 4},
		{"PM timer", 0x608, false, 4},
		{"clock", 0x71, false, 1},
		{"nothing there", 0x5000, false, 2},
	} {
		x := kvm.IO{Out: c.out, Port: c.port, Size: c.size, Count: 1, Data: make([]byte, c.size)}
		if n := testing.AllocsPerRun(100, func() { portIO(&m.ports, x) }); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func TestStringAccessGoesToOnePort(t *testing.T) {
	m, out := newMachine(t, nil)
	portIO(&m.ports, kvm.IO{Out: true, Port: 0x3f8, Size: 1, Count: 5, Data: []byte("hello")})
	if out.String() != "hello" {
		t.Errorf("got %q", out)
	}
	b := make([]byte, 6)
	portIO(&m.ports, kvm.IO{Port: 0x5000, Size: 2, Count: 3, Data: b})
	if !bytes.Equal(b, bytes.Repeat([]byte{0xff}, 6)) {
		t.Errorf("read % x", b)
	}
	portIO(&m.ports, kvm.IO{}) // nothing to do
}

// Whatever a guest does to the board's registers, in whatever order, the board
// answers. Eight bytes make an access: direction and size, port or MMIO
// address, value.
func FuzzBoard(f *testing.F) {
	access := func(write, mmio bool, size byte, addr uint16, v uint32) []byte {
		b := []byte{size & 3, 0, 0, 0}
		if write {
			b[0] |= 4
		}
		if mmio {
			b[0] |= 8
		}
		binary.LittleEndian.PutUint16(b[2:], addr)
		return binary.LittleEndian.AppendUint32(b, v)
	}
	f.Add(access(true, false, 0, 0xcf9, 6))
	f.Add(cat(access(true, false, 2, 0xcf8, 0x80008010), access(true, false, 2, 0xcfc, 0xffffffff), access(false, false, 2, 0xcfc, 0)))
	f.Add(cat(access(true, false, 1, 0x602, 0x120), access(false, false, 2, 0x608, 0)))
	f.Add(cat(access(true, true, 0, 20, 1), access(true, true, 0, 20, 3), access(true, true, 1, 28, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _ := newMachine(t, func(c *Config) { c.Console = nil })
		if err := m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
			t.Fatal(err)
		}
		if err := m.pci.Assign(); err != nil {
			t.Fatal(err)
		}
		for ; len(b) >= 8; b = b[8:] {
			size := 1 << (b[0] & 3)
			addr := uint64(binary.LittleEndian.Uint16(b[2:]))
			p := make([]byte, 8)
			copy(p, b[4:8])
			to := &m.ports
			if b[0]&8 != 0 {
				to, addr = &m.mmio, m.windows.MMIO.Base+addr
			} else {
				size = min(size, 4)
			}
			if b[0]&4 != 0 {
				to.Write(addr, p[:size])
			} else {
				to.Read(addr, p[:size])
			}
		}
	})
}
