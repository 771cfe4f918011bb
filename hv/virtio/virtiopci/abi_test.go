package virtiopci_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"vmd/hv/disk"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/vioscsi"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
	"vmd/hv/virtio/vmmci"
	"vmd/internal/golden"
)

// blank is an image of 1 GiB that nobody reads.
type blank struct{ disk.Image }

func (blank) Size() int64 { return 1 << 30 }

// card is a link that can do all that a tap can.
type card struct{ vionet.Link }

func (card) Offloads() uint32 { return vionet.TUN_F_CSUM | vionet.TUN_F_TSO4 | vionet.TUN_F_TSO6 }

// ran is a device as it stands in a machine of vmd's.
type ran struct {
	name string
	dev  func(h *virtiotest.Host) virtio.Device
	opts virtiopci.Options
}

func diskWith(t *testing.T, c vioblk.Config) func(*virtiotest.Host) virtio.Device {
	return func(*virtiotest.Host) virtio.Device {
		d, err := vioblk.New(blank{}, c)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func cardWith(c vionet.Config, links int) func(*virtiotest.Host) virtio.Device {
	c.MAC = [6]byte{0xfe, 0xe1, 0xbb, 1, 2, 3}
	return func(*virtiotest.Host) virtio.Device {
		ls := make([]vionet.Link, links)
		for i := range ls {
			ls[i] = card{}
		}
		return vionet.New(c, ls...)
	}
}

// TestGuestSeesTheSameDevices holds what a guest sees of each device against a
// golden file: ids, registers, capabilities, queues, features, configuration.
// All of it is the machine's ABI. A guest that was saved on another build finds
// it unchanged, or hv/machine.Version has gone up; so a difference here is to be
// meant.
func TestGuestSeesTheSameDevices(t *testing.T) {
	transitional := virtiopci.Options{Interface: virtiopci.Transitional}
	var b strings.Builder
	for _, r := range []ran{
		{"disk", diskWith(t, vioblk.Config{}), virtiopci.Options{}},
		{"disk, read-only", diskWith(t, vioblk.Config{ReadOnly: true}), virtiopci.Options{}},
		{"disk, 4 queues", diskWith(t, vioblk.Config{Queues: 4}), virtiopci.Options{}},
		{"disk, transitional", diskWith(t, vioblk.Config{}), transitional},
		{"interface", cardWith(vionet.Config{}, 1), virtiopci.Options{}},
		{"interface, 4 pairs, MTU 9000, down", cardWith(vionet.Config{MTU: 9000, Down: true}, 4), virtiopci.Options{}},
		{"interface, transitional", cardWith(vionet.Config{}, 1), transitional},
		{"CD-ROM", func(*virtiotest.Host) virtio.Device { return vioscsi.New(blank{}) }, virtiopci.Options{}},
		{"CD-ROM, transitional", func(*virtiotest.Host) virtio.Device { return vioscsi.New(blank{}) }, transitional},
		{"random numbers", func(*virtiotest.Host) virtio.Device { return viornd.New() }, virtiopci.Options{}},
		{"random numbers, transitional", func(*virtiotest.Host) virtio.Device { return viornd.New() }, transitional},
		{"balloon", func(h *virtiotest.Host) virtio.Device { return viomb.New(h.Mem, nil) }, virtiopci.Options{}},
		{"balloon, transitional", func(h *virtiotest.Host) virtio.Device { return viomb.New(h.Mem, nil) }, transitional},
		{"control interface", func(*virtiotest.Host) virtio.Device { return vmmci.New(vmmci.Config{}) },
			virtiopci.Options{Interface: virtiopci.Legacy, ID: vmmci.ID}},
	} {
		describe(t, &b, r)
	}
	golden.Check(t, "testdata/devices.golden", b.String())
}

// describe writes down what a guest sees of r after power-on.
func describe(t *testing.T, b *strings.Builder, r ran) {
	h := virtiotest.NewHost(t, 1<<20)
	dev := r.dev(h)
	h.PlugWith(pci.SlotDisk, dev, r.opts)
	d := &virtiotest.Driver{Host: h, Slot: pci.SlotDisk}
	reg := func(at, n int) uint32 { return d.Config(at, n) }
	fmt.Fprintf(b, "%s\n  id %04x:%04x class %06x revision %d subsystem %04x:%04x pin %d\n", r.name,
		reg(0, 2), reg(2, 2), reg(8, 4)>>8, reg(8, 1), reg(0x2c, 2), reg(0x2e, 2), reg(0x3d, 1))
	for n := range 6 {
		was := reg(0x10+4*n, 4)
		d.SetConfig(0x10+4*n, 4, 0xffffffff)
		size := reg(0x10+4*n, 4)
		d.SetConfig(0x10+4*n, 4, was)
		if size != 0 && size != 0xffffffff {
			fmt.Fprintf(b, "  BAR %d kind %d size %#x\n", n, was&0xf, -(size &^ 0xf))
		}
	}
	for at := int(reg(0x34, 1)); at != 0; at = int(reg(at+1, 1)) {
		n := int(reg(at+2, 1))
		if reg(at, 1) == pci.CapMSIX {
			n = 12
		}
		fmt.Fprintf(b, "  capability %#x:", at)
		for i := range n {
			fmt.Fprintf(b, " %02x", reg(at+i, 1))
		}
		b.WriteByte('\n')
	}
	var modern, legacy uint64
	if r.opts.Interface != virtiopci.Legacy {
		modern = virtiotest.NewDriver(h, pci.SlotDisk).Offered()
	}
	if r.opts.Interface != virtiopci.Modern {
		legacy = virtiotest.NewLegacy(h, pci.SlotDisk).Offered()
	}
	fmt.Fprintf(b, "  features %s\n  legacy features %s\n  queues %v\n", bits(modern), bits(legacy), dev.QueueSizes())
	config := make([]byte, 64)
	if dev.Type() != vmmciType {
		dev.ReadConfig(0, config)
	}
	for l := range strings.Lines(hex.Dump(config)) {
		fmt.Fprintf(b, "  %s", l)
	}
}

// vmmciType is that of the control interface, whose configuration is the time.
const vmmciType = 0xffff

// bits are the numbers of those that are set.
func bits(v uint64) string {
	var s []string
	for i := range 64 {
		if v>>i&1 != 0 {
			s = append(s, fmt.Sprint(i))
		}
	}
	return strings.Join(s, " ")
}
