package acpi

import "encoding/binary"

// Who made the tables. The table id carries the machine version: what a guest
// sees here must not change under it.
const (
	oemID      = "VMD   "
	oemTableID = "VMD1    "
	creatorID  = "VMD "
	revision   = 1
)

var le = binary.LittleEndian

// table puts the common header before body (acpi 6.5, 5.2.6). Length is filled
// in, the checksum left 0.
func table(sig string, rev byte, body []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(body))
	copy(b, sig)
	le.PutUint32(b[4:], uint32(headerSize+len(body)))
	b[8] = rev
	copy(b[10:], oemID)
	copy(b[16:], oemTableID)
	le.PutUint32(b[24:], revision)
	copy(b[28:], creatorID)
	le.PutUint32(b[32:], revision)
	return append(b, body...)
}

func buildRSDP(xsdt int) []byte {
	b := make([]byte, rsdpSize)
	copy(b, "RSD PTR ")
	copy(b[9:], oemID)
	b[15] = 2
	le.PutUint32(b[20:], rsdpSize)
	le.PutUint64(b[24:], uint64(xsdt))
	return b
}

func buildFACS() []byte {
	b := make([]byte, 64)
	copy(b, "FACS")
	le.PutUint32(b[4:], 64)
	b[32] = 2
	return b
}

// Offsets in the FADT (acpi 6.5, 5.2.9), from the start of the table.
const (
	fadtFACS      = 36
	fadtDSDT      = 40
	fadtSCI       = 46
	fadtPM1Evt    = 56
	fadtPM1Cnt    = 64
	fadtPMTmr     = 76
	fadtPM1EvtLen = 88
	fadtPM1CntLen = 89
	fadtPMTmrLen  = 91
	fadtC2Latency = 96
	fadtC3Latency = 98
	fadtCentury   = 108
	fadtBootArch  = 109
	fadtFlags     = 112
	fadtResetReg  = 116
	fadtResetVal  = 128
	fadtMinor     = 131
	fadtXDSDT     = 140
	fadtXPM1Evt   = 148
	fadtXPM1Cnt   = 172
	fadtXPMTmr    = 208
	fadtVendor    = 268
	fadtSize      = 276
)

// Values of the FADT; the ports are those of hv/chipset.
const (
	portPMEvent   = 0x600
	portPMControl = 0x604
	portPMTimer   = 0x608
	portReset     = 0xcf9
	resetValue    = 6
	sciIRQ        = 9
	cmosCentury   = 0x32
	noC2orC3      = 0xfff // more than the longest latency that means "yes"

	bootLegacy = 1 << 0
	bootNoVGA  = 1 << 2 // bit 1, 8042, stays clear: no keyboard controller

	flagWBINVD   = 1 << 0
	flagProcC1   = 1 << 2
	flagNoSleep  = 1 << 5  // SLP_BUTTON: no fixed sleep button
	flagFixRTC   = 1 << 6  // no RTC wake status in PM1
	flagResetReg = 1 << 10 // PWR_BUTTON, bit 4, stays clear: it is fixed hardware
)

// buildFADT makes the FADT. SMI_CMD and what goes with it stay 0: the machine
// is always in ACPI mode.
func buildFADT() []byte {
	b := table("FACP", 6, make([]byte, fadtSize-headerSize))
	le.PutUint16(b[fadtSCI:], sciIRQ)
	le.PutUint32(b[fadtPM1Evt:], portPMEvent)
	le.PutUint32(b[fadtPM1Cnt:], portPMControl)
	le.PutUint32(b[fadtPMTmr:], portPMTimer)
	b[fadtPM1EvtLen], b[fadtPM1CntLen], b[fadtPMTmrLen] = 4, 2, 4
	le.PutUint16(b[fadtC2Latency:], noC2orC3)
	le.PutUint16(b[fadtC3Latency:], noC2orC3)
	b[fadtCentury] = cmosCentury
	le.PutUint16(b[fadtBootArch:], bootLegacy|bootNoVGA)
	le.PutUint32(b[fadtFlags:], flagWBINVD|flagProcC1|flagNoSleep|flagFixRTC|flagResetReg)
	gas(b[fadtResetReg:], 8, 1, portReset)
	b[fadtResetVal] = resetValue
	b[fadtMinor] = 5
	gas(b[fadtXPM1Evt:], 32, 2, portPMEvent)
	gas(b[fadtXPM1Cnt:], 16, 2, portPMControl)
	gas(b[fadtXPMTmr:], 32, 3, portPMTimer)
	copy(b[fadtVendor:], oemID)
	return b
}

// gas writes a generic address structure for an I/O port (acpi 6.5, 5.2.3.2).
func gas(b []byte, bits, access byte, port uint64) {
	b[0], b[1], b[3] = 1, bits, access
	le.PutUint64(b[4:], port)
}

const (
	lapicAddr  = 0xfee00000
	ioapicAddr = 0xfec00000
	pcatCompat = 1
	levelHigh  = 0x0d // trigger mode level, active high
)

// madt lists the processors, the I/O APIC, and how ISA interrupts reach it
// (acpi 6.5, 5.2.12): the timer on pin 2, the SCI and PCI's level-triggered.
func (c *Config) madt() []byte {
	b := le.AppendUint32(nil, lapicAddr)
	b = le.AppendUint32(b, pcatCompat)
	for i := range c.CPUs {
		if i < 255 {
			b = append(b, 0, 8, byte(i), byte(i), 1, 0, 0, 0)
			continue
		}
		b = append(b, 9, 16, 0, 0)
		b = le.AppendUint32(b, uint32(i))
		b = le.AppendUint32(b, 1)
		b = le.AppendUint32(b, uint32(i))
	}
	b = append(b, 1, 12, 0, 0)
	b = le.AppendUint32(b, ioapicAddr)
	b = le.AppendUint32(b, 0)
	b = override(b, 0, 2, 0)
	for _, irq := range []byte{5, 9, 10, 11} {
		b = override(b, irq, irq, levelHigh)
	}
	b = append(b, 4, 6, 0xff, 0, 0, 1)
	if c.CPUs > 255 {
		b = append(b, 10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0)
	}
	return table("APIC", 5, b)
}

func override(b []byte, irq, gsi, flags byte) []byte {
	return append(b, 2, 10, 0, irq, gsi, 0, 0, 0, flags, 0)
}
