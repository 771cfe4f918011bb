package chipset

import (
	"fmt"
	"io"
	"sync"
)

// Where a PC has its first serial port.
const (
	COM1     = 0x3f8
	COM1IRQ  = 4
	UARTSize = 8
)

// Registers of a 16550A (National Semiconductor PC16550D, 8.0).
const (
	uartData = 0 // RBR, THR; DLL with DLAB
	uartIER  = 1 // DLM with DLAB
	uartIIR  = 2 // FCR when written
	uartLCR  = 3
	uartMCR  = 4
	uartLSR  = 5
	uartMSR  = 6
	uartSCR  = 7
)

const (
	ierRDA  = 1 << 0
	ierTHRE = 1 << 1
	ierRLS  = 1 << 2
	ierMS   = 1 << 3
	ierMask = 0x0f

	iirNone    = 0x01
	iirModem   = 0x00
	iirTHRE    = 0x02
	iirRDA     = 0x04
	iirRLS     = 0x06
	iirTimeout = 0x0c
	iirFIFO    = 0xc0

	fcrEnable  = 1 << 0
	fcrClearRX = 1 << 1
	fcrTrigger = 3 << 6

	lcrDLAB = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOUT1 = 1 << 2
	mcrOUT2 = 1 << 3
	mcrLoop = 1 << 4
	mcrMask = 0x1f

	lsrDR   = 1 << 0
	lsrOE   = 1 << 1
	lsrBI   = 1 << 4
	lsrTHRE = 1 << 5
	lsrTEMT = 1 << 6

	msrDelta = 0x0f
	msrTERI  = 1 << 2
	msrCTS   = 1 << 4
	msrDSR   = 1 << 5
	msrRI    = 1 << 6
	msrDCD   = 1 << 7
	msrIdle  = msrCTS | msrDSR | msrDCD // what a connected terminal shows
)

const fifoSize = 16

// rxTrigger is the FIFO level of FCR bits 7:6 at which data are announced.
var rxTrigger = [4]uint8{1, 4, 8, 14}

// UART is a 16550A. What the guest sends goes to an output at once, so its
// transmitter is always empty. What it is to receive waits outside until the
// 16 bytes of the FIFO have been read: nothing is lost.
type UART struct {
	mu    sync.Mutex
	irq   level
	out   io.Writer
	ready func()
	tx    [1]byte // what out is given; here so that it is not allocated
	s     UARTState
}

// UARTState is everything a UART remembers, for saving and restoring it.
type UARTState struct {
	IER       uint8          `cbor:"1,keyasint"`
	FCR       uint8          `cbor:"2,keyasint"`
	LCR       uint8          `cbor:"3,keyasint"`
	MCR       uint8          `cbor:"4,keyasint"`
	MSR       uint8          `cbor:"5,keyasint"`
	SCR       uint8          `cbor:"6,keyasint"`
	LSRErrors uint8          `cbor:"7,keyasint"` // latched LSR bits: OE, BI
	DLL       uint8          `cbor:"8,keyasint"`
	DLM       uint8          `cbor:"9,keyasint"`
	THRI      bool           `cbor:"10,keyasint"` // transmitter-empty interrupt is pending
	RX        [fifoSize]byte `cbor:"11,keyasint"`
	RXHead    uint8          `cbor:"12,keyasint"`
	RXLen     uint8          `cbor:"13,keyasint"`
}

// NewUART makes a UART in its reset state. out takes what the guest sends, one
// byte at a time; its errors are nobody's business here, and nil drops all.
// ready, if not nil, is called each time the guest has read the last byte that
// Input left: the moment to call it again.
func NewUART(irq Line, out io.Writer, ready func()) *UART {
	if out == nil {
		out = io.Discard
	}
	if ready == nil {
		ready = func() {}
	}
	u := &UART{irq: level{line: lineOrNone(irq)}, out: out, ready: ready}
	u.s = UARTState{DLL: 0x0c, MSR: msrIdle}
	return u
}

// Read implements bus.Device. Only the first byte of a wide access is a
// register: the chip hangs on an 8-bit bus.
func (u *UART) Read(off uint64, data []byte) {
	clear(data)
	u.mu.Lock()
	v, drained := u.read(off)
	u.mu.Unlock()
	data[0] = v
	if drained {
		u.ready()
	}
}

// Write implements bus.Device.
func (u *UART) Write(off uint64, data []byte) {
	u.mu.Lock()
	drained := u.write(off, data[0])
	u.mu.Unlock()
	if drained {
		u.ready()
	}
}

// Input gives the guest up to len(p) bytes to read and returns how many it
// took: none while the FIFO is full or the guest loops its port back. The rest
// is the caller's until ready is called.
func (u *UART) Input(p []byte) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	if u.s.MCR&mcrLoop == 0 {
		for n < len(p) && u.push(p[n]) {
			n++
		}
	}
	u.update()
	return n
}

// Break sends a break condition, which Linux takes as the start of a SysRq
// command. It takes the place of what the guest had not read yet.
func (u *UART) Break() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.s.RXLen = 0
	u.push(0)
	u.s.LSRErrors |= lsrBI
	u.update()
}

// Save returns what the UART remembers.
func (u *UART) Save() UARTState {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.s
}

// Restore puts back what Save returned and raises the interrupt if there is a
// cause: a lost one would leave the guest's terminal stuck.
func (u *UART) Restore(s UARTState) error {
	err := known("UART", []field{
		{"IER", uint64(s.IER), ierMask},
		{"FCR", uint64(s.FCR), fcrEnable | fcrTrigger},
		{"MCR", uint64(s.MCR), mcrMask},
		{"LSR", uint64(s.LSRErrors), lsrOE | lsrBI},
	})
	if err != nil {
		return err
	}
	if s.RXHead >= fifoSize || s.RXLen > s.depth() {
		return fmt.Errorf("UART: %d bytes from %d on in a FIFO of %d", s.RXLen, s.RXHead, s.depth())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.s = s
	u.irq.restart()
	u.update()
	return nil
}

func (u *UART) read(off uint64) (v byte, drained bool) {
	s := &u.s
	switch off {
	case uartData:
		if s.LCR&lcrDLAB != 0 {
			return s.DLL, false
		}
		v, drained = u.pop()
	case uartIER:
		if s.LCR&lcrDLAB != 0 {
			return s.DLM, false
		}
		return s.IER, false
	case uartIIR:
		v = u.cause()
		if v == iirTHRE {
			s.THRI = false
		}
		if s.FCR&fcrEnable != 0 {
			v |= iirFIFO
		}
	case uartLCR:
		return s.LCR, false
	case uartMCR:
		return s.MCR, false
	case uartLSR:
		v = u.lsr()
		s.LSRErrors = 0
	case uartMSR:
		v = s.MSR
		s.MSR &^= msrDelta
	case uartSCR:
		return s.SCR, false
	}
	u.update()
	return v, drained
}

func (u *UART) write(off uint64, v byte) (drained bool) {
	s := &u.s
	switch off {
	case uartData:
		if s.LCR&lcrDLAB != 0 {
			s.DLL = v
			return false
		}
		u.send(v)
	case uartIER:
		if s.LCR&lcrDLAB != 0 {
			s.DLM = v
			return false
		}
		// Switching the interrupt on while the transmitter is empty
		// announces it again: drivers start sending that way.
		if v&^s.IER&ierTHRE != 0 {
			s.THRI = true
		}
		s.IER = v & ierMask
	case uartIIR:
		drained = u.writeFCR(v)
	case uartLCR:
		s.LCR = v
		return false
	case uartMCR:
		drained = u.writeMCR(v & mcrMask)
	case uartSCR:
		s.SCR = v
		return false
	}
	u.update()
	return drained
}

func (u *UART) send(v byte) {
	u.s.THRI = true
	if u.s.MCR&mcrLoop == 0 {
		u.tx[0] = v
		u.out.Write(u.tx[:])
		return
	}
	if !u.push(v) {
		u.s.LSRErrors |= lsrOE
	}
}

// writeFCR sets the FIFOs up. Turning them on or off empties them.
func (u *UART) writeFCR(v byte) (drained bool) {
	s := &u.s
	if (v^s.FCR)&fcrEnable != 0 || v&fcrClearRX != 0 {
		drained = s.RXLen > 0
		s.RXLen = 0
	}
	s.FCR = v & (fcrEnable | fcrTrigger)
	return drained
}

// writeMCR sets the modem outputs. In loopback they are the modem inputs
// (PC16550D, 8.6.7); a byte that Input left must not look looped back.
func (u *UART) writeMCR(v byte) (drained bool) {
	s := &u.s
	if (v^s.MCR)&mcrLoop != 0 {
		drained = s.RXLen > 0 || v&mcrLoop == 0
		s.RXLen = 0
	}
	s.MCR = v
	in := byte(msrIdle)
	if v&mcrLoop != 0 {
		in = 0
		for _, w := range [...]struct{ out, in byte }{{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOUT1, msrRI}, {mcrOUT2, msrDCD}} {
			if v&w.out != 0 {
				in |= w.in
			}
		}
	}
	changed := (in ^ s.MSR) >> 4
	if in&msrRI != 0 {
		changed &^= msrTERI // only its trailing edge counts
	}
	s.MSR = in | s.MSR&msrDelta | changed
	return drained
}

func (s *UARTState) depth() uint8 {
	if s.FCR&fcrEnable != 0 {
		return fifoSize
	}
	return 1
}

func (u *UART) push(c byte) bool {
	s := &u.s
	if s.RXLen >= s.depth() {
		return false
	}
	s.RX[(s.RXHead+s.RXLen)%fifoSize] = c
	s.RXLen++
	return true
}

func (u *UART) pop() (c byte, drained bool) {
	s := &u.s
	if s.RXLen == 0 {
		return 0, false
	}
	c = s.RX[s.RXHead]
	s.RXHead = (s.RXHead + 1) % fifoSize
	s.RXLen--
	return c, s.RXLen == 0
}

func (u *UART) lsr() byte {
	v := u.s.LSRErrors | lsrTHRE | lsrTEMT
	if u.s.RXLen > 0 {
		v |= lsrDR
	}
	return v
}

// cause is the pending interrupt of the highest priority, as IIR shows it
// (PC16550D, table IV). Bytes below the trigger level are announced at once as
// a time-out: no character time passes here.
func (u *UART) cause() byte {
	s := &u.s
	switch {
	case s.IER&ierRLS != 0 && s.LSRErrors != 0:
		return iirRLS
	case s.IER&ierRDA != 0 && s.RXLen > 0:
		if s.FCR&fcrEnable != 0 && s.RXLen < rxTrigger[s.FCR>>6] {
			return iirTimeout
		}
		return iirRDA
	case s.IER&ierTHRE != 0 && s.THRI:
		return iirTHRE
	case s.IER&ierMS != 0 && s.MSR&msrDelta != 0:
		return iirModem
	}
	return iirNone
}

func (u *UART) update() { u.irq.set(u.cause() != iirNone) }
