package machine

import (
	"errors"

	"vmd/hv/bus"
	"vmd/hv/chipset"
	"vmd/hv/pci"
)

// board is what is soldered on.
type board struct {
	uart *chipset.UART
	rtc  *chipset.RTC
	pm   *chipset.PM

	post   chipset.PostCode
	a20    *chipset.Port92
	reset  *chipset.ResetControl
	panics *chipset.PVPanic
	fwcfg  *chipset.FWCfg // nil for a kernel
}

// close stops what timers the parts have.
func (b *board) close() {
	b.rtc.Close()
	b.pm.Close()
}

// pciWindows are what the address spaces leave to PCI. The one above 4 GiB
// starts at the first whole GiB after the RAM and ends with what a vCPU can
// address: firmware puts large and 64-bit BARs at either end of it.
func pciWindows(ramSize uint64, physBits int) pci.Windows {
	w := pci.Windows{
		IO:   pci.Window{Base: 0xc000, Size: 0x4000},
		MMIO: pci.Window{Base: uint64(lowEnd), Size: uint64(pciWindowEnd - lowEnd)},
	}
	base := uint64(highBase)
	if ramSize > uint64(lowEnd) {
		base += (ramSize - uint64(lowEnd) + gib - 1) &^ (gib - 1)
	}
	if end := uint64(1) << min(physBits, maxPhysBits); end > base {
		w.MMIO64 = pci.Window{Base: base, Size: end - base}
	}
	return w
}

// addBoard makes the parts and connects them.
func (m *Machine) addBoard() error {
	reset := func() { m.end(Reset, nil) }
	m.board.uart = chipset.NewUART(m.irqs.line(irqCOM1), m.cfg.Console, m.cfg.ConsoleReady)
	m.board.rtc = chipset.NewRTC(chipset.RTCConfig{
		IRQ:        m.irqs.line(irqRTC),
		LowMemory:  m.lowMemory(),
		HighMemory: m.cfg.Memory - m.lowMemory(),
		CPUs:       m.cfg.CPUs,
	})
	m.board.pm = chipset.NewPM(chipset.PMConfig{
		SCI:        m.irqs.line(irqSCI),
		PowerOff:   func() { m.end(PowerOff, nil) },
		ButtonSeen: m.cfg.ButtonSeen,
	})
	m.board.a20 = chipset.NewPort92(reset)
	m.board.reset = chipset.NewResetControl(reset)
	m.board.panics = chipset.NewPVPanic(func(p chipset.Panic) {
		if p&chipset.Panicked != 0 {
			m.cfg.Panicked()
		}
	})
	m.physBits = m.encryption.physBits(physBits(m.cpuid))
	m.windows = pciWindows(m.cfg.Memory, m.physBits)
	m.pci = pci.NewBus(host{m}, m.windows)
	return errors.Join(
		m.port(0x00, 0x10, chipset.Absent{}), // DMA controllers
		m.port(chipset.RTCPort, chipset.RTCSize, m.board.rtc),
		m.port(chipset.PostPort, 1, &m.board.post),
		m.port(0xc0, 0x20, chipset.Absent{}),
		m.port(chipset.I8042Port, 1, chipset.NewI8042(reset)),
		m.port(chipset.FastA20, 1, m.board.a20),
		m.port(chipset.COM1, chipset.UARTSize, m.board.uart),
		m.port(chipset.PVPanicPort, 1, m.board.panics),
		m.port(chipset.PMBase, chipset.PMSize, m.board.pm),
		m.pci.MapConfig(m.board.reset),
		m.pci.AddHostBridge(),
	)
}

func (m *Machine) port(base, size uint64, d bus.Device) error { return m.ports.Map(base, size, d) }
