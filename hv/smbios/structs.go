package smbios

// Type 0, BIOS information: a virtual machine that can be told what to boot.
func (b *builder) bios(c *Config) {
	f := make([]byte, 20)
	f[0], f[1], f[4] = 1, 2, 0 // vendor, version, no date
	le.PutUint16(f[2:], 0xe800)
	le.PutUint64(f[6:], 1<<3) // characteristics not supported
	f[15] = 1<<2 | 1<<4       // targeted content distribution, virtual machine
	copy(f[16:], []byte{0xff, 0xff, 0xff, 0xff})
	b.add(0, handleBIOS, f, manufacturer, orUnknown(c.Version))
}

// Type 1, system information. The first three fields of the UUID are
// little-endian (DSP0134, 7.2.1).
func (b *builder) system(c *Config) {
	f := make([]byte, 23)
	f[0], f[1], f[2], f[3] = 1, 2, 3, 4 // manufacturer, product, version, serial
	u := c.UUID
	u[0], u[1], u[2], u[3] = u[3], u[2], u[1], u[0]
	u[4], u[5] = u[5], u[4]
	u[6], u[7] = u[7], u[6]
	copy(f[4:], u[:])
	f[20] = 6 // wake-up: power switch
	b.add(1, handleSystem, f, manufacturer, c.Product, orUnknown(c.Version), orUnknown(c.Serial))
}

// Type 3, chassis: of type "other", all states unknown but safe.
func (b *builder) chassis() {
	f := make([]byte, 18)
	f[0], f[1] = 1, 1
	f[5], f[6], f[7], f[8] = 3, 3, 3, 2
	b.add(3, handleChassis, f, manufacturer)
}

// Type 4, processor: one socket with all CPUs as cores.
func (b *builder) cpu(c *Config) {
	f := make([]byte, 38)
	f[0], f[1], f[2], f[3] = 1, 3, 0xfe, 2 // socket, central processor, family: see family 2
	f[12] = 3                              // version
	f[20] = 0x41                           // populated, enabled
	f[21] = 1                              // upgrade: other
	for _, off := range []int{22, 24, 26} {
		le.PutUint16(f[off:], 0xffff) // no cache structures
	}
	n := byte(min(c.CPUs, 0xff))
	f[31], f[32], f[33] = n, n, n
	le.PutUint16(f[34:], 1<<2) // 64-bit capable
	le.PutUint16(f[36:], 1)    // family 2: other
	b.add(4, handleCPU, f, "CPU 0", manufacturer, "virtual")
}

// memory adds types 16, 17 and 19: an array, one device that fills it, and
// where it is mapped.
func (b *builder) memory(c *Config) {
	total := c.LowMemory + c.HighMemory
	b.array(total)
	b.dimm(total)
	b.mapped(handleArrayMap, 0, c.LowMemory)
	if c.HighMemory > 0 {
		b.mapped(handleArrayMap+1, 1<<32, c.HighMemory)
	}
}

func (b *builder) array(total uint64) {
	f := make([]byte, 19)
	f[0], f[1], f[2] = 1, 3, 6 // location other, system memory, multi-bit ECC
	if kib := total >> 10; kib < 1<<31 {
		le.PutUint32(f[3:], uint32(kib))
	} else {
		le.PutUint32(f[3:], 1<<31)
		le.PutUint64(f[11:], total)
	}
	le.PutUint16(f[7:], handleNone)
	le.PutUint16(f[9:], 1)
	b.add(16, handleArray, f)
}

func (b *builder) dimm(total uint64) {
	f := make([]byte, 36)
	le.PutUint16(f[0:], handleArray)
	le.PutUint16(f[2:], handleNone)
	le.PutUint16(f[4:], 0xffff)
	le.PutUint16(f[6:], 0xffff)
	if mib := total >> 20; mib < 0x7fff {
		le.PutUint16(f[8:], uint16(mib))
	} else {
		le.PutUint16(f[8:], 0x7fff)
		le.PutUint32(f[24:], uint32(min(mib, 1<<31-1)))
	}
	f[10] = 9                  // form factor DIMM
	f[12], f[14] = 1, 7        // locator; type RAM
	le.PutUint16(f[15:], 1<<1) // detail other
	f[19] = 2                  // manufacturer
	b.add(17, handleDIMM, f, "DIMM 0", manufacturer)
}

func (b *builder) mapped(handle uint16, base, size uint64) {
	f := make([]byte, 27)
	if (base+size)>>10 < 1<<32-1 {
		le.PutUint32(f[0:], uint32(base>>10))
		le.PutUint32(f[4:], uint32((base+size)>>10-1))
	} else {
		le.PutUint32(f[0:], 1<<32-1)
		le.PutUint32(f[4:], 1<<32-1)
		le.PutUint64(f[11:], base)
		le.PutUint64(f[19:], base+size-1)
	}
	le.PutUint16(f[8:], handleArray)
	f[10] = 1
	b.add(19, handle, f)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
