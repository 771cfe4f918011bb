package chipset

import "sync/atomic"

// Ports that reset the machine. An access of 0xcf9 that is one byte wide is the
// reset register; the wider ones of 0xcf8 are PCI's (Intel PIIX3, 2.3.8).
const (
	ResetPort  = 0xcf9
	I8042Data  = 0x60
	I8042Port  = 0x64
	FastA20    = 0x92
	resetGo    = 1 << 2
	resetMask  = 0x0b
	i8042Pulse = 0xf0 // pulse output lines whose bit is 0; line 0 is reset
	a20Reset   = 1 << 0
	a20Gate    = 1 << 1
)

// ResetControl is the byte at 0xcf9: writing bit 2 resets the machine. ACPI's
// reset register points here.
type ResetControl struct {
	reset func()
	value atomic.Uint32
}

// NewResetControl makes one that calls reset, perhaps more than once.
func NewResetControl(reset func()) *ResetControl { return &ResetControl{reset: reset} }

// Read implements bus.Device.
func (r *ResetControl) Read(_ uint64, data []byte) {
	clear(data)
	data[0] = byte(r.value.Load())
}

// Write implements bus.Device.
func (r *ResetControl) Write(_ uint64, data []byte) {
	r.value.Store(uint32(data[0] & resetMask))
	if data[0]&resetGo != 0 {
		r.reset()
	}
}

// ResetState is everything a ResetControl remembers.
type ResetState struct {
	Value uint8 `cbor:"1,keyasint"`
}

// Save returns what the ResetControl remembers.
func (r *ResetControl) Save() ResetState { return ResetState{uint8(r.value.Load())} }

// Restore puts back what Save returned.
func (r *ResetControl) Restore(s ResetState) error {
	if err := known("reset control", []field{{"value", uint64(s.Value), resetMask}}); err != nil {
		return err
	}
	r.value.Store(uint32(s.Value))
	return nil
}

// I8042 is the port 0x64 of a keyboard controller that is not there, but for
// the command that resets the machine. The FADT says that it is absent.
type I8042 struct{ reset func() }

// NewI8042 makes one that calls reset, perhaps more than once.
func NewI8042(reset func()) *I8042 { return &I8042{reset} }

// Read implements bus.Device. An absent controller reads as all ones.
func (k *I8042) Read(_ uint64, data []byte) { ones(data) }

// Write implements bus.Device.
func (k *I8042) Write(_ uint64, data []byte) {
	if data[0]&(i8042Pulse|1) == i8042Pulse {
		k.reset()
	}
}

// Port92 is the fast A20 gate and reset. The gate is only remembered: address
// line 20 is always on.
type Port92 struct {
	reset func()
	value atomic.Uint32
}

// NewPort92 makes one that calls reset, perhaps more than once.
func NewPort92(reset func()) *Port92 {
	p := &Port92{reset: reset}
	p.value.Store(a20Gate)
	return p
}

// Read implements bus.Device.
func (p *Port92) Read(_ uint64, data []byte) {
	clear(data)
	data[0] = byte(p.value.Load())
}

// Write implements bus.Device. Only a 0 to 1 change of bit 0 resets.
func (p *Port92) Write(_ uint64, data []byte) {
	v := uint32(data[0] & (a20Gate | a20Reset))
	old := p.value.Swap(v)
	if v&^old&a20Reset != 0 {
		p.reset()
	}
}

// Port92State is everything a Port92 remembers.
type Port92State struct {
	Value uint8 `cbor:"1,keyasint"`
}

// Save returns what the Port92 remembers.
func (p *Port92) Save() Port92State { return Port92State{uint8(p.value.Load())} }

// Restore puts back what Save returned.
func (p *Port92) Restore(s Port92State) error {
	if err := known("port 0x92", []field{{"value", uint64(s.Value), a20Gate | a20Reset}}); err != nil {
		return err
	}
	p.value.Store(uint32(s.Value))
	return nil
}
