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
	hd := hardDisk("hello from the disk.", awaitLeave...)
	m, out, log := firmwareMachine(t, 2, hd, nil)
	if err := m.Load(Boot{Firmware: fw, Device: BootDisk}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	m = moveAlong(t, m, out, log, func(m *Machine) {
		d, err := vioblk.New(medium(t, hd), vioblk.Config{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.AddVirtio(pci.SlotDisk, "vioblk0", d); err != nil {
			t.Fatal(err)
		}
	}, 1, 300, 800, 1500, 2000)
	leave(t, m)
	end(t, m, PowerOff)
	if got := out.String(); !strings.Contains(got, "hello from the disk") {
		t.Errorf("guest printed %q; firmware said\n%s", got, log)
	}
}

// moveAlong moves m, which runs firmware and has the devices that add adds, each
// time firmware has said so much. It returns where the guest is in the end, which
// it must not have come to before: see awaitLeave.
func moveAlong(t *testing.T, m *Machine, out, log *tty, add func(*Machine), said ...int) *Machine {
	t.Helper()
	config := func(c *Config) {
		*c = Config{
			KVM: c.KVM, Memory: m.cfg.Memory, CPUs: m.cfg.CPUs, UUID: m.cfg.UUID,
			FirmwareLog: log, Console: out,
		}
	}
	for _, n := range said {
		log.waitLen(t, m, n)
		next, _ := receive(t, send(t, m), config, add)
		if string(m.rom) != string(next.rom) || string(m.netROM) != string(next.netROM) {
			t.Error("the firmware is another")
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		m = next
		start(t, m)
	}
	return m
}
