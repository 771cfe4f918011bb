package machine

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"vmd/hv/disk"
	"vmd/hv/pci"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/vmmci"
	"vmd/internal/testenv"
)

// smallDisk is a disk of 2 MiB with a line of text at its start and its end.
func smallDisk(t *testing.T) disk.Image {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(2<<20), at(f, 0, "first\n"), at(f, 2<<20-512, "last\n")); err != nil {
		t.Fatal(err)
	}
	img, err := disk.NewRaw(f, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

func at(f *os.File, off int64, text string) error {
	_, err := f.WriteAt([]byte(text), off)
	return err
}

// TestStockKernelWithLegacyDevices has Linux fall back to its legacy driver: the
// functions have no capabilities.
func TestStockKernelWithLegacyDevices(t *testing.T) {
	testenv.NeedRealKVM(t)
	blk, err := vioblk.New(smallDisk(t), vioblk.Config{Serial: "old"})
	if err != nil {
		t.Fatal(err)
	}
	s := bootStockWith(t, "vmlinux", 1, "", func(m *Machine) error {
		return errors.Join(
			m.AddLegacy(pci.SlotRNG, "viornd0", viornd.New(), pci.ID{}),
			m.AddLegacy(pci.SlotDisk, "vioblk0", blk, pci.ID{}),
		)
	})
	for line, want := range map[string]string{
		"run dd if=/dev/hwrng bs=48 count=1 2>/dev/null | wc -c": "48",
		"run head -n1 /dev/vda":                                  "first",
		"run tail -c512 /dev/vda | head -n1":                     "last",
		"run cat /sys/block/vda/serial":                          "old",
		"run cat /sys/bus/pci/devices/0000:00:04.0/device":       "0x1001",
		"run echo new | dd of=/dev/vda bs=512 seek=1 conv=fsync 2>/dev/null; dd if=/dev/vda bs=512 skip=1 count=1 iflag=direct 2>/dev/null | head -n1": "new",
	} {
		s.say(line)
		s.wait(t, want)
	}
	s.say("poweroff")
	end(t, s.Machine, PowerOff)
}

// TestStockKernelGivesMemoryBack has a guest use 100 MiB and free them again;
// nobody asks for them.
func TestStockKernelGivesMemoryBack(t *testing.T) {
	const used, enough = 100 << 20, 70 << 20
	var c viomb.Counters
	var balloon *viomb.Device
	s := bootStockWith(t, "vmlinux", 1, "", func(m *Machine) error {
		balloon = viomb.New(m.Memory(), &c)
		return m.AddVirtio(pci.SlotBalloon, "viomb0", balloon)
	})
	resident := func() int64 {
		t.Helper()
		n, err := s.Memory().Resident()
		if err != nil {
			t.Fatal(err)
		}
		return int64(n)
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for limit := time.Now().Add(deadline); !done(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s: %d MiB resident, counters %+v", what, resident()>>20, c)
			}
		}
	}
	s.say("run tr '\\0' x </dev/zero | dd of=/ballast bs=1M count=100 iflag=fullblock 2>/dev/null; echo written")
	s.wait(t, "written")
	full := resident()
	if full < used {
		t.Fatalf("%d MiB resident with a file of 100 MiB", full>>20)
	}
	s.say("run rm /ballast; echo removed")
	s.wait(t, "removed")
	until("memory that the guest freed", func() bool { return full-resident() > enough })
	balloon.Refresh()
	until("statistics", func() bool {
		return atomic.LoadUint64(&c.Total) > 128<<20 && atomic.LoadUint64(&c.Available) > 100<<20
	})
	left := resident()
	balloon.SetTarget(64 << 20)
	until("the balloon", func() bool { return atomic.LoadUint64(&c.Balloon) == 64<<20 })
	balloon.SetTarget(0)
	until("the empty balloon", func() bool { return atomic.LoadUint64(&c.Balloon) == 0 })
	t.Logf("%d MiB resident when full, %d MiB after, %d MiB reported free", full>>20, left>>20, atomic.LoadUint64(&c.Reported)>>20)
	s.say("poweroff")
	end(t, s.Machine, PowerOff)
}

// noLink is a network on which nothing is ever heard.
type noLink struct{ wake chan struct{} }

func (*noLink) Offloads() uint32          { return 0 }
func (*noLink) SetOffload(uint32) error   { return nil }
func (*noLink) WriteFrame([][]byte) error { return nil }
func (*noLink) SetActive(bool) error      { return nil }
func (l *noLink) ReadFrame(_ [][]byte, wait bool) (int, error) {
	if wait {
		<-l.wake
	}
	return 0, nil
}

func (l *noLink) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// TestStockKernelsExits counts the exits of a boot with all drivers loaded: with
// what QEMU's microvm is compared with, and with what vmd gives a guest.
func TestStockKernelsExits(t *testing.T) {
	testenv.NeedRealKVM(t)
	for _, c := range []struct {
		name string
		all  bool
		most uint64
	}{
		{"disk, interface, entropy", false, 1900},
		{"and balloon, vmmci", true, 2400},
	} {
		t.Run(c.name, func(t *testing.T) {
			blk, err := vioblk.New(smallDisk(t), vioblk.Config{})
			if err != nil {
				t.Fatal(err)
			}
			nic := vionet.New(vionet.Config{MAC: [6]byte{2, 0, 0, 0, 0, 1}}, &noLink{wake: make(chan struct{}, 1)})
			s := bootStockWith(t, "vmlinux", 1, "", func(m *Machine) error {
				err := errors.Join(
					m.AddVirtio(pci.SlotDisk, "vioblk0", blk),
					m.AddVirtio(pci.SlotNIC, "vionet0", nic),
					m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()),
				)
				if err != nil || !c.all {
					return err
				}
				return errors.Join(
					m.AddVirtio(pci.SlotBalloon, "viomb0", viomb.New(m.Memory(), nil)),
					m.AddLegacy(pci.SlotVMMCI, "vmmci0", vmmci.New(vmmci.Config{}), vmmci.ID),
				)
			})
			io, mmio := atomic.LoadUint64(&s.exits[ExitIO]), atomic.LoadUint64(&s.exits[ExitMMIO])
			t.Logf("%d exits to init for ports, %d for memory", io, mmio)
			if io+mmio > c.most {
				t.Errorf("%d exits to init, at most %d expected", io+mmio, c.most)
			}
			s.say("poweroff")
			end(t, s.Machine, PowerOff)
		})
	}
}
