package chipset

import (
	"sync"
	"time"
)

// Where a PC has its clock.
const (
	RTCPort = 0x70 // index, then data
	RTCSize = 2
	RTCIRQ  = 8
)

// Registers of an MC146818 and the bytes of its memory that firmware reads.
const (
	rtcSeconds = 0x00
	rtcMinutes = 0x02
	rtcHours   = 0x04
	rtcAlarms  = 0x01 // seconds, minutes, hours at 1, 3, 5
	rtcWeekday = 0x06 // Sunday is 1
	rtcDay     = 0x07
	rtcMonth   = 0x08
	rtcYear    = 0x09
	rtcA       = 0x0a
	rtcB       = 0x0b
	rtcC       = 0x0c
	rtcD       = 0x0d

	cmosEquipment = 0x14
	cmosBase      = 0x15 // KiB below 640 KiB
	cmosExt       = 0x17 // KiB above 1 MiB, also at 0x30
	cmosExt2      = 0x30
	rtcCentury    = 0x32
	cmosExt16M    = 0x34 // 64 KiB units above 16 MiB
	cmosBootFlags = 0x38
	cmosBootOrder = 0x3d // nibbles, the low one first: 2 is a disk, 3 a CD
	cmosHigh      = 0x5b // 64 KiB units above 4 GiB, 24 bits
	cmosCPUs      = 0x5f // less one
	cmosSize      = 128
)

const (
	rtcUIP     = 1 << 7 // A
	rtcRate    = 0x0f   // A
	rtcAReset  = 0x26   // 32.768 kHz, 1024 Hz
	rtcSET     = 1 << 7 // B
	rtcPIE     = 1 << 6
	rtcAIE     = 1 << 5
	rtcUIE     = 1 << 4
	rtcBinary  = 1 << 2
	rtc24h     = 1 << 1
	rtcIRQF    = 1 << 7 // C; PF, AF, UF have the bits of their enables
	rtcPF      = rtcPIE
	rtcAF      = rtcAIE
	rtcUF      = rtcUIE
	rtcValid   = 1 << 7 // D: the battery is good
	rtcPM      = 1 << 7 // of an hour in 12-hour mode
	rtcAny     = 0xc0   // an alarm byte from here on matches everything
	rtcNMI     = 1 << 7 // of the index port
	equipFPU   = 1 << 1
	noFDCheck  = 1 << 0 // cmosBootFlags: boot disks need no signature at 0x1fe
	diskThenCD = 0x32   // cmosBootOrder
	baseMemKiB = 640
)

// uipFrom is when in each second UIP is set: a guest that sees it clear has
// 2 ms to read the clock, although each of its reads costs an exit.
const uipFrom = 998 * time.Millisecond

// RTCConfig is what an RTC needs of its machine.
type RTCConfig struct {
	IRQ Line

	// LowMemory and HighMemory are the bytes of RAM below and above 4 GiB,
	// CPUs the number of processors: firmware finds them in the memory.
	LowMemory, HighMemory uint64
	CPUs                  int

	// Now is the host's clock; time.Now if nil.
	Now func() time.Time
}

// RTC is an MC146818 with 128 bytes of battery-backed memory. It shows the
// host's time in UTC plus an offset that the guest changes by setting the
// clock. No timer runs unless the guest has enabled an interrupt.
type RTC struct {
	now func() time.Time

	mu     sync.Mutex
	irq    level
	index  uint8
	ram    [cmosSize]byte // all but the time, which is computed
	offset int64          // seconds that the guest's clock is ahead
	frozen clock          // shown while B.SET is 1

	base   time.Time // phase of the periodic interrupt
	second int64     // host second for which UF was last considered
	period int64     // periods since base for which PF was last considered
	timer  *time.Timer
	closed bool
}

// NewRTC makes an RTC as it is after power-on.
func NewRTC(c RTCConfig) *RTC {
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &RTC{now: c.Now, irq: level{line: lineOrNone(c.IRQ)}}
	r.base = r.now()
	r.second = r.base.Unix()
	r.ram[rtcA], r.ram[rtcB] = rtcAReset, rtc24h
	r.fillMemory(c)
	return r
}

// fillMemory puts in what SeaBIOS and old kernels look for.
func (r *RTC) fillMemory(c RTCConfig) {
	above := func(base, unit, limit uint64) uint64 {
		if c.LowMemory <= base {
			return 0
		}
		return min((c.LowMemory-base)/unit, limit)
	}
	ext := above(1<<20, 1<<10, 0xffff)
	ext16 := above(16<<20, 64<<10, 0xffff)
	high := min(c.HighMemory/(64<<10), 1<<24-1)
	r.ram[cmosEquipment] = equipFPU
	put16(r.ram[cmosBase:], baseMemKiB)
	put16(r.ram[cmosExt:], uint16(ext))
	put16(r.ram[cmosExt2:], uint16(ext))
	put16(r.ram[cmosExt16M:], uint16(ext16))
	r.ram[cmosBootFlags] = noFDCheck
	r.ram[cmosBootOrder] = diskThenCD
	put16(r.ram[cmosHigh:], uint16(high))
	r.ram[cmosHigh+2] = byte(high >> 16)
	r.ram[cmosCPUs] = byte(max(min(c.CPUs, 256)-1, 0))
}

// Close stops the timer of a guest that has enabled an interrupt.
func (r *RTC) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.arm()
}

// Read implements bus.Device. The index cannot be read back.
func (r *RTC) Read(off uint64, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ones(data)
	for i := range data {
		if off+uint64(i) == 1 {
			data[i] = r.read(r.index)
		}
	}
}

// Write implements bus.Device.
func (r *RTC) Write(off uint64, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, b := range data {
		switch off + uint64(i) {
		case 0:
			r.index = b &^ rtcNMI
		case 1:
			r.write(r.index, b)
		}
	}
}

func (r *RTC) read(reg uint8) byte {
	switch {
	case isTime(reg):
		return r.encode(r.clock().get(reg), reg)
	case reg == rtcA:
		v := r.ram[rtcA] &^ rtcUIP
		if r.ram[rtcB]&rtcSET == 0 && time.Duration(r.now().Nanosecond()) >= uipFrom {
			v |= rtcUIP
		}
		return v
	case reg == rtcC:
		r.tick()
		r.flag()
		v := r.ram[rtcC]
		r.ram[rtcC] = 0
		r.update()
		return v
	case reg == rtcD:
		return rtcValid
	}
	return r.ram[reg]
}

func (r *RTC) write(reg, v uint8) {
	r.tick() // by what was set until now
	switch {
	case isTime(reg):
		c := r.clock()
		c.set(reg, r.decode(v, reg))
		if r.frozen = c; r.ram[rtcB]&rtcSET == 0 {
			r.setClock(c)
		}
	case reg == rtcA:
		if v&rtcRate != r.ram[rtcA]&rtcRate {
			r.base, r.period = r.now(), 0
		}
		r.ram[rtcA] = v &^ rtcUIP
		r.update()
	case reg == rtcB:
		r.writeB(v)
	case reg == rtcC || reg == rtcD:
	default:
		r.ram[reg] = v
	}
}

// writeB freezes the clock when SET appears and lets it go on from what it
// shows when SET goes. SET also switches the update interrupt off
// (MC146818, register B).
func (r *RTC) writeB(v uint8) {
	old := r.ram[rtcB]
	if v&^old&rtcSET != 0 {
		r.frozen = r.clock()
	}
	if v&rtcSET != 0 {
		v &^= rtcUIE
	}
	r.ram[rtcB] = v
	if old&^v&rtcSET != 0 {
		r.setClock(r.frozen)
	}
	r.update()
}
