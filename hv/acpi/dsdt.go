package acpi

// sleepS5 is the SLP_TYP of the off state; hv/chipset's PM block knows it.
const sleepS5 = 5

// dsdt describes the machine as far as a guest cannot find it out by itself.
//
//	\_S5
//	\_SB
//	  PCI0  host bridge with its windows and interrupt routing
//	  LNKA..LNKD  what the routing points to
//	  COM1, RTC, FWCF, PEVT  what has fixed ports
//	  MB    ports that nobody else may take
func (c *Config) dsdt() []byte {
	sb := [][]byte{c.pci0()}
	for i, gsi := range c.Links {
		sb = append(sb, link(i, gsi))
	}
	sb = append(sb,
		device("COM1",
			name("_HID", eisaID("PNP0501")),
			name("_UID", integer(1)),
			name("_CRS", resources(ports(0x3f8, 8), edgeIRQ(4)))),
		device("RTC",
			name("_HID", eisaID("PNP0B00")),
			name("_CRS", resources(ports(0x70, 2), edgeIRQ(8)))))
	if c.FWCfg {
		sb = append(sb, device("FWCF",
			name("_HID", text("QEMU0002")),
			name("_STA", integer(0x0b)), // present, not shown to the user
			name("_CRS", resources(ports(0x510, 12)))))
	}
	if c.PVPanic {
		sb = append(sb, device("PEVT",
			name("_HID", text("QEMU0001")),
			name("_STA", integer(0x0f)),
			name("_CRS", resources(ports(0x505, 1)))))
	}
	sb = append(sb, device("MB",
		name("_HID", eisaID("PNP0C02")),
		name("_UID", integer(0)),
		name("_CRS", resources(ports(portPMEvent, 0x40)))))
	// Four elements, though two count: OpenBSD wants them all.
	s5 := name(`\_S5`, list(integer(sleepS5), integer(sleepS5), integer(0), integer(0)))
	return cat(s5, scope(`\_SB`, sb...))
}

func (c *Config) pci0() []byte {
	crs := [][]byte{
		busRange(0, 0),
		ports(0xcf8, 8),
		ioRange(0, 0xcf7),
		ioRange(0xd00, 0xffff),
		memRange32(c.MMIO32),
	}
	if c.MMIO64.Size > 0 {
		crs = append(crs, memRange64(c.MMIO64))
	}
	return device("PCI0",
		name("_HID", eisaID("PNP0A03")),
		name("_UID", integer(0)),
		name("_BBN", integer(0)),
		name("_CRS", resources(crs...)),
		name("_PRT", routing()))
}

// routing says on which link each slot's INTA is, the one pin that this
// machine's functions have (acpi 6.5, 6.2.13). It names links, not interrupts:
// a guest takes bare interrupts for active low.
func routing() []byte {
	var rows [][]byte
	for slot := uint64(1); slot < 32; slot++ {
		l := seg("LNK" + string(rune('A'+(slot-1)&3)))
		rows = append(rows, list(integer(slot<<16|0xffff), integer(0), l, integer(0)))
	}
	return list(rows...)
}

// link is an interrupt link device that is hard-wired to gsi.
func link(i int, gsi uint32) []byte {
	irq := resources(levelIRQ(gsi))
	return device("LNK"+string(rune('A'+i)),
		name("_HID", eisaID("PNP0C0F")),
		name("_UID", integer(uint64(i))),
		name("_STA", integer(0x0b)),
		name("_PRS", irq),
		name("_CRS", irq),
		method("_SRS", 1),
		method("_DIS", 0))
}
