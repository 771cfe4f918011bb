package vioscsi

import "encoding/binary"

// Operation codes that firmware and drivers send to a CD-ROM (SPC-4, MMC-6).
const (
	opTestUnitReady   = 0x00
	opRequestSense    = 0x03
	opRead6           = 0x08
	opInquiry         = 0x12
	opModeSense6      = 0x1a
	opStartStop       = 0x1b
	opPrevent         = 0x1e
	opReadCapacity10  = 0x25
	opRead10          = 0x28
	opReadTOC         = 0x43
	opGetConfig       = 0x46
	opGetEvent        = 0x4a
	opReadDiscInfo    = 0x51
	opReadTrackInfo   = 0x52
	opModeSense10     = 0x5a
	opRead16          = 0x88
	opServiceIn16     = 0x9e
	opReportLUNs      = 0xa0
	opRead12          = 0xa8
	opMechanismStatus = 0xbd

	actionReadCapacity16 = 0x10 // of opServiceIn16
)

// command is one row of the table of what the drive does. fill writes the
// answer to b, which is zero, and returns its length, or says what is wrong
// with the command; alloc is how much of it the initiator wants. A READ has no
// fill: its data go straight to the guest.
type command struct {
	fill   func(d *drive, c *CDB, b *answer) (int, sense)
	alloc  func(c *CDB) uint32
	medium bool // needs one
}

// answer is room for the longest one.
type answer [64]byte

func (b *answer) put16(i int, v uint32) { binary.BigEndian.PutUint16(b[i:], uint16(v)) }
func (b *answer) put32(i int, v uint32) { binary.BigEndian.PutUint32(b[i:], v) }

func whole(*CDB) uint32       { return uint32(len(answer{})) }
func alloc3(c *CDB) uint32    { return c.u16(3) }
func alloc4(c *CDB) uint32    { return uint32(c[4]) }
func alloc7(c *CDB) uint32    { return c.u16(7) }
func alloc8(c *CDB) uint32    { return c.u16(8) }
func alloc6of4(c *CDB) uint32 { return c.u32(6) }
func alloc10(c *CDB) uint32   { return c.u32(10) }

// commands is indexed by operation code; a row without fill is no command.
var commands = [256]command{
	opTestUnitReady:   {fill: (*drive).nothing, alloc: whole, medium: true},
	opRequestSense:    {fill: (*drive).requestSense, alloc: alloc4},
	opInquiry:         {fill: (*drive).inquiry, alloc: alloc3},
	opModeSense6:      {fill: (*drive).modeSense, alloc: alloc4},
	opStartStop:       {fill: (*drive).startStop, alloc: whole},
	opPrevent:         {fill: (*drive).prevent, alloc: whole},
	opReadCapacity10:  {fill: (*drive).capacity10, alloc: whole, medium: true},
	opReadTOC:         {fill: (*drive).toc, alloc: alloc7, medium: true},
	opGetConfig:       {fill: (*drive).configuration, alloc: alloc7},
	opGetEvent:        {fill: (*drive).eventStatus, alloc: alloc7},
	opReadDiscInfo:    {fill: (*drive).discInfo, alloc: alloc7, medium: true},
	opReadTrackInfo:   {fill: (*drive).trackInfo, alloc: alloc7, medium: true},
	opModeSense10:     {fill: (*drive).modeSense, alloc: alloc7},
	opServiceIn16:     {fill: (*drive).capacity16, alloc: alloc10, medium: true},
	opReportLUNs:      {fill: (*drive).reportLUNs, alloc: alloc6of4},
	opMechanismStatus: {fill: (*drive).mechanism, alloc: alloc8},
}

// drive is a CD-ROM drive and the medium in it: what it says of itself. Only
// the request queue's owner uses it.
type drive struct {
	blocks uint64 // of the medium
	loaded bool
	locked bool // the medium must stay
	event  byte // of the medium, not yet told
}

// Media events (MMC-6, 6.6.6).
const (
	eventNone    = 0
	eventNew     = 2
	eventRemoved = 3
)

func (d *drive) nothing(*CDB, *answer) (int, sense) { return 0, noSense }

// requestSense has nothing to tell: a response carries its own sense.
func (d *drive) requestSense(_ *CDB, b *answer) (int, sense) {
	noSense.put(b[:])
	return senseLen, noSense
}

const (
	typeCDROM = 0x05
	removable = 0x80
	identity  = "vmd     VMM CD-ROM      1.0 " // vendor, product, revision
	serial    = "vmd-cd0"
)

// inquiry is standard data or a page of vital product data (SPC-4, 6.6, 7.8).
func (d *drive) inquiry(c *CDB, b *answer) (int, sense) {
	b[0] = typeCDROM
	if c[1]&1 == 0 {
		if c[2] != 0 {
			return 0, badField
		}
		b[1], b[2], b[3], b[4] = removable, 5, 2, 31 // SPC-3, format 2, bytes to come
		return 8 + copy(b[8:], identity), noSense
	}
	n := 0
	switch b[1] = c[2]; c[2] {
	case 0x00:
		n = copy(b[4:], []byte{0x00, 0x80, 0x83})
	case 0x80:
		n = copy(b[4:], serial)
	case 0x83: // one designator: ASCII, T10 vendor identification
		n = 4 + copy(b[8:], identity[:24])
		b[4], b[5], b[7] = 2, 1, byte(n-4)
	default:
		return 0, badField
	}
	b[3] = byte(n)
	return 4 + n, noSense
}

// modeSense is a header without block descriptors and the pages asked for
// (SPC-4, 6.11, 6.12).
func (d *drive) modeSense(c *CDB, b *answer) (int, sense) {
	page := c[2] & 0x3f
	switch {
	case c[2]>>6 == 3:
		return 0, noSaving
	case c[3] != 0 && c[3] != 0xff:
		return 0, badField
	}
	start := 4
	if c.Op() == opModeSense10 {
		start = 8
	}
	changeable := c[2]>>6 == 1 // nothing is
	n := start
	if page == 0x01 || page == 0x3f {
		n += modePage(b[n:], 0x01, 10, changeable, func(p []byte) { p[3] = 5 }) // read retries
	}
	if page == 0x2a || page == 0x3f {
		n += modePage(b[n:], 0x2a, 20, changeable, d.capabilities)
	}
	if n == start {
		return 0, badField
	}
	if start == 4 {
		b[0] = byte(n - 1)
	} else {
		b.put16(0, uint32(n-2))
	}
	return n, noSense
}

// modePage writes a page with n bytes after its head.
func modePage(p []byte, code byte, n int, changeable bool, body func(p []byte)) int {
	p[0], p[1] = code, byte(n)
	if !changeable {
		body(p)
	}
	return 2 + n
}

// capabilities is the body of page 2A: a reader of CDs and DVDs with a tray that
// can be locked and ejects (MMC-3, 6.3.11).
func (d *drive) capabilities(p []byte) {
	p[2] = 0x0b // CD-R, CD-RW, DVD-ROM
	p[6] = 1<<5 | 1<<3 | 1<<0
	if d.locked {
		p[6] |= 1 << 1
	}
	speed := uint16(50 * 176) // kB/s
	binary.BigEndian.PutUint16(p[8:], speed)
	binary.BigEndian.PutUint16(p[14:], speed)
}

// startStop ejects the medium and takes it back (MMC-6, 6.41).
func (d *drive) startStop(c *CDB, _ *answer) (int, sense) {
	const start, loadEject = 1 << 0, 1 << 1
	switch c[4] & (start | loadEject) {
	case loadEject:
		if d.locked {
			return 0, lockedIn
		}
		d.setLoaded(false, eventRemoved)
	case loadEject | start:
		d.setLoaded(true, eventNew)
	}
	return 0, noSense
}

func (d *drive) setLoaded(on bool, event byte) {
	if d.loaded != on {
		d.loaded, d.event = on, event
	}
}

func (d *drive) prevent(c *CDB, _ *answer) (int, sense) {
	d.locked = c[4]&1 != 0
	return 0, noSense
}

func (d *drive) capacity10(_ *CDB, b *answer) (int, sense) {
	b.put32(0, uint32(min(d.last(), 1<<32-1)))
	b.put32(4, blockSize)
	return 8, noSense
}

func (d *drive) capacity16(c *CDB, b *answer) (int, sense) {
	if c[1]&0x1f != actionReadCapacity16 {
		return 0, badField
	}
	binary.BigEndian.PutUint64(b[0:], d.last())
	b.put32(8, blockSize)
	return 32, noSense
}

// last is the address of the last block; a medium without any has one, which
// cannot be read.
func (d *drive) last() uint64 { return max(d.blocks, 1) - 1 }

// Track numbers and the nature of ours: data, all of it (MMC-6, 6.26).
const (
	onlyTrack = 1
	leadOut   = 0xaa
	dataTrack = 0x14
)

// toc lists the one track and the lead-out, or the one session.
func (d *drive) toc(c *CDB, b *answer) (int, sense) {
	msf := c[1]&2 != 0
	format, track := c[2]&0xf, c[6]
	if format == 0 && c[9]>>6 != 0 {
		format = c[9] >> 6 // where SFF-8020 has it
	}
	b[2], b[3] = onlyTrack, onlyTrack
	n := 4
	add := func(number byte, lba uint64) {
		b[n+1], b[n+2] = dataTrack, number
		b.put32(n+4, address(lba, msf))
		n += 8
	}
	switch {
	case format == 0 && (track <= onlyTrack || track == leadOut):
		if track != leadOut {
			add(onlyTrack, 0)
		}
		add(leadOut, d.blocks)
	case format == 1: // first track of the last session
		add(onlyTrack, 0)
	default:
		return 0, badField
	}
	b.put16(0, uint32(n-2))
	return n, noSense
}

// address is a block's, or the time at which it passes: 75 blocks a second, the
// first after two seconds.
func address(lba uint64, msf bool) uint32 {
	if !msf {
		return uint32(min(lba, 1<<32-1))
	}
	f := lba + 150
	return uint32(min(f/(75*60), 255)<<16 | f/75%60<<8 | f%75)
}

// profileCDROM is the profile of a CD-ROM (MMC-6, 5.3.1).
const profileCDROM = 0x0008

// configuration is the feature header, and the list of profiles unless only
// later features are wanted (MMC-6, 6.5).
func (d *drive) configuration(c *CDB, b *answer) (int, sense) {
	n := 8
	if c.u16(2) == 0 {
		b[n+2], b[n+3] = 0x03, 4 // persistent and current; 4 bytes to come
		b.put16(n+4, profileCDROM)
		if d.loaded {
			b[n+6] = 1
		}
		n += 8
	}
	if d.loaded {
		b.put16(6, profileCDROM)
	}
	b.put32(0, uint32(n-4))
	return n, noSense
}

// eventStatus tells what happened to the medium, to those who poll (MMC-6, 6.6).
func (d *drive) eventStatus(c *CDB, b *answer) (int, sense) {
	const polled, media, noEvents = 1, 4, 0x80
	if c[1]&polled == 0 {
		return 0, badField
	}
	b[3] = 1 << media
	if c[4]&(1<<media) == 0 {
		b[1], b[2] = 2, noEvents
		return 4, noSense
	}
	b[1], b[2], b[4] = 6, media, d.event
	d.event = eventNone
	if d.loaded {
		b[5] = 2 // present
	}
	return 8, noSense
}

// discInfo is that of a finished CD-ROM of one session (MMC-6, 6.22).
func (d *drive) discInfo(c *CDB, b *answer) (int, sense) {
	if c[1]&7 != 0 {
		return 0, badField
	}
	b.put16(0, 32)
	b[2] = 3<<2 | 2 // last session complete, disc complete
	b[3], b[4], b[5], b[6] = onlyTrack, 1, onlyTrack, onlyTrack
	b[7] = 0x20 // for unrestricted use
	return 34, noSense
}

// trackInfo is that of the one track (MMC-6, 6.28).
func (d *drive) trackInfo(_ *CDB, b *answer) (int, sense) {
	b.put16(0, 34)
	b[2], b[3] = onlyTrack, 1
	b[5], b[6] = 4, 1 // data, mode 1
	b.put32(24, address(d.blocks, false))
	return 36, noSense
}

// mechanism is that of a drive without a changer, doing nothing.
func (d *drive) mechanism(*CDB, *answer) (int, sense) { return 8, noSense }

// reportLUNs lists unit 0 (SPC-4, 6.33).
func (d *drive) reportLUNs(_ *CDB, b *answer) (int, sense) {
	b.put32(0, 8)
	return 16, noSense
}
