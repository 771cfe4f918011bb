package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxNetROM is the largest file that NetROM looks into: the images for all
// kinds of firmware together.
const MaxNetROM = 4 << 20

// An image of an expansion ROM (PCI Local Bus 3.0, 6.3.1): a header at its
// beginning, which names the place of a data structure. Sizes are in units of
// 512 bytes.
const (
	romUnit     = 512
	romHeader   = 0x1c // bytes of the header
	romInitSize = 0x02 // u8: what is to be copied into memory
	romPCIR     = 0x18 // u16: offset of the data structure
	romPnP      = 0x1a // u16: offset of the PnP header

	pcirSize      = 0x18
	pcirVendor    = 0x04
	pcirClass     = 0x0d // u24: interface, sub-class, base class
	pcirLength    = 0x10 // u16
	pcirType      = 0x14
	pcirIndicator = 0x15
	pcirForPC     = 0    // type: code for a PC's BIOS
	pcirLast      = 0x80 // indicator: no image follows

	// The PnP header has what makes the code one to boot from (Plug and Play
	// BIOS 1.0A, 3.2).
	pnpSize = 0x20
	pnpBEV  = 0x1a // u16: boot entry vector

	vendorVirtio = 0x1af4
	classNetwork = 0x02
)

// NetROM returns the part of an expansion ROM that a PC's BIOS runs to boot from
// a virtio network interface. The file may have images for other firmware, too.
func NetROM(i Image) ([]byte, error) {
	if i.R == nil || i.Size < romHeader || i.Size > MaxNetROM {
		return nil, fmt.Errorf("%d bytes, want %d to %d", i.Size, romHeader, MaxNetROM)
	}
	for at := uint64(0); ; {
		r, err := i.romImage(at)
		switch {
		case err != nil:
			return nil, fmt.Errorf("image at offset %d: %w", at, err)
		case r.kind == pcirForPC:
			b := make([]byte, r.init)
			if err := i.read(b, at); err != nil {
				return nil, fmt.Errorf("image at offset %d: %w", at, err)
			}
			if err := CheckNetROM(b); err != nil {
				return nil, fmt.Errorf("image at offset %d: %w", at, err)
			}
			return b, nil
		case r.last:
			return nil, errors.New("it has no image for a PC's BIOS")
		}
		at += r.length
	}
}

// romImage is what the head of an image says.
type romImage struct {
	vendor    uint16
	base      byte   // class of device
	length    uint64 // bytes to the next image
	init, pnp uint64
	kind      byte
	last      bool
}

func (i Image) romImage(at uint64) (r romImage, err error) {
	var h [romHeader]byte
	if err := i.read(h[:], at); err != nil {
		return r, err
	}
	if h[0] != 0x55 || h[1] != 0xaa {
		return r, fmt.Errorf("it begins with %x, an expansion ROM does with 55aa", h[:2])
	}
	le := binary.LittleEndian
	var p [pcirSize]byte
	if err := i.read(p[:], at+uint64(le.Uint16(h[romPCIR:]))); err != nil {
		return r, fmt.Errorf("PCI data structure: %w", err)
	}
	if string(p[:4]) != "PCIR" {
		return r, errors.New("it has no PCI data structure")
	}
	r = romImage{
		vendor: le.Uint16(p[pcirVendor:]), base: p[pcirClass+2],
		length: uint64(le.Uint16(p[pcirLength:])) * romUnit,
		init:   uint64(h[romInitSize]) * romUnit, pnp: uint64(le.Uint16(h[romPnP:])),
		kind: p[pcirType], last: p[pcirIndicator]&pcirLast != 0,
	}
	if r.length == 0 {
		return r, errors.New("it says that it has no bytes")
	}
	return r, nil
}

// CheckNetROM says why b is not what NetROM returns. What a BIOS would not run
// or boot from, without a word that anybody sees, is refused. Which virtio
// interface it names, that of 1.x or of 0.9, makes no difference: drivers know
// both.
func CheckNetROM(b []byte) error {
	r, err := Image{R: bytes.NewReader(b), Size: int64(len(b))}.romImage(0)
	if err != nil {
		return err
	}
	switch {
	case r.kind != pcirForPC || r.init != uint64(len(b)):
		return fmt.Errorf("%d bytes of code for firmware of kind %d, in a file of %d", r.init, r.kind, len(b))
	case r.vendor != vendorVirtio || r.base != classNetwork:
		return fmt.Errorf("it is for devices of vendor %#04x and class %#02x, not for virtio's network interface", r.vendor, r.base)
	}
	var sum byte
	for _, c := range b {
		sum += c
	}
	if sum != 0 {
		return fmt.Errorf("its checksum is %#02x, not 0", sum)
	}
	if r.pnp+pnpSize > r.init || string(b[r.pnp:r.pnp+4]) != "$PnP" || binary.LittleEndian.Uint16(b[r.pnp+pnpBEV:]) == 0 {
		return errors.New("it has no boot entry vector")
	}
	return nil
}
