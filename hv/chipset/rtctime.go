package chipset

import "time"

// clock is a date and time as the clock's registers have it, in binary and 24
// hours: seconds, minutes, hours, weekday, day, month, year, century. A guest
// can write any byte into each.
type clock [8]byte

// maxOffset bounds how far the guest's clock can be from the host's: more than
// the 10000 years that the registers can show.
const maxOffset = 10001 * 366 * 24 * 3600

// clockField says which element of a clock a register holds.
func clockField(reg uint8) int {
	switch reg {
	case rtcSeconds:
		return 0
	case rtcMinutes:
		return 1
	case rtcHours:
		return 2
	case rtcWeekday, rtcDay, rtcMonth, rtcYear:
		return int(reg-rtcWeekday) + 3
	case rtcCentury:
		return 7
	}
	return -1
}

func isTime(reg uint8) bool { return clockField(reg) >= 0 }

func (c clock) get(reg uint8) byte     { return c[clockField(reg)] }
func (c *clock) set(reg uint8, v byte) { c[clockField(reg)] = v }

func clockOf(t time.Time) clock {
	y := t.Year()
	return clock{
		byte(t.Second()), byte(t.Minute()), byte(t.Hour()), byte(t.Weekday()) + 1,
		byte(t.Day()), byte(t.Month()), byte(y % 100), byte(y / 100),
	}
}

// unix is the clock's time; the weekday does not count, and what is no date
// counts on as time.Date does.
func (c clock) unix() int64 {
	return time.Date(int(c[7])*100+int(c[6]), time.Month(c[5]), int(c[4]), int(c[2]), int(c[1]), int(c[0]), 0, time.UTC).Unix()
}

// guestTime is the time that the guest is shown.
func (r *RTC) guestTime() time.Time { return time.Unix(r.now().Unix()+r.offset, 0).UTC() }

func (r *RTC) clock() clock {
	if r.ram[rtcB]&rtcSET != 0 {
		return r.frozen
	}
	return clockOf(r.guestTime())
}

func (r *RTC) setClock(c clock) {
	r.offset = max(min(c.unix()-r.now().Unix(), maxOffset), -maxOffset)
}

// encode turns a number into what register B's mode bits ask for.
func (r *RTC) encode(v, reg byte) byte {
	var pm byte
	if reg == rtcHours && r.ram[rtcB]&rtc24h == 0 {
		if v >= 12 {
			pm = rtcPM
		}
		if v %= 12; v == 0 {
			v = 12
		}
	}
	if r.ram[rtcB]&rtcBinary == 0 {
		v = v/10<<4 | v%10
	}
	return v | pm
}

// decode is the reverse of encode. Nibbles beyond 9 count as they come.
func (r *RTC) decode(v, reg byte) byte {
	var pm byte
	h12 := (reg == rtcHours || reg == rtcHours+rtcAlarms) && r.ram[rtcB]&rtc24h == 0
	if h12 {
		pm, v = v&rtcPM, v&^rtcPM
	}
	if r.ram[rtcB]&rtcBinary == 0 {
		v = v>>4*10 + v&0x0f
	}
	if h12 {
		if v %= 12; pm != 0 {
			v += 12
		}
	}
	return v
}

// alarmMatches says whether c is the alarm's time.
func (r *RTC) alarmMatches(c clock) bool {
	for _, reg := range [...]uint8{rtcSeconds, rtcMinutes, rtcHours} {
		if a := r.ram[reg+rtcAlarms]; a < rtcAny && r.decode(a, reg+rtcAlarms) != c.get(reg) {
			return false
		}
	}
	return true
}

// periodicRate is the time between two periodic interrupts, or 0 for none
// (MC146818, table 5: with a 32.768 kHz crystal).
func (r *RTC) periodicRate() time.Duration { return rateOf(r.ram[rtcA]) }

func rateOf(a uint8) time.Duration {
	rs := a & rtcRate
	if rs == 0 {
		return 0
	}
	if rs < 3 {
		rs += 7
	}
	return time.Second * (1 << (rs - 1)) / 32768
}

// tick brings register C up to date. What was missed counts once.
func (r *RTC) tick() {
	now := r.now()
	if s := now.Unix(); s != r.second && r.ram[rtcB]&rtcSET == 0 {
		r.catchUp(s, r.second)
	}
	if d := r.periodicRate(); d > 0 {
		if n := int64(now.Sub(r.base) / d); n != r.period {
			r.period = n
			r.ram[rtcC] |= rtcPF
		}
	}
}

// maxCatchUp bounds, in seconds, how far back an alarm is looked for.
const maxCatchUp = 3600

// catchUp sets the flags of the seconds after seen, up to and with now: nobody
// looked at the clock meanwhile, or it was in another machine.
func (r *RTC) catchUp(now, seen int64) {
	r.second = now
	r.ram[rtcC] |= rtcUF
	if seen > now { // the host's clock was set back
		seen = now - 1
	}
	seen = max(seen, now-maxCatchUp)
	for t := seen + 1; t <= now; t++ {
		if r.alarmMatches(clockOf(time.Unix(t+r.offset, 0).UTC())) {
			r.ram[rtcC] |= rtcAF
			return
		}
	}
}

// flag sets IRQF from the other flags and their enables.
func (r *RTC) flag() {
	r.ram[rtcC] &^= rtcIRQF
	if r.ram[rtcC]&r.ram[rtcB]&(rtcPF|rtcAF|rtcUF) != 0 {
		r.ram[rtcC] |= rtcIRQF
	}
}

// update sets IRQF and the line, and the timer for what is to come.
func (r *RTC) update() {
	r.flag()
	r.irq.set(r.ram[rtcC]&rtcIRQF != 0)
	r.arm()
}

// arm starts the timer for the next interrupt. While one is pending there is
// nothing to wait for: a guest that does not answer costs nothing.
func (r *RTC) arm() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	b := r.ram[rtcB]
	if r.closed || r.ram[rtcC]&rtcIRQF != 0 || b&(rtcPIE|rtcAIE|rtcUIE) == 0 {
		return
	}
	now := r.now()
	next := time.Duration(-1)
	if b&(rtcAIE|rtcUIE) != 0 && b&rtcSET == 0 {
		next = time.Second - time.Duration(now.Nanosecond())
	}
	if d := r.periodicRate(); d > 0 && b&rtcPIE != 0 {
		if left := d - now.Sub(r.base)%d; next < 0 || left < next {
			next = left
		}
	}
	if next >= 0 {
		r.timer = time.AfterFunc(max(next, time.Microsecond), r.onTimer)
	}
}

func (r *RTC) onTimer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tick()
	r.update()
}
