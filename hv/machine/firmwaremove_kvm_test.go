package machine

import (
	"strings"
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio/vioblk"
)

// TestFirmwareMoves moves a guest while its firmware is at work: in the middle of
// reading what it is told, of finding the disk, of loading from it. The firmware
// itself travels too.
func TestFirmwareMoves(t *testing.T) {
	fw := seabios(t)
	hd := hardDisk("hello from the disk.")
	m, out, log := firmwareMachine(t, 2, hd, nil)
	if err := m.Load(Boot{Firmware: fw, Device: BootDisk}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	config := func(c *Config) {
		*c = Config{
			KVM: c.KVM, Memory: m.cfg.Memory, CPUs: m.cfg.CPUs, UUID: m.cfg.UUID,
			FirmwareLog: log, Console: out,
		}
	}
	for _, said := range []int{1, 300, 800, 1500, 2000} {
		log.waitLen(t, m, said)
		next, _ := receive(t, send(t, m), config, func(m *Machine) {
			d, err := vioblk.New(medium(t, hd), vioblk.Config{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.AddVirtio(pci.SlotDisk, "vioblk0", d); err != nil {
				t.Fatal(err)
			}
		})
		if string(m.rom) != string(next.rom) {
			t.Error("the firmware is another")
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		m = next
		start(t, m)
	}
	end(t, m, PowerOff)
	if got := out.String(); !strings.Contains(got, "hello from the disk") {
		t.Errorf("guest printed %q; firmware said\n%s", got, log)
	}
}
