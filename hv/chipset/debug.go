package chipset

import (
	"io"
	"sync"
	"sync/atomic"
)

// Ports for messages from firmware and small guests.
const (
	PostPort   = 0x80
	DebugPort  = 0x402 // SeaBIOS
	E9Port     = 0xe9
	debugReply = 0xe9 // what a reader of either port wants to see
)

// DebugConsole is a port that takes one character per write. It reads as
// 0xe9, without which SeaBIOS keeps silent.
type DebugConsole struct {
	mu  sync.Mutex
	out io.Writer
	buf [8]byte
}

// NewDebugPort makes a port that writes to out, or drops all if out is nil.
func NewDebugPort(out io.Writer) *DebugConsole { return &DebugConsole{out: out} }

// Read implements bus.Device.
func (d *DebugConsole) Read(_ uint64, data []byte) {
	clear(data)
	data[0] = debugReply
}

// Write implements bus.Device.
func (d *DebugConsole) Write(_ uint64, data []byte) {
	if d.out == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.out.Write(d.buf[:copy(d.buf[:1], data)])
}

// PostCode is port 0x80, where firmware tells how far it has come. Linux writes
// to it as well, to wait for a moment.
type PostCode struct{ last atomic.Uint32 }

// Last is the last byte written.
func (p *PostCode) Last() byte { return byte(p.last.Load()) }

// PostState is everything a PostCode remembers.
type PostState struct {
	Last uint8 `cbor:"1,keyasint"`
}

// Save returns what the PostCode remembers.
func (p *PostCode) Save() PostState { return PostState{p.Last()} }

// Restore puts back what Save returned.
func (p *PostCode) Restore(s PostState) error {
	p.last.Store(uint32(s.Last))
	return nil
}

// Read implements bus.Device.
func (p *PostCode) Read(_ uint64, data []byte) {
	ones(data)
	data[0] = p.Last()
}

// Write implements bus.Device.
func (p *PostCode) Write(_ uint64, data []byte) { p.last.Store(uint32(data[0])) }
