package chipset

import (
	"bytes"
	"strings"
	"testing"
)

type uartBench struct {
	*UART
	irq   fakeLine
	out   bytes.Buffer
	ready int
}

func newUART() *uartBench {
	b := new(uartBench)
	b.UART = NewUART(&b.irq, &b.out, func() { b.ready++ })
	return b
}

func TestUARTRegistersAfterReset(t *testing.T) {
	u := newUART()
	for reg, want := range []byte{0, 0, iirNone, 0, 0, lsrTHRE | lsrTEMT, msrIdle, 0} {
		if got := in8(u, uint64(reg)); got != want {
			t.Errorf("register %d: got %#x, want %#x", reg, got, want)
		}
	}
}

func TestUARTKeepsWhatIsWritten(t *testing.T) {
	for _, tc := range []struct {
		name          string
		lcr           byte
		reg           uint64
		write, expect byte
	}{
		{"IER has four bits", 0, uartIER, 0xff, 0x0f},
		{"MCR has five bits", 0, uartMCR, 0xff, 0x1f},
		{"LCR", 0, uartLCR, 0xbf, 0xbf},
		{"SCR", 0, uartSCR, 0x5a, 0x5a},
		{"DLL", lcrDLAB, uartData, 0x34, 0x34},
		{"DLM", lcrDLAB, uartIER, 0x12, 0x12},
		{"no EFR behind 0xbf", 0xbf, uartIIR, 0x10, iirNone},
		{"LSR is read-only", 0, uartLSR, 0xff, 0x60},
		{"MSR is read-only", 0, uartMSR, 0x0f, msrIdle},
	} {
		u := newUART()
		out8(u, uartLCR, tc.lcr)
		out8(u, tc.reg, tc.write)
		if got := in8(u, tc.reg); got != tc.expect {
			t.Errorf("%s: wrote %#x, read %#x, want %#x", tc.name, tc.write, got, tc.expect)
		}
		if u.out.Len() != 0 {
			t.Errorf("%s: sent %q", tc.name, u.out.Bytes())
		}
	}
}

func TestUARTSends(t *testing.T) {
	u := newUART()
	for _, c := range []byte("hello") {
		if in8(u, uartLSR)&lsrTHRE == 0 {
			t.Fatal("transmitter is not empty")
		}
		out8(u, uartData, c)
	}
	if got := u.out.String(); got != "hello" {
		t.Errorf("sent %q, want hello", got)
	}
}

// The transmitter's interrupt comes when it is enabled and after each byte, and
// goes when IIR says so.
func TestUARTTransmitterInterrupt(t *testing.T) {
	u := newUART()
	for round := range 3 {
		out8(u, uartIER, ierTHRE)
		if !u.irq.high.Load() {
			t.Fatalf("round %d: enabled, no interrupt", round)
		}
		if got := in8(u, uartIIR); got != iirTHRE || u.irq.high.Load() {
			t.Fatalf("round %d: IIR %#x, line %v; want %#x, low", round, got, u.irq.high.Load(), iirTHRE)
		}
		if got := in8(u, uartIIR); got != iirNone {
			t.Fatalf("round %d: second IIR %#x, want none", round, got)
		}
		out8(u, uartData, 'x')
		if !u.irq.high.Load() {
			t.Fatalf("round %d: byte sent, no interrupt", round)
		}
		out8(u, uartIER, 0)
		if u.irq.high.Load() {
			t.Fatalf("round %d: disabled, line still up", round)
		}
	}
}

func TestUARTReceives(t *testing.T) {
	u := newUART()
	out8(u, uartIIR, fcrEnable)
	text := []byte(strings.Repeat("0123456789", 4))
	out8(u, uartIER, ierRDA)
	n := u.Input(text)
	if n != fifoSize {
		t.Fatalf("took %d bytes, want the FIFO's %d", n, fifoSize)
	}
	var got []byte
	for len(got) < len(text) {
		if !u.irq.high.Load() || in8(u, uartIIR) != iirRDA|iirFIFO {
			t.Fatalf("after %d bytes: no interrupt for more", len(got))
		}
		for in8(u, uartLSR)&lsrDR != 0 {
			got = append(got, in8(u, uartData))
		}
		if u.irq.high.Load() {
			t.Fatalf("after %d bytes: FIFO empty, line still up", len(got))
		}
		n += u.Input(text[n:])
	}
	if !bytes.Equal(got, text) {
		t.Errorf("received %q, want %q", got, text)
	}
	if u.ready != 3 {
		t.Errorf("asked for more %d times, want 3", u.ready)
	}
	if in8(u, uartData) != 0 {
		t.Error("an empty FIFO gives a byte")
	}
}

func TestUARTWithoutFIFOHoldsOneByte(t *testing.T) {
	u := newUART()
	if n := u.Input([]byte("ab")); n != 1 {
		t.Errorf("took %d bytes, want 1", n)
	}
}

func TestUARTTriggerLevels(t *testing.T) {
	for i, level := range rxTrigger {
		u := newUART()
		out8(u, uartIIR, fcrEnable|byte(i)<<6)
		out8(u, uartIER, ierRDA)
		for n := uint8(1); n <= fifoSize; n++ {
			u.Input([]byte{n})
			want := byte(iirFIFO | iirTimeout)
			if n >= level {
				want = iirFIFO | iirRDA
			}
			if got := in8(u, uartIIR); got != want || !u.irq.high.Load() {
				t.Errorf("trigger %d, %d bytes: IIR %#x, want %#x", level, n, got, want)
			}
		}
	}
}

func TestUARTInterruptPriority(t *testing.T) {
	u := newUART()
	out8(u, uartMCR, mcrLoop) // moves modem lines: their deltas are set
	out8(u, uartMCR, 0)
	out8(u, uartIER, ierMask)
	u.Break()
	for i, want := range []byte{iirRLS, iirRDA, iirTHRE, iirModem, iirNone} {
		if got := in8(u, uartIIR); got != want {
			t.Fatalf("cause %d: IIR %#x, want %#x", i, got, want)
		}
		switch want {
		case iirRLS:
			if got := in8(u, uartLSR); got != 0x60|lsrBI|lsrDR {
				t.Errorf("LSR %#x, want break and data", got)
			}
		case iirRDA:
			if got := in8(u, uartData); got != 0 {
				t.Errorf("break byte %#x, want 0", got)
			}
		case iirModem:
			in8(u, uartMSR)
		}
	}
	if u.irq.high.Load() {
		t.Error("no cause left, line still up")
	}
}

func TestUARTLoopback(t *testing.T) {
	u := newUART()
	for mcr, want := range map[byte]byte{
		mcrLoop:                    0,
		mcrLoop | mcrRTS | mcrOUT2: msrCTS | msrDCD, // what Linux tests
		mcrLoop | mcrDTR | mcrOUT1: msrDSR | msrRI,
		mcrDTR | mcrRTS | mcrOUT2:  msrIdle,
	} {
		out8(u, uartMCR, mcr)
		if got := in8(u, uartMSR) &^ msrDelta; got != want {
			t.Errorf("MCR %#x: MSR %#x, want %#x", mcr, got, want)
		}
	}
	out8(u, uartMCR, mcrLoop)
	out8(u, uartData, 'a')
	if n := u.Input([]byte("b")); n != 0 {
		t.Error("takes input in loopback")
	}
	out8(u, uartData, 'c') // no FIFO: overrun
	if got := in8(u, uartLSR); got != 0x60|lsrDR|lsrOE {
		t.Errorf("LSR %#x, want data and overrun", got)
	}
	if got := in8(u, uartData); got != 'a' || u.out.Len() != 0 {
		t.Errorf("looped back %q, sent %q", got, u.out.String())
	}
}

func TestUARTLeavingLoopbackAsksForInput(t *testing.T) {
	u := newUART()
	out8(u, uartMCR, mcrLoop)
	u.ready = 0
	if out8(u, uartMCR, 0); u.ready != 1 {
		t.Errorf("asked %d times, want 1: input that was refused would wait for ever", u.ready)
	}
}

func TestUARTClearingFIFOAsksForInput(t *testing.T) {
	u := newUART()
	out8(u, uartIIR, fcrEnable)
	u.Input([]byte("abc"))
	out8(u, uartIIR, fcrEnable|fcrClearRX)
	if in8(u, uartLSR)&lsrDR != 0 || u.ready != 1 {
		t.Errorf("LSR %#x, asked %d times; want no data, once", in8(u, uartLSR), u.ready)
	}
}

func TestUARTRestore(t *testing.T) {
	a := newUART()
	out8(a, uartIIR, fcrEnable)
	out8(a, uartIER, ierRDA|ierTHRE)
	a.Input([]byte("xy"))
	b := newUART()
	if err := b.Restore(a.Save()); err != nil {
		t.Fatal(err)
	}
	if !b.irq.high.Load() || b.irq.edges.Load() != 1 {
		t.Errorf("line %v after %d edges, want it raised: the guest's terminal would hang", b.irq.high.Load(), b.irq.edges.Load())
	}
	if got := []byte{in8(b, uartIIR), in8(b, uartData), in8(b, uartData), in8(b, uartIIR)}; !bytes.Equal(got, []byte{iirFIFO | iirRDA, 'x', 'y', iirFIFO | iirTHRE}) {
		t.Errorf("restored UART reads % x", got)
	}
}

func TestUARTRestoreChecks(t *testing.T) {
	for _, s := range []UARTState{
		{IER: 0x10}, {FCR: 2}, {MCR: 0x20}, {LSRErrors: 1},
		{RXHead: fifoSize}, {RXLen: 2}, {FCR: fcrEnable, RXLen: fifoSize + 1},
	} {
		u := newUART()
		if u.Restore(s) == nil {
			t.Errorf("%+v was taken", s)
		}
		if got := u.Save(); got != newUART().Save() {
			t.Errorf("after a state that was refused: %+v", got)
		}
	}
}

func TestUARTDoesNotAllocate(t *testing.T) {
	u := NewUART(&fakeLine{}, nil, nil)
	b := []byte{'x'}
	if n := testing.AllocsPerRun(100, func() {
		u.Write(uartData, b)
		u.Read(uartLSR, b)
		u.Read(uartIIR, b)
	}); n != 0 {
		t.Errorf("%v allocations per byte, want 0", n)
	}
}

func FuzzUART(f *testing.F) {
	f.Add([]byte("\x04\x02\x01\x04\x01\x0f\x04\x00x\x00\x02\x00\x00\x05\x00"), []byte("input"))
	f.Add([]byte("\x07\x00\xff\x03\x00\x00\x04\x04\x1f\x04\x00a\x00\x00\x00"), []byte{})
	f.Fuzz(func(t *testing.T, ops, input []byte) {
		run := func(move bool) ([]byte, UARTState) {
			u := newUART()
			at, rest := &socket{u}, input
			reads := script(at, UARTSize, ops, func(op byte) {
				if move {
					next := newUART()
					if err := next.Restore(u.Save()); err != nil {
						t.Fatal(err)
					}
					u, at.Device = next, next
				}
				if op&8 != 0 {
					rest = rest[u.Input(rest):]
				}
				if op&0x30 == 0x30 {
					u.Break()
				}
				if want := u.cause() != iirNone; u.irq.high.Load() != want {
					t.Errorf("line %v, cause %#x", u.irq.high.Load(), u.cause())
				}
			})
			return reads, u.Save()
		}
		r1, s1 := run(false)
		r2, s2 := run(true)
		if !bytes.Equal(r1, r2) || s1 != s2 {
			t.Errorf("a port that is saved and restored after each access differs:\n% x %+v\n% x %+v", r1, s1, r2, s2)
		}
	})
}
