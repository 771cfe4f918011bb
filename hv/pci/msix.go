package pci

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// MSIX is a function's MSI-X capability with its table. The table is a bus
// device in a BAR of its own: entries from 0, pending bits from 0x800.
type MSIX struct {
	cap     int // where the capability is in configuration space
	enabled atomic.Bool

	mu      sync.Mutex // guards all below except vector.live
	on      bool       // enabled, and the function is not masked
	vectors []vector
}

// vector is one table entry with the interrupt that it is bound to.
type vector struct {
	addr   uint64
	data   uint32
	masked bool

	msi      MSI
	live     atomic.Bool // enabled and unmasked: Signal may go straight to msi
	pending  bool        // signalled while it was not
	direct   bool        // somebody writes to msi without asking us
	routed   bool        // msi carries routeA and routeD
	routeA   uint64
	routeD   uint32
	routeErr error
}

// AddMSIX gives the function n vectors: a capability at off, and BAR bar.
func (f *Function) AddMSIX(off, bar, n int) error {
	if n < 1 || n > MaxVectors {
		return fmt.Errorf("%d MSI-X vectors: want 1 to %d", n, MaxVectors)
	}
	m := &MSIX{cap: off, vectors: make([]vector, n)}
	for i := range m.vectors {
		msi, err := f.host.MSI()
		if err != nil {
			return fmt.Errorf("MSI-X vector %d: %w", i, err)
		}
		m.vectors[i].msi = msi
		m.vectors[i].masked = true
	}
	body := binary.LittleEndian.AppendUint16(nil, uint16(n-1))
	body = binary.LittleEndian.AppendUint32(body, uint32(bar))
	body = binary.LittleEndian.AppendUint32(body, msixPBAOffset|uint32(bar))
	mask := make([]byte, len(body))
	mask[1] = (msixEnable | msixFunctionMask) >> 8
	if err := f.AddCapability(off, CapMSIX, body, mask); err != nil {
		return err
	}
	if err := f.AddBAR(bar, BARMem32, msixBARSize, m); err != nil {
		return err
	}
	f.msix = m
	return nil
}

// MSIX returns the function's MSI-X capability, or nil.
func (f *Function) MSIX() *MSIX { return f.msix }

// applyMSIX carries what the guest wrote into message control to the vectors.
func (f *Function) applyMSIX() {
	ctl := binary.LittleEndian.Uint16(f.cfg[f.msix.cap+2:])
	on := ctl&msixEnable != 0
	f.intx.useMSIX(on)
	f.msix.control(on, ctl&msixFunctionMask != 0)
}

// Enabled says whether the guest has turned MSI-X on; if not, the device uses
// its pin.
func (m *MSIX) Enabled() bool { return m.enabled.Load() }

// Vectors is the size of the table.
func (m *MSIX) Vectors() int { return len(m.vectors) }

// Signal sends vector v, or remembers it in the pending bits while it is
// masked. A vector that does not exist (NoVector) is silent. It may be called
// from any goroutine and does not block.
func (m *MSIX) Signal(v uint16) {
	if int(v) >= len(m.vectors) {
		return
	}
	e := &m.vectors[v]
	if e.live.Load() {
		e.msi.Signal()
		return
	}
	m.mu.Lock()
	switch {
	case e.live.Load(): // unmasked since we looked
		e.msi.Signal()
	case m.enabled.Load():
		e.pending = true
	}
	m.mu.Unlock()
}

// Direct returns the eventfd of vector v for somebody who writes to it without
// asking Signal, as vhost does; -1 if there is no such vector. From then on, and
// until a reset, the vector is silenced while it is masked, and sent once when
// it no longer is: what came in between has left no pending bit.
func (m *MSIX) Direct(v uint16) int {
	if int(v) >= len(m.vectors) {
		return -1
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &m.vectors[v]
	e.direct = true
	m.settle(e)
	return e.msi.FD()
}

// RouteError returns the first reason why the machine refused a message that
// the guest programmed, or nil. Such a vector is silent.
func (m *MSIX) RouteError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.vectors {
		if err := m.vectors[i].routeErr; err != nil {
			return fmt.Errorf("MSI-X vector %d: %w", i, err)
		}
	}
	return nil
}

func (m *MSIX) control(enabled, masked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enabled.Store(enabled)
	m.on = enabled && !masked
	for i := range m.vectors {
		if !enabled {
			m.vectors[i].pending = false
		}
		m.settle(&m.vectors[i])
	}
}

func (m *MSIX) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enabled.Store(false)
	m.on = false
	for i := range m.vectors {
		e := &m.vectors[i]
		e.live.Store(false)
		e.addr, e.data, e.masked, e.pending, e.routeErr = 0, 0, true, false, nil
		m.settle(e) // a direct one falls silent
		e.direct = false
	}
}

// settle brings a vector to what the registers now say: its route, whether it
// is live, and what waited for that. Routes are costly (each replaces the
// kernel's whole table), so only a changed message is routed, and only once the
// guest has unmasked it.
func (m *MSIX) settle(e *vector) {
	if !m.on || e.masked {
		e.live.Store(false)
		if e.direct && e.routed {
			_ = e.msi.Route(0, 0) // no address of an APIC's; there is nothing to refuse
			e.routed = false
		}
		return
	}
	missed := e.direct && !e.routed
	if !e.routed || e.routeA != e.addr || e.routeD != e.data {
		e.live.Store(false)
		e.routeErr = e.msi.Route(e.addr, e.data)
		e.routed, e.routeA, e.routeD = true, e.addr, e.data
	}
	if e.routeErr != nil {
		return
	}
	e.live.Store(true)
	if e.pending || missed {
		e.pending = false
		e.msi.Signal()
	}
}

// Read answers a guest's read of the table or the pending bits. Only aligned
// accesses of 4 or 8 bytes mean anything (PCI 3.0, 6.8.2); others read zero.
func (m *MSIX) Read(off uint64, p []byte) {
	clear(p)
	if !wholeWords(off, len(p)) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; i < len(p); i += 4 {
		binary.LittleEndian.PutUint32(p[i:], m.word(off+uint64(i)))
	}
}

// Write takes a guest's write to the table.
func (m *MSIX) Write(off uint64, p []byte) {
	n := off / msixEntrySize
	if !wholeWords(off, len(p)) || n >= uint64(len(m.vectors)) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &m.vectors[n]
	for i := 0; i < len(p); i += 4 {
		e.setWord(int(off%msixEntrySize)+i, binary.LittleEndian.Uint32(p[i:]))
	}
	m.settle(e)
}

// wholeWords says whether an access is 4 or 8 bytes and aligned to its size.
func wholeWords(off uint64, n int) bool {
	return (n == 4 || n == 8) && off%uint64(n) == 0
}

func (m *MSIX) word(off uint64) uint32 {
	if off >= msixPBAOffset {
		return m.pendingWord(int(off-msixPBAOffset) * 8)
	}
	n := off / msixEntrySize
	if n >= uint64(len(m.vectors)) {
		return 0
	}
	e := &m.vectors[n]
	switch off % msixEntrySize {
	case 0:
		return uint32(e.addr)
	case 4:
		return uint32(e.addr >> 32)
	case 8:
		return e.data
	}
	if e.masked {
		return msixEntryMask
	}
	return 0
}

// pendingWord collects 32 pending bits from vector first on.
func (m *MSIX) pendingWord(first int) uint32 {
	var w uint32
	for i := 0; i < 32 && first+i < len(m.vectors); i++ {
		if m.vectors[first+i].pending {
			w |= 1 << i
		}
	}
	return w
}

func (e *vector) setWord(off int, v uint32) {
	switch off {
	case 0:
		e.addr = e.addr&^0xffffffff | uint64(v&^3) // the low two bits are zero (6.8.2.7)
	case 4:
		e.addr = e.addr&0xffffffff | uint64(v)<<32
	case 8:
		e.data = v
	case 12:
		e.masked = v&msixEntryMask != 0
	}
}
