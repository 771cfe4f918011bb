package pci_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"vmd/hv/pci"
	"vmd/internal/golden"
)

// TestGuestSeesTheSameBus holds the chipset's functions, what of them a guest can
// write, and the numbers of slots and lines against a golden file. All of it is
// the machine's ABI (hv/machine.Version): a difference here is to be meant.
func TestGuestSeesTheSameBus(t *testing.T) {
	m := newMachine(t)
	var b strings.Builder
	for _, s := range []struct {
		name string
		slot int
	}{
		{"host bridge", pci.SlotHostBridge}, {"ISA bridge", pci.SlotISABridge}, {"power management", pci.SlotPM},
		{"CD", pci.SlotCD}, {"disks", pci.SlotDisk}, {"interfaces", pci.SlotNIC}, {"random numbers", pci.SlotRNG},
		{"balloon", pci.SlotBalloon}, {"console", pci.SlotConsole}, {"vsock", pci.SlotVSock}, {"vmmci", pci.SlotVMMCI},
	} {
		fmt.Fprintf(&b, "slot %d: %s\n", s.slot, s.name)
	}
	for slot := 1; slot <= 4; slot++ {
		fmt.Fprintf(&b, "pin of slot %d: line %d\n", slot, pci.GSI(slot))
	}
	for slot := range 3 {
		var power, ones [256]byte
		for reg := range power {
			power[reg] = byte(m.cfg(slot, reg, 1))
		}
		for reg := range ones {
			m.setCfg(slot, reg, 1, 0xff)
			ones[reg] = byte(m.cfg(slot, reg, 1)) &^ power[reg]
		}
		fmt.Fprintf(&b, "slot %d after power-on\n%sbits that can be set\n%s", slot, hex.Dump(power[:]), hex.Dump(ones[:]))
	}
	golden.Check(t, "testdata/board.golden", b.String())
}
