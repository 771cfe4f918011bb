package chipset

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"vmd/hv/bus"
	"vmd/hv/mem"
	"vmd/hv/state"
	"vmd/internal/golden"
)

// moves is one part of a board, as the fuzzer sees it: a device that can be made
// again, and its state as it travels.
type moves struct {
	bus.Device
	save    func() any
	restore func(b []byte) error
	close   func()
}

// part makes moves of a part whose state is S.
func part[S any](d bus.Device, save func() S, restore func(S) error) moves {
	return moves{d, func() any { return save() }, func(b []byte) error {
		var s S
		if err := state.Decode(b, &s); err != nil {
			return err
		}
		return restore(s)
	}, func() {}}
}

// parts makes one of each part, after power-on.
func parts(t testing.TB) []moves {
	clock := newClock()
	uart, post, panicked := newUART(), &PostCode{}, NewPVPanic(func(Panic) {})
	reset, a20 := NewResetControl(func() {}), NewPort92(func() {})
	rtc, pm := newRTC().RTC, NewPM(PMConfig{Now: clock.now})
	fw, _ := newFWCfg(t, twoFiles...)
	all := []moves{
		part(uart, uart.Save, uart.Restore),
		part(rtc, rtc.Save, rtc.Restore),
		part(pm, pm.Save, pm.Restore),
		part(fw, fw.Save, fw.Restore),
		part(post, post.Save, post.Restore),
		part(panicked, panicked.Save, panicked.Restore),
		part(reset, reset.Save, reset.Restore),
		part(a20, a20.Save, a20.Restore),
	}
	all[1].close, all[2].close = rtc.Close, pm.Close
	return all
}

func (m *moves) saved(t testing.TB) []byte {
	t.Helper()
	b, err := state.Encode(m.save())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzRestore has every part restored from a state of somebody else's making.
// What it takes, it must save so that it is taken again, whatever the guest does
// in between.
func FuzzRestore(f *testing.F) {
	for i, m := range parts(f) {
		f.Add(byte(i), m.saved(f), []byte{}, []byte("\x04\x00\x0b\x04\x01\x42\x04\x02\x01\x00\x01\x00"))
		f.Add(byte(i), m.saved(f), []byte{2, 0xff, 30, 0x18, 40, 1}, []byte("\x04\x00\x0c\x00\x01\x00\x04\x01\x0f"))
		m.close()
	}
	f.Fuzz(func(t *testing.T, which byte, b, edits, ops []byte) {
		synctest.Test(t, func(t *testing.T) {
			b = bytes.Clone(b)
			for ; len(edits) >= 2 && len(b) > 0; edits = edits[2:] {
				b[int(edits[0])%len(b)] = edits[1]
			}
			m, next := fresh(t, which), fresh(t, which)
			if m.restore(b) != nil {
				return
			}
			script(m, 4, ops, nil)
			s := m.saved(t)
			if err := next.restore(s); err != nil {
				t.Fatalf("%T: what was saved is not taken: %v", m.Device, err)
			}
			if again := next.saved(t); string(again) != string(s) {
				t.Errorf("%T: was %x\nis  %x", m.Device, s, again)
			}
		})
	})
}

// fresh is a new part of one kind.
func fresh(t *testing.T, which byte) moves {
	all := parts(t)
	for _, m := range all {
		t.Cleanup(m.close)
	}
	return all[int(which)%len(all)]
}

func TestRestorePorts(t *testing.T) {
	for _, tc := range []struct {
		which      int
		write      byte
		good, evil string // states
	}{
		{4, 0x55, "a10118aa", "a101190100"},
		{5, 1, "a10107", "a10108"},
		{6, 0x0b, "a10102", "a10104"},
		{7, 0, "a10101", "a10104"},
	} {
		m := parts(t)[tc.which]
		out8(m, 0, tc.write)
		was := in8(m, 0)
		next := parts(t)[tc.which]
		if err := next.restore(m.saved(t)); err != nil || in8(next, 0) != was {
			t.Errorf("%T: reads %#x, want %#x; %v", m.Device, in8(next, 0), was, err)
		}
		good, _ := hex.DecodeString(tc.good)
		evil, _ := hex.DecodeString(tc.evil)
		if err := next.restore(good); err != nil || string(next.saved(t)) != string(good) {
			t.Errorf("%T: %x became %x, %v", m.Device, good, next.saved(t), err)
		}
		if next.restore(evil) == nil {
			t.Errorf("%T: %x was taken", m.Device, evil)
		}
	}
}

// An event that a guest has reported before it moved is not reported again.
func TestPVPanicReportsOnce(t *testing.T) {
	n := 0
	a, b := NewPVPanic(func(Panic) { n++ }), NewPVPanic(func(Panic) { n++ })
	out8(a, 0, byte(Panicked))
	if err := b.Restore(a.Save()); err != nil {
		t.Fatal(err)
	}
	out8(b, 0, byte(Panicked))
	if n != 1 {
		t.Errorf("reported %d times", n)
	}
}

// What fw_cfg writes into guest memory is marked.
func TestFWCfgMarks(t *testing.T) {
	f, m := newFWCfg(t, twoFiles...)
	m.Track(true)
	const at, to = 0x1000, 0x5000
	request := []byte{0, 0x20, 0, fwDMASelect | fwDMARead, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, to >> 8, 0}
	b, _ := m.Slice(at, 16)
	copy(b, request)
	f.Write(fwDMALow, []byte{0, 0, at >> 8, 0})
	dirty := make([]uint64, m.BitmapWords(0))
	if _, err := m.TakeDirty(0, dirty); err != nil || dirty[0] != 1<<(at/mem.Page)|3<<(to/mem.Page) {
		t.Errorf("pages %#x are marked, %v", dirty, err)
	}
}

// TestGuestSeesTheSameParts holds what a guest reads from each part after
// power-on, and the items of fw_cfg, against a golden file. It is the machine's
// ABI (hv/machine.Version): a difference here is to be meant.
func TestGuestSeesTheSameParts(t *testing.T) {
	var b strings.Builder
	for _, p := range []struct {
		name string
		dev  bus.Device
		base uint64
		size int
	}{
		{"COM1", newUART(), COM1, UARTSize},
		{"power management", NewPM(PMConfig{Now: newClock().now}), PMBase, 16},
		{"pvpanic", NewPVPanic(nil), PVPanicPort, 1},
		{"reset control", NewResetControl(nil), ResetPort, 1},
		{"keyboard controller", NewI8042(nil), I8042Port, 1},
		{"fast A20", NewPort92(nil), FastA20, 1},
		{"POST code", &PostCode{}, PostPort, 1},
		{"debug port", NewDebugPort(nil), DebugPort, 1},
	} {
		fmt.Fprintf(&b, "%s at %#x:", p.name, p.base)
		for i := range p.size {
			fmt.Fprintf(&b, " %02x", in8(p.dev, uint64(i)))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "lines: COM1 %d, RTC %d, SCI %d; sleep type of S5 %d\n", COM1IRQ, RTCIRQ, SCIIRQ, SleepS5)
	rtc, cmos := newRTC(), make([]byte, cmosSize)
	for i := range cmos {
		cmos[i] = get(rtc.RTC, byte(i))
	}
	fmt.Fprintf(&b, "clock at %#x, 3 GiB and 5 GiB, 4 CPUs\n%s", RTCPort, hex.Dump(cmos))
	f, _ := newFWCfg(t, twoFiles...)
	fmt.Fprintf(&b, "fw_cfg at %#x, two files\n", FWCfgPort)
	for key := range 1 << 16 {
		if item, ok := f.items[uint16(key)]; ok {
			fmt.Fprintf(&b, "item %#04x\n%s", key, hex.Dump(item))
		}
	}
	golden.Check(t, "testdata/parts.golden", b.String())
}
