package chipset

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

type rtcBench struct {
	*RTC
	irq   fakeLine
	clock *fakeClock
}

func newRTC() *rtcBench {
	b := &rtcBench{clock: newClock()}
	b.RTC = NewRTC(RTCConfig{IRQ: &b.irq, LowMemory: 3 << 30, HighMemory: 5 << 30, CPUs: 4, Now: b.clock.now})
	return b
}

func get(r *RTC, reg byte) byte {
	out8(r, 0, reg)
	return in8(r, 1)
}

func put(r *RTC, reg, v byte) {
	out8(r, 0, reg)
	out8(r, 1, v)
}

var timeRegs = []byte{rtcCentury, rtcYear, rtcMonth, rtcDay, rtcWeekday, rtcHours, rtcMinutes, rtcSeconds}

func getTime(r *RTC) []byte {
	var b []byte
	for _, reg := range timeRegs {
		b = append(b, get(r, reg))
	}
	return b
}

func TestRTCTime(t *testing.T) {
	for _, tc := range []struct {
		name string
		b    byte
		want []byte
	}{
		{"BCD, 24 hours", rtc24h, []byte{0x20, 0x26, 0x09, 0x30, 4, 0x23, 0x59, 0x58}},
		{"binary, 24 hours", rtc24h | rtcBinary, []byte{20, 26, 9, 30, 4, 23, 59, 58}},
		{"BCD, 12 hours", 0, []byte{0x20, 0x26, 0x09, 0x30, 4, 0x91, 0x59, 0x58}},
		{"binary, 12 hours", rtcBinary, []byte{20, 26, 9, 30, 4, 0x8b, 59, 58}},
	} {
		r := newRTC()
		put(r.RTC, rtcB, tc.b)
		if got := getTime(r.RTC); !bytes.Equal(got, tc.want) {
			t.Errorf("%s: % x, want % x", tc.name, got, tc.want)
		}
	}
}

func TestRTCTwelveHours(t *testing.T) {
	r := newRTC()
	put(r.RTC, rtcB, rtcBinary)
	for hour := range byte(24) {
		r.clock.t = time.Date(2026, 1, 2, int(hour), 0, 0, 0, time.UTC)
		got := get(r.RTC, rtcHours)
		if back := r.decode(got, rtcHours); back != hour || got&^rtcPM < 1 || got&^rtcPM > 12 {
			t.Errorf("%d o'clock reads %#x, which means %d", hour, got, back)
		}
	}
}

func TestRTCSet(t *testing.T) {
	r := newRTC()
	put(r.RTC, rtcB, rtcSET|rtc24h)
	for i, v := range []byte{0x19, 0x99, 0x12, 0x31, 6, 0x12, 0x34, 0x56} {
		put(r.RTC, timeRegs[i], v)
	}
	r.clock.advance(time.Hour)
	want := []byte{0x19, 0x99, 0x12, 0x31, 6, 0x12, 0x34, 0x56}
	if got := getTime(r.RTC); !bytes.Equal(got, want) {
		t.Errorf("while SET: % x, want % x", got, want)
	}
	put(r.RTC, rtcB, rtc24h)
	r.clock.advance(12 * time.Hour)
	want = []byte{0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x34, 0x56}
	if got := getTime(r.RTC); !bytes.Equal(got, want) {
		t.Errorf("12 hours later: % x, want % x", got, want)
	}
}

func TestRTCSetOneFieldWhileRunning(t *testing.T) {
	r := newRTC()
	put(r.RTC, rtcHours, 0x05)
	r.clock.advance(2 * time.Second)
	if h, m := get(r.RTC, rtcHours), get(r.RTC, rtcMinutes); h != 6 || m != 0 {
		t.Errorf("%x:%02x, want 6:00", h, m)
	}
}

// A guest that writes rubbish gets some time, and the far ends of the calendar
// do not overflow.
func TestRTCRubbishTime(t *testing.T) {
	r := newRTC()
	for _, v := range []byte{0xff, 0x00, 0x9a, 0x7f} {
		for _, reg := range timeRegs {
			put(r.RTC, reg, v)
		}
		if o := r.Save().Offset; o > maxOffset || o < -maxOffset {
			t.Errorf("offset %d after writing %#x", o, v)
		}
		getTime(r.RTC)
	}
}

func TestRTCMemory(t *testing.T) {
	r := newRTC()
	for _, tc := range []struct{ reg, want byte }{
		{0x0f, 0}, {0x10, 0}, {0x14, 0x02}, {0x15, 0x80}, {0x16, 0x02},
		{0x17, 0xff}, {0x18, 0xff}, {0x30, 0xff}, {0x31, 0xff},
		{0x34, 0x00}, {0x35, 0xbf}, // 3 GiB less 16 MiB
		{0x38, 0x01}, {0x3d, 0x32}, {0x5b, 0x00}, {0x5c, 0x40}, {0x5d, 0x01}, {0x5f, 3},
		{rtcA, 0x26}, {rtcB, 0x02}, {rtcC, 0}, {rtcD, 0x80},
	} {
		if got := get(r.RTC, tc.reg); got != tc.want {
			t.Errorf("byte %#x: got %#x, want %#x", tc.reg, got, tc.want)
		}
	}
	put(r.RTC, 0x0f|rtcNMI, 0x0a)
	if got := get(r.RTC, 0x0f); got != 0x0a {
		t.Errorf("shutdown byte %#x, want what was written", got)
	}
	if got := in8(r, 0); got != 0xff {
		t.Errorf("index reads %#x, want all ones", got)
	}
	put(r.RTC, rtcC, 0xff)
	put(r.RTC, rtcD, 0)
	if c, d := get(r.RTC, rtcC), get(r.RTC, rtcD); c != 0 || d != 0x80 {
		t.Errorf("C %#x D %#x after writing them, want 0, 0x80", c, d)
	}
}

func TestRTCUpdateInProgress(t *testing.T) {
	r := newRTC()
	for d, want := range map[time.Duration]byte{0: 0, 500 * time.Millisecond: 0, 997 * time.Millisecond: 0, 999 * time.Millisecond: rtcUIP} {
		r.clock.t = newClock().t.Add(d)
		if got := get(r.RTC, rtcA) & rtcUIP; got != want {
			t.Errorf("%v after the second: UIP %#x, want %#x", d, got, want)
		}
	}
	put(r.RTC, rtcB, rtcSET)
	if get(r.RTC, rtcA)&rtcUIP != 0 {
		t.Error("UIP although the clock is stopped")
	}
}

// Flags are set whether or not their interrupt is enabled: some guests poll.
func TestRTCFlags(t *testing.T) {
	r := newRTC()
	get(r.RTC, rtcC)
	r.clock.advance(time.Second)
	if got := get(r.RTC, rtcC); got != rtcUF|rtcPF {
		t.Errorf("C %#x, want UF and PF", got)
	}
	if got := get(r.RTC, rtcC); got != 0 {
		t.Errorf("C %#x when read again, want 0", got)
	}
	put(r.RTC, rtcSeconds|rtcAlarms, 0x00)
	put(r.RTC, rtcMinutes|rtcAlarms, 0x00)
	put(r.RTC, rtcHours|rtcAlarms, rtcAny)
	r.clock.advance(time.Second) // midnight
	if got := get(r.RTC, rtcC); got != rtcUF|rtcPF|rtcAF {
		t.Errorf("C %#x at the alarm's time, want AF too", got)
	}
	if r.irq.edges.Load() != 0 || r.timer != nil {
		t.Error("an interrupt that nobody enabled")
	}
}

func TestRTCPeriodicRates(t *testing.T) {
	r := newRTC()
	for rs, want := range map[byte]time.Duration{0: 0, 1: 3906250, 2: 7812500, 3: 122070, 6: 976562, 9: 7812500, 15: 500 * time.Millisecond} {
		put(r.RTC, rtcA, 0x20|rs)
		if got := r.periodicRate(); got != want {
			t.Errorf("rate %d: %v, want %v", rs, got, want)
		}
	}
}

func TestRTCInterrupts(t *testing.T) {
	for _, tc := range []struct {
		name         string
		enable, flag byte
		rate         byte
		step         time.Duration // how often the guest looks
		seconds      int
		want         int
	}{
		{"128 Hz", rtcPIE, rtcPF, 0x29, time.Millisecond, 1, 128},
		{"2 Hz", rtcPIE, rtcPF, 0x2f, 100 * time.Millisecond, 10, 20},
		{"each second", rtcUIE, rtcUF, 0x26, 100 * time.Millisecond, 10, 10},
		{"alarm at :30 of each minute", rtcAIE, rtcAF, 0x20, 500 * time.Millisecond, 600, 10},
		{"none", 0, 0, 0x26, 100 * time.Millisecond, 10, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var irq fakeLine
				r := NewRTC(RTCConfig{IRQ: &irq})
				put(r, rtcA, tc.rate)
				put(r, rtcSeconds|rtcAlarms, 0x30)
				put(r, rtcMinutes|rtcAlarms, rtcAny)
				put(r, rtcHours|rtcAlarms, rtcAny)
				get(r, rtcC)
				put(r, rtcB, rtc24h|tc.enable)
				end := time.Now().Add(time.Duration(tc.seconds)*time.Second + time.Millisecond)
				for time.Now().Before(end) {
					time.Sleep(tc.step)
					synctest.Wait()
					if irq.high.Load() && get(r, rtcC)&(rtcIRQF|tc.flag) != rtcIRQF|tc.flag {
						t.Fatal("interrupt without its flag")
					}
				}
				if int(irq.edges.Load()) != tc.want {
					t.Errorf("%d interrupts in %d s, want %d", irq.edges.Load(), tc.seconds, tc.want)
				}
				r.Close()
			})
		})
	}
}

// A guest that does not answer gets one interrupt, and no timer runs for it.
func TestRTCUnansweredInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var irq fakeLine
		r := NewRTC(RTCConfig{IRQ: &irq})
		put(r, rtcA, 0x23) // 8192 Hz
		put(r, rtcB, rtc24h|rtcPIE)
		time.Sleep(time.Hour)
		synctest.Wait()
		if irq.edges.Load() != 1 || r.timer != nil {
			t.Errorf("%d interrupts, timer %v; want one and no timer", irq.edges.Load(), r.timer != nil)
		}
	})
}

func TestRTCRestore(t *testing.T) {
	a, b := newRTC(), newRTC()
	put(a.RTC, rtcHours, 0x05)
	put(a.RTC, 0x0f, 0x0a)
	put(a.RTC, rtcB, rtc24h|rtcUIE)
	a.clock.advance(time.Second)
	b.clock.advance(time.Minute + time.Second)
	if err := b.Restore(a.Save()); err != nil {
		t.Fatal(err)
	}
	if got := get(b.RTC, 0x0f); got != 0x0a || get(b.RTC, rtcHours) != 0x06 {
		t.Errorf("byte 0xf %#x, hour %x; want 0xa, 6", got, get(b.RTC, rtcHours))
	}
	if !b.irq.high.Load() {
		t.Error("pending interrupt is lost")
	}
	for name, change := range map[string]func(*RTCState){
		"index":  func(s *RTCState) { s.Index = 0xff },
		"UIP":    func(s *RTCState) { s.Memory[rtcA] |= rtcUIP },
		"C":      func(s *RTCState) { s.Memory[rtcC] = 1 },
		"offset": func(s *RTCState) { s.Offset = -1 << 63 },
		"phase":  func(s *RTCState) { s.Phase = 1 << 40 },
		"early":  func(s *RTCState) { s.Phase = -1 },
	} {
		s := a.Save()
		if change(&s); b.Restore(s) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	getTime(b.RTC)
	b.Close()
	a.Close()
}

func FuzzRTC(f *testing.F) {
	f.Add([]byte("\x04\x00\x0b\x04\x01\x02\x04\x00\x04\x00\x01\x00"))
	f.Add([]byte("\x05\x00\x8b\x04\x00\x32\x04\x01\xff\x04\x00\x0c\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		synctest.Test(t, func(t *testing.T) {
			run := func(move bool) ([]byte, RTCState) {
				base := time.Now()
				now := func() time.Time { return newClock().t.Add(time.Since(base)) }
				fresh := func() *RTC {
					var irq fakeLine
					return NewRTC(RTCConfig{IRQ: &irq, Now: now})
				}
				r := fresh()
				at := &socket{r}
				reads := script(at, RTCSize, ops, func(op byte) {
					if move {
						next := fresh()
						if err := next.Restore(r.Save()); err != nil {
							t.Fatal(err)
						}
						r.Close()
						r, at.Device = next, next
					}
					time.Sleep(time.Duration(op) * 10 * time.Millisecond)
				})
				defer r.Close()
				return reads, r.Save()
			}
			r1, s1 := run(false)
			r2, s2 := run(true)
			if !bytes.Equal(r1, r2) || s1 != s2 {
				t.Errorf("two runs differ:\n% x %+v\n% x %+v", r1, s1, r2, s2)
			}
		})
	})
}
