// Package virtiopci is virtio over PCI (virtio 1.3, 4.1): registers in one
// 64-bit BAR, doorbells as ioeventfds, MSI-X, and the pin with its ISR for
// guests without it. Devices that are asked to have the legacy interface of
// virtio 0.9 too, in an I/O BAR, for drivers that know no other.
package virtiopci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
)

// Options are what New needs beside the device. The zero value will do.
type Options struct {
	// ID replaces the ids that the device type implies, unless it is zero.
	ID pci.ID
	// Interface says which drivers can use the device.
	Interface Interface
	// LimitedAccess says that the device reaches only what the guest shares with
	// it, as a guest with encrypted memory must be told. It needs Modern.
	LimitedAccess bool
	// Warn is told why the guest lost the device, at most once between two
	// resets of it, and of doorbells that the machine refused. A guest can
	// reset as often as it likes. Warn is called from any goroutine and must
	// not block.
	Warn func(error)
}

// Interface is which registers a device has (virtio 1.3, 4.1.1). It is part of
// what a guest sees.
type Interface uint8

// The interfaces.
const (
	Modern       Interface = iota // virtio 1.0 and later
	Transitional                  // both
	Legacy                        // virtio 0.9 alone: no MSI-X, no capabilities
)

// Function is a virtio device in a PCI slot.
type Function struct {
	pci  *pci.Function
	host pci.Host
	dev  virtio.Device
	core *virtio.Core
	warn func(error)

	hasLegacy bool // the legacy BAR is there

	// Read by the device's goroutines for each interrupt.
	configVec atomic.Uint32
	queueVec  []atomic.Uint32

	isrMu sync.Mutex // a leaf: the device's goroutines take it
	isr   uint8

	mu        sync.Mutex // guards all below, and core
	devSelect uint32
	drvSelect uint32
	queue     uint16 // queue_select
	modern    doorbells
	legacy    doorbells
	restored  bool // and not yet resumed
}

// New makes the function of dev for the machine h, whose memory is m. Put PCI()
// into a slot of the bus; call Close in the end.
func New(h pci.Host, m *mem.Memory, dev virtio.Device, o Options) (*Function, error) {
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	f := &Function{host: h, dev: dev, warn: o.Warn, hasLegacy: o.Interface != Modern}
	var err error
	if o.LimitedAccess && o.Interface != Modern {
		return nil, fmt.Errorf("virtio device %d: drivers of virtio 0.9 cannot be told what the device cannot reach", dev.Type())
	}
	if f.core, err = virtio.NewCore(dev, m, f, o.Warn); err != nil {
		return nil, err
	}
	if o.LimitedAccess {
		f.core.LimitAccess()
	}
	f.queueVec = make([]atomic.Uint32, f.core.Queues())
	f.modern = doorbells{bar: regsBAR, at: f.modernBell, set: make([]bool, f.core.Queues())}
	f.legacy = doorbells{bar: legacyBAR, at: f.legacyBell, set: make([]bool, f.core.Queues())}
	f.resetRegisters()
	if err := f.build(o); err != nil {
		return nil, errors.Join(fmt.Errorf("virtio device %d: %w", dev.Type(), err), f.core.Close())
	}
	return f, nil
}

// PCI is the function for a slot of the bus.
func (f *Function) PCI() *pci.Function { return f.pci }

// Device is the device that New was given.
func (f *Function) Device() virtio.Device { return f.dev }

// Pause returns when the device has no I/O in flight; it starts none before
// Resume. No vCPU may be running.
func (f *Function) Pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.core.Pause()
}

// Resume undoes Pause.
func (f *Function) Resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.core.Resume()
	f.catchUp()
}

// Close stops the device and gives up what New took. No vCPU may be running.
func (f *Function) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.core.Reset()
	f.syncBells()
	return f.core.Close()
}

// build makes the PCI function: ids, BARs, capabilities.
func (f *Function) build(o Options) error {
	id, err := identity(f.dev.Type(), o)
	if err != nil {
		return err
	}
	f.pci = pci.NewFunction(f.host, id)
	f.pci.UseINTx()
	f.pci.Hooks = pci.Hooks{Reset: f.reset, Decode: f.decode}
	var errs []error
	if o.Interface != Modern {
		errs = append(errs, f.pci.AddBAR(legacyBAR, pci.BARIO, legacySize, (*legacyRegisters)(f)))
	}
	if o.Interface != Legacy {
		errs = append(errs, f.buildModern())
	}
	return errors.Join(errs...)
}

// identity is what the function is recognised by (virtio 1.3, 4.1.2).
func identity(typ uint16, o Options) (pci.ID, error) {
	if o.ID != (pci.ID{}) {
		return o.ID, nil
	}
	class, ok := classes[typ]
	if !ok {
		class = classOther
	}
	if o.Interface == Modern {
		return pci.ID{
			Vendor: vendorVirtio, Device: modernDevice + typ, Class: class, Revision: modernRevision,
			SubVendor: vendorVirtio, SubDevice: modernSubID + typ,
		}, nil
	}
	device, ok := transitional[typ]
	if !ok {
		return pci.ID{}, errors.New("no legacy interface is defined for it")
	}
	return pci.ID{Vendor: vendorVirtio, Device: device, Class: class, SubVendor: vendorVirtio, SubDevice: typ}, nil
}

// buildModern adds the registers of virtio 1.x.
func (f *Function) buildModern() error {
	f.pci.Hooks.ReadConfig, f.pci.Hooks.WriteConfig = f.readWindow, f.writeWindow
	notify := binary.LittleEndian.AppendUint32(nil, notifyStride)
	windowMask := make([]byte, 18)
	for _, off := range []int{windowBAR, windowOffset, windowLength, windowData} {
		n := 4
		if off == windowBAR {
			n = 1
		}
		for i := range n {
			windowMask[off-2+i] = 0xff
		}
	}
	return errors.Join(
		f.pci.AddBAR(regsBAR, pci.BARMem64, regsSize, (*registers)(f)),
		f.pci.AddMSIX(capMSIX, msixBAR, 1+f.core.Queues()),
		f.pci.AddCapability(capCommon, pci.CapVendor, capability(VIRTIO_PCI_CAP_COMMON_CFG, offCommon, sizeCommon, nil), nil),
		f.pci.AddCapability(capISR, pci.CapVendor, capability(VIRTIO_PCI_CAP_ISR_CFG, offISR, sizeISR, nil), nil),
		f.pci.AddCapability(capDevice, pci.CapVendor, capability(VIRTIO_PCI_CAP_DEVICE_CFG, offDevice, sizeDevice, nil), nil),
		f.pci.AddCapability(capNotify, pci.CapVendor,
			capability(VIRTIO_PCI_CAP_NOTIFY_CFG, offNotify, notifyStride*uint32(f.core.Queues()), notify), nil),
		f.pci.AddCapability(capWindow, pci.CapVendor, capability(VIRTIO_PCI_CAP_PCI_CFG, 0, 0, make([]byte, 4)), windowMask),
	)
}

// capability is a struct virtio_pci_cap from cap_len on (virtio 1.3, 4.1.4).
func capability(typ byte, off, size uint32, extra []byte) []byte {
	b := []byte{byte(16 + len(extra)), typ, regsBAR, 0, 0, 0}
	b = binary.LittleEndian.AppendUint32(b, off)
	b = binary.LittleEndian.AppendUint32(b, size)
	return append(b, extra...)
}

// reset is the PCI function's power-on.
func (f *Function) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setStatus(0)
	f.resetRegisters()
}

// resetRegisters forgets what only the transport keeps.
func (f *Function) resetRegisters() {
	f.devSelect, f.drvSelect, f.queue = 0, 0, 0
	f.configVec.Store(pci.NoVector)
	for i := range f.queueVec {
		f.queueVec[i].Store(pci.NoVector)
	}
}

func (f *Function) setStatus(v uint8) {
	f.core.SetStatus(v)
	if v == 0 {
		f.wasReset()
	}
}

// wasReset lets the transport follow a reset of the device.
func (f *Function) wasReset() {
	f.resetRegisters()
	f.takeISR()
	f.syncBells()
}

// usesMSIX says whether interrupts are messages.
func (f *Function) usesMSIX() bool {
	m := f.pci.MSIX()
	return m != nil && m.Enabled()
}

// NotifyQueue implements virtio.Notifier.
func (f *Function) NotifyQueue(i int) { f.interrupt(isrQueue, &f.queueVec[i]) }

// QueueFD implements virtio.Direct. The pin has an ISR, which is ours to set; a
// vector that the driver gives a queue later on does not count.
func (f *Function) QueueFD(i int) int {
	if !f.usesMSIX() {
		return -1
	}
	return f.pci.MSIX().Direct(uint16(f.queueVec[i].Load()))
}

// NotifyConfig implements virtio.Notifier.
func (f *Function) NotifyConfig() { f.interrupt(isrConfig, &f.configVec) }

func (f *Function) interrupt(bit uint8, vec *atomic.Uint32) {
	if f.usesMSIX() {
		f.pci.MSIX().Signal(uint16(vec.Load()))
		return
	}
	f.isrMu.Lock()
	f.isr |= bit
	f.pci.SetINTx(true)
	f.isrMu.Unlock()
}

// takeISR reads the ISR, which clears it and lowers the pin.
func (f *Function) takeISR() uint8 {
	f.isrMu.Lock()
	defer f.isrMu.Unlock()
	v := f.isr
	f.isr = 0
	f.pci.SetINTx(false)
	return v
}
