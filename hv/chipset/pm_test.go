package chipset

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

type pmBench struct {
	*PM
	sci       fakeLine
	clock     *fakeClock
	off, seen int
}

func newPM() *pmBench {
	b := &pmBench{clock: newClock()}
	b.PM = NewPM(PMConfig{SCI: &b.sci, PowerOff: func() { b.off++ }, ButtonSeen: func() { b.seen++ }, Now: b.clock.now})
	return b
}

func TestPMRegistersAfterReset(t *testing.T) {
	p := newPM()
	if s, e, c := in16(p, pmStatus), in16(p, pmEnable), in16(p, pmControl); s != 0 || e != 0 || c != pmSCIEN {
		t.Errorf("status %#x enable %#x control %#x, want 0, 0, 1", s, e, c)
	}
	if got := in32(p, 0x20); got != 0 {
		t.Errorf("beyond the registers: %#x, want 0", got)
	}
}

func TestPMMasks(t *testing.T) {
	for _, tc := range []struct {
		name        string
		reg         uint64
		write, want uint16
	}{
		{"enable", pmEnable, 0xffff, pmEN},
		{"control", pmControl, 0xffff &^ pmSLPEN, pmSCIEN | pmBMRLD | pmSLPTYPMask},
		{"SCI_EN cannot be cleared", pmControl, 0, pmSCIEN},
		{"timer is read-only", pmTimer, 0xffff, 0},
		{"status cannot be set", pmStatus, 0xffff, 0},
	} {
		p := newPM()
		out16(p, tc.reg, tc.write)
		if got := in16(p, tc.reg); got != tc.want {
			t.Errorf("%s: wrote %#x, read %#x, want %#x", tc.name, tc.write, got, tc.want)
		}
		p.Close()
	}
}

func TestPMPowerButton(t *testing.T) {
	p := newPM()
	if p.Listening() || p.PressPower() {
		t.Error("a guest that enabled nothing listens")
	}
	if p.sci.high.Load() {
		t.Error("interrupt although not enabled")
	}
	out16(p, pmEnable, pmPWRBTN)
	if !p.Listening() || !p.sci.high.Load() {
		t.Error("the press before the guest listened is lost")
	}
	if in16(p, pmStatus) != pmPWRBTN || p.seen != 0 {
		t.Errorf("status %#x, seen %d", in16(p, pmStatus), p.seen)
	}
	out16(p, pmStatus, pmPWRBTN)
	if p.sci.high.Load() || in16(p, pmStatus) != 0 || p.seen != 1 {
		t.Errorf("cleared: line %v status %#x seen %d, want low, 0, once", p.sci.high.Load(), in16(p, pmStatus), p.seen)
	}
	if !p.PressPower() || !p.sci.high.Load() || p.sci.edges.Load() != 2 {
		t.Error("second press not seen")
	}
	out8(p, pmStatus+1, pmPWRBTN>>8) // by its byte
	if p.seen != 2 || p.sci.high.Load() {
		t.Errorf("seen %d times, line %v; want 2, low", p.seen, p.sci.high.Load())
	}
	out16(p, pmStatus, pmPWRBTN)
	if p.seen != 2 {
		t.Error("clearing without a press counts as seen")
	}
}

func TestPMSleep(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(p *PM)
		want int
	}{
		{"S5", func(p *PM) { out16(p, pmControl, SleepS5<<10|pmSLPEN) }, 1},
		{"type first, then enable", func(p *PM) {
			out16(p, pmControl, SleepS5<<10)
			out16(p, pmControl, SleepS5<<10|pmSLPEN)
		}, 1},
		{"by its high byte", func(p *PM) { out8(p, pmControl+1, (SleepS5<<10|pmSLPEN)>>8) }, 1},
		{"enable and control in one", func(p *PM) { p.Write(pmEnable, []byte{0, 0, 0, (SleepS5<<10 | pmSLPEN) >> 8}) }, 1},
		{"type only", func(p *PM) { out16(p, pmControl, SleepS5<<10) }, 0},
		{"S3, which _S5 is not", func(p *PM) { out16(p, pmControl, 1<<10|pmSLPEN) }, 0},
	} {
		p := newPM()
		tc.do(p.PM)
		if p.off != tc.want {
			t.Errorf("%s: powered off %d times, want %d", tc.name, p.off, tc.want)
		}
		if in16(p, pmControl)&pmSLPEN != 0 {
			t.Errorf("%s: SLP_EN reads as set", tc.name)
		}
	}
}

func TestPMTimer(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		0:                    0,
		time.Second:          pmTimerHz,
		time.Millisecond:     3579,
		10 * time.Second:     10 * pmTimerHz & pmTimerMask,
		100 * 24 * time.Hour: 100 * 24 * 3600 * pmTimerHz & pmTimerMask,
		-time.Second:         0,
	} {
		p := newPM()
		p.clock.advance(d)
		if got := in32(p, pmTimer); got != want {
			t.Errorf("after %v: %d, want %d", d, got, want)
		}
	}
}

func TestPMTimerStatus(t *testing.T) {
	p := newPM()
	p.clock.advance(3 * time.Second) // bit 23 changes every 2.34 s
	if got := in16(p, pmStatus); got != pmTMR {
		t.Errorf("status %#x, want TMR", got)
	}
	if out16(p, pmStatus, pmTMR); in16(p, pmStatus) != 0 {
		t.Error("TMR cannot be cleared")
	}
	p.clock.advance(2 * time.Second)
	if got := in16(p, pmStatus); got != pmTMR {
		t.Errorf("status %#x, want TMR again", got)
	}
}

func TestPMTimerInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sci fakeLine
		p := NewPM(PMConfig{SCI: &sci})
		time.Sleep(10 * time.Second)
		if p.alarm != nil {
			t.Error("a timer runs that nobody asked for")
		}
		in16(p, pmStatus)
		out16(p, pmStatus, pmTMR)
		out16(p, pmEnable, pmTMR)
		for range 3 {
			time.Sleep(2400 * time.Millisecond)
			synctest.Wait()
			if !sci.high.Load() {
				t.Fatal("no interrupt")
			}
			out16(p, pmStatus, pmTMR)
		}
		if sci.edges.Load() != 3 {
			t.Errorf("%d interrupts, want 3", sci.edges.Load())
		}
		p.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		if sci.edges.Load() != 3 {
			t.Error("interrupts after Close")
		}
	})
}

func TestPMRestore(t *testing.T) {
	a, b := newPM(), newPM()
	a.clock.advance(12345 * time.Microsecond)
	out16(a, pmEnable, pmPWRBTN)
	a.PressPower()
	b.clock.advance(time.Hour)
	if err := b.Restore(a.Save()); err != nil {
		t.Fatal(err)
	}
	if got, want := in32(b, pmTimer), in32(a, pmTimer); got != want {
		t.Errorf("timer %d, want %d", got, want)
	}
	if !b.sci.high.Load() || in16(b, pmEnable) != pmPWRBTN {
		t.Error("pending press is lost")
	}
	if out16(b, pmStatus, pmPWRBTN); b.seen != 1 {
		t.Error("the restored press is not reported as seen")
	}
}

func FuzzPM(f *testing.F) {
	f.Add([]byte("\x05\x02\x01\x05\x04\x34\x01\x00\x00\x02\x08\x00"))
	f.Add([]byte("\x07\x3c\xff\x03\x3c\x00\x07\x00\xff\x03\x00\x00"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		synctest.Test(t, func(t *testing.T) {
			run := func(move bool) ([]byte, PMState) {
				sci := new(fakeLine)
				p := NewPM(PMConfig{SCI: sci})
				at := &socket{p}
				defer func() { p.Close() }()
				reads := script(at, PMSize, ops, func(op byte) {
					if move {
						sci = new(fakeLine)
						next := NewPM(PMConfig{SCI: sci})
						if err := next.Restore(p.Save()); err != nil {
							t.Fatal(err)
						}
						p.Close()
						p, at.Device = next, next
					}
					time.Sleep(time.Duration(op) * 10 * time.Millisecond)
					synctest.Wait()
					if op&0x18 == 0x18 {
						p.PressPower()
					}
					if s := p.Save(); sci.high.Load() != (s.Status&s.Enable != 0) {
						t.Errorf("line %v, state %+v", sci.high.Load(), s)
					}
				})
				return reads, p.Save()
			}
			r1, s1 := run(false)
			r2, s2 := run(true)
			if !bytes.Equal(r1, r2) || s1 != s2 {
				t.Errorf("two runs differ:\n% x %+v\n% x %+v", r1, s1, r2, s2)
			}
		})
	})
}
