package acpi

// AML encodings (acpi 6.5, chapter 20). Each function returns the bytes of one
// term; a term that contains others is given them in order.

const (
	opZero    = 0x00
	opOne     = 0x01
	opName    = 0x08
	opByte    = 0x0a
	opWord    = 0x0b
	opDWord   = 0x0c
	opString  = 0x0d
	opQWord   = 0x0e
	opScope   = 0x10
	opBuffer  = 0x11
	opPackage = 0x12
	opMethod  = 0x14
	opExt     = 0x5b
	opDevice  = 0x82 // after opExt
	rootChar  = '\\'
)

func cat(terms ...[]byte) []byte {
	var b []byte
	for _, t := range terms {
		b = append(b, t...)
	}
	return b
}

// pkg puts PkgLength before body. The length counts itself (acpi 6.5, 20.2.4).
func pkg(body []byte) []byte {
	n := len(body)
	if n+1 < 0x40 {
		return cat([]byte{byte(n + 1)}, body)
	}
	extra := 1
	for n+1+extra >= 1<<(4+8*extra) {
		extra++
	}
	n += 1 + extra
	head := []byte{byte(extra<<6 | n&0x0f)}
	for n >>= 4; extra > 0; extra-- {
		head = append(head, byte(n))
		n >>= 8
	}
	return cat(head, body)
}

// seg is a name of up to four characters, padded with '_'. A leading backslash
// is the root.
func seg(name string) []byte {
	var b []byte
	if name[0] == rootChar {
		b, name = append(b, rootChar), name[1:]
	}
	for len(name) < 4 {
		name += "_"
	}
	return append(b, name...)
}

func integer(v uint64) []byte {
	switch {
	case v == 0:
		return []byte{opZero}
	case v == 1:
		return []byte{opOne}
	case v < 1<<8:
		return []byte{opByte, byte(v)}
	case v < 1<<16:
		return le.AppendUint16([]byte{opWord}, uint16(v))
	case v < 1<<32:
		return le.AppendUint32([]byte{opDWord}, uint32(v))
	}
	return le.AppendUint64([]byte{opQWord}, v)
}

func text(s string) []byte { return cat([]byte{opString}, []byte(s), []byte{0}) }

// eisaID packs an id such as PNP0A03: three letters of five bits each, then
// four hexadecimal digits, big-endian.
func eisaID(id string) []byte {
	v := uint32(id[0]&0x1f)<<26 | uint32(id[1]&0x1f)<<21 | uint32(id[2]&0x1f)<<16
	for i, c := range []byte(id[3:7]) {
		d := uint32(c - '0')
		if c >= 'A' {
			d = uint32(c-'A') + 10
		}
		v |= d << (12 - 4*i)
	}
	return []byte{opDWord, byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

func name(n string, value []byte) []byte { return cat([]byte{opName}, seg(n), value) }

func scope(n string, terms ...[]byte) []byte {
	return cat([]byte{opScope}, pkg(cat(seg(n), cat(terms...))))
}

func device(n string, terms ...[]byte) []byte {
	return cat([]byte{opExt, opDevice}, pkg(cat(seg(n), cat(terms...))))
}

func method(n string, args byte, terms ...[]byte) []byte {
	return cat([]byte{opMethod}, pkg(cat(seg(n), []byte{args}, cat(terms...))))
}

// list is a Package of up to 255 elements.
func list(elems ...[]byte) []byte {
	return cat([]byte{opPackage}, pkg(cat([]byte{byte(len(elems))}, cat(elems...))))
}

// resources is a resource template: a Buffer of descriptors and the end tag,
// whose checksum may be 0 (acpi 6.5, 6.4.2.9).
func resources(descs ...[]byte) []byte {
	b := append(cat(descs...), 0x79, 0)
	return cat([]byte{opBuffer}, pkg(cat(integer(uint64(len(b))), b)))
}

// Resource descriptors (acpi 6.5, 6.4).

// ports is a fixed range of I/O ports, 16 bits decoded.
func ports(base uint16, n byte) []byte {
	return []byte{0x47, 1, byte(base), byte(base >> 8), byte(base), byte(base >> 8), 1, n}
}

// edgeIRQ is an ISA interrupt: edge, active high, exclusive.
func edgeIRQ(irq uint) []byte { return le.AppendUint16([]byte{0x22}, 1<<irq) }

// levelIRQ is a PCI interrupt: level, active high, shared, consumed.
func levelIRQ(gsi uint32) []byte {
	return le.AppendUint32([]byte{0x89, 6, 0, 0x09, 1}, gsi)
}

// Ranges that a bridge passes on: fixed ends, positive decode. The flags in the
// third byte are those of the resource type.
func busRange(lo, hi uint16) []byte { return wordRange(2, 0, lo, hi) }
func ioRange(lo, hi uint16) []byte  { return wordRange(1, 3, lo, hi) }

const fixedRange = 0x0c // _MIF and _MAF

func wordRange(typ, flags byte, lo, hi uint16) []byte {
	b := []byte{0x88, 13, 0, typ, fixedRange, flags}
	for _, v := range []uint16{0, lo, hi, 0, hi - lo + 1} {
		b = le.AppendUint16(b, v)
	}
	return b
}

// memRange32 and memRange64 are uncached, writable memory.
func memRange32(w Window) []byte {
	b := []byte{0x87, 23, 0, 0, fixedRange, 1}
	for _, v := range []uint64{0, uint64(w.Base), uint64(w.Base) + w.Size - 1, 0, w.Size} {
		b = le.AppendUint32(b, uint32(v))
	}
	return b
}

func memRange64(w Window) []byte {
	b := []byte{0x8a, 43, 0, 0, fixedRange, 1}
	for _, v := range []uint64{0, uint64(w.Base), uint64(w.Base) + w.Size - 1, 0, w.Size} {
		b = le.AppendUint64(b, v)
	}
	return b
}
