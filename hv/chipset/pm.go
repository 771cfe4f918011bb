package chipset

import (
	"fmt"
	"math/bits"
	"sync"
	"time"
)

// Where the ACPI power management block is; hv/acpi's FADT says the same.
const (
	PMBase = 0x600
	PMSize = 0x40
	SCIIRQ = 9
)

// Registers of the block (acpi 6.5, 4.8.3), relative to PMBase.
const (
	pmStatus  = 0 // PM1a_STS, 16 bits, writing ones clears
	pmEnable  = 2 // PM1a_EN, 16 bits
	pmControl = 4 // PM1a_CNT, 16 bits
	pmTimer   = 8 // PM_TMR, 32 bits of which 24 count
	pmEnd     = 12
)

// Bits of PM1a_STS and PM1a_EN (acpi 6.5, 4.8.3.1).
const (
	pmTMR    = 1 << 0
	pmPWRBTN = 1 << 8
	pmSTS    = 1<<0 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<10 | 1<<15
	pmEN     = 1<<0 | 1<<5 | 1<<8 | 1<<9 | 1<<10
)

// Bits of PM1a_CNT (acpi 6.5, 4.8.3.2.1). SCI_EN always reads as set: there is
// no legacy mode to leave. GBL_RLS and SLP_EN read as zero.
const (
	pmSCIEN      = 1 << 0
	pmBMRLD      = 1 << 1
	pmSLPTYPMask = 7 << 10
	pmSLPTYPLow  = 10
	pmSLPEN      = 1 << 13
)

// SleepS5 is the SLP_TYP that turns the machine off; the DSDT's _S5 says so.
const SleepS5 = 5

const (
	pmTimerHz   = 3579545
	pmTimerMask = 1<<24 - 1
	pmTimerHalf = 1 << 23 // TMR_STS is set each time this bit changes
)

// PMConfig is what a PM needs of its machine. Each field may be left out.
type PMConfig struct {
	SCI Line // level-triggered, GSI 9

	// PowerOff is called when the guest enters S5, perhaps more than once.
	PowerOff func()
	// ButtonSeen is called when the guest clears the power button's status
	// after PressPower: it has taken notice.
	ButtonSeen func()

	// Now is the clock behind the PM timer; time.Now if nil. It must have a
	// monotonic reading or otherwise never go back.
	Now func() time.Time
}

// PM is the ACPI fixed hardware: PM1a event and control registers and the
// 3.579545 MHz timer.
type PM struct {
	cfg PMConfig

	mu      sync.Mutex
	sci     level
	status  uint16 // without TMR_STS's latest edges, see latchTimer
	enable  uint16
	control uint16
	start   time.Time // when the timer was 0
	halves  uint64    // half periods of the timer that TMR_STS has seen
	alarm   *time.Timer
	pressed bool // PressPower, not yet seen by the guest
	closed  bool
}

// NewPM makes a PM block in its reset state, its timer at 0.
func NewPM(c PMConfig) *PM {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.PowerOff == nil {
		c.PowerOff = func() {}
	}
	if c.ButtonSeen == nil {
		c.ButtonSeen = func() {}
	}
	return &PM{cfg: c, sci: level{line: lineOrNone(c.SCI)}, start: c.Now()}
}

// Close stops the timer of a guest that has enabled the timer interrupt.
func (p *PM) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.setAlarm()
}

// PressPower presses the power button and says whether the guest listens to
// it. If not, the press stays on record, and a guest that starts listening
// sees it.
func (p *PM) PressPower() (listening bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status |= pmPWRBTN
	p.pressed = true
	p.update()
	return p.enable&pmPWRBTN != 0
}

// Listening says whether the guest has enabled the power button's event.
func (p *PM) Listening() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.enable&pmPWRBTN != 0
}

// Read implements bus.Device.
func (p *PM) Read(off uint64, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var r [pmEnd]byte
	p.latchTimer()
	put16(r[pmStatus:], p.status)
	put16(r[pmEnable:], p.enable)
	put16(r[pmControl:], p.control|pmSCIEN)
	t := p.ticks() & pmTimerMask
	put16(r[pmTimer:], uint16(t))
	put16(r[pmTimer+2:], uint16(t>>16))
	n := 0
	if off < pmEnd {
		n = copy(data, r[off:])
	}
	clear(data[n:])
}

// Write implements bus.Device.
func (p *PM) Write(off uint64, data []byte) {
	p.mu.Lock()
	p.latchTimer()
	var sleep bool
	for i, b := range data {
		if p.writeByte(off+uint64(i), b) {
			sleep = true
		}
	}
	powerOff := sleep && p.control&pmSLPTYPMask == SleepS5<<pmSLPTYPLow
	seen := p.pressed && p.status&pmPWRBTN == 0
	if seen {
		p.pressed = false
	}
	p.update()
	p.setAlarm()
	p.mu.Unlock()
	if seen {
		p.cfg.ButtonSeen()
	}
	if powerOff {
		p.cfg.PowerOff()
	}
}

// writeByte writes one byte of a register and says whether SLP_EN was set.
func (p *PM) writeByte(off uint64, b byte) (sleep bool) {
	shift := 8 * (off & 1)
	v, mask := uint16(b)<<shift, uint16(0xff)<<shift
	switch off &^ 1 {
	case pmStatus:
		p.status &^= v
	case pmEnable:
		p.enable = (p.enable&^mask | v) & pmEN
	case pmControl:
		p.control = (p.control&^mask | v&mask) & (pmBMRLD | pmSLPTYPMask)
		return v&pmSLPEN != 0
	}
	return false
}

// ticks is the timer's value since the start, not cut to its 24 bits. The
// product has 128 bits, so that it holds for any uptime.
func (p *PM) ticks() uint64 {
	hi, lo := bits.Mul64(uint64(p.elapsed()), pmTimerHz)
	q, _ := bits.Div64(hi, lo, uint64(time.Second))
	return q
}

// elapsed is the time since the timer was 0.
func (p *PM) elapsed() time.Duration { return max(p.cfg.Now().Sub(p.start), 0) }

// latchTimer sets TMR_STS if the timer's highest bit has changed since the last
// look.
func (p *PM) latchTimer() {
	if h := p.ticks() / pmTimerHalf; h != p.halves {
		p.halves = h
		p.status |= pmTMR
		p.update()
	}
}

func (p *PM) update() { p.sci.set(p.status&p.enable&pmSTS != 0) }

// setAlarm lets a timer run exactly while the guest wants the timer interrupt
// and has not got it; hardly any guest does.
func (p *PM) setAlarm() {
	if p.alarm != nil {
		p.alarm.Stop()
		p.alarm = nil
	}
	if p.closed || p.enable&pmTMR == 0 || p.status&pmTMR != 0 {
		return
	}
	left := pmTimerHalf - p.ticks()%pmTimerHalf
	p.alarm = time.AfterFunc(time.Duration(left*uint64(time.Second)/pmTimerHz)+time.Microsecond, p.onAlarm)
}

func (p *PM) onAlarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latchTimer()
	p.update()
	p.setAlarm()
}

// Skip takes d out of the timer's time: the machine stood still for so long.
func (p *PM) Skip(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latchTimer()
	p.start = p.start.Add(d)
	p.halves = p.ticks() / pmTimerHalf
	p.setAlarm()
}

// PMState is everything a PM remembers, for saving and restoring it.
type PMState struct {
	Status  uint16 `cbor:"1,keyasint"`
	Enable  uint16 `cbor:"2,keyasint"`
	Control uint16 `cbor:"3,keyasint"`
	Elapsed int64  `cbor:"4,keyasint"` // of the timer, ns since power-on
	Pressed bool   `cbor:"5,keyasint"` // PressPower, not yet seen by the guest
}

// maxElapsed is more than any guest has run for, and can be computed with.
const maxElapsed = 1 << 62

// Save returns what the PM remembers.
func (p *PM) Save() PMState {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latchTimer()
	return PMState{p.status, p.enable, p.control, int64(p.elapsed()), p.pressed}
}

// Restore puts back what Save returned; the timer goes on from where it was.
func (p *PM) Restore(s PMState) error {
	err := known("PM", []field{
		{"PM1a_STS", uint64(s.Status), pmSTS},
		{"PM1a_EN", uint64(s.Enable), pmEN},
		{"PM1a_CNT", uint64(s.Control), pmBMRLD | pmSLPTYPMask},
	})
	if err != nil {
		return err
	}
	if s.Elapsed < 0 || s.Elapsed > maxElapsed {
		return fmt.Errorf("PM: the timer has run for %d ns", s.Elapsed)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.enable, p.control, p.pressed = s.Status, s.Enable, s.Control, s.Pressed
	p.start = p.cfg.Now().Add(-time.Duration(s.Elapsed))
	p.halves = p.ticks() / pmTimerHalf
	p.sci.restart()
	p.update()
	p.setAlarm()
	return nil
}

func put16(b []byte, v uint16) { b[0], b[1] = byte(v), byte(v>>8) }
