// Package virtiopci is virtio over PCI, modern interface only (virtio 1.3,
// 4.1): registers in one 64-bit BAR, doorbells as ioeventfds, MSI-X, and the
// pin with its ISR for guests without it.
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
	// Warn is told why the guest lost the device, at most once between two
	// resets of it, and of doorbells that the machine refused. A guest can
	// reset as often as it likes. Warn is called from any goroutine and must
	// not block.
	Warn func(error)
}

// Function is a virtio device in a PCI slot.
type Function struct {
	pci  *pci.Function
	host pci.Host
	dev  virtio.Device
	core *virtio.Core
	warn func(error)

	// Read by the device's goroutines for each interrupt.
	configVec atomic.Uint32
	queueVec  []atomic.Uint32

	isrMu sync.Mutex // a leaf: the device's goroutines take it
	isr   uint8

	mu        sync.Mutex // guards all below, and core
	devSelect uint32
	drvSelect uint32
	queue     uint16 // queue_select
	decoded   bool   // the register BAR answers at base
	base      uint64
	bells     []bool // doorbells registered with the machine
}

// New makes the function of dev for the machine h, whose memory is m. Put PCI()
// into a slot of the bus; call Close in the end.
func New(h pci.Host, m *mem.Memory, dev virtio.Device, o Options) (*Function, error) {
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	f := &Function{host: h, dev: dev, warn: o.Warn}
	var err error
	if f.core, err = virtio.NewCore(dev, m, f, o.Warn); err != nil {
		return nil, err
	}
	f.queueVec = make([]atomic.Uint32, f.core.Queues())
	f.bells = make([]bool, f.core.Queues())
	f.resetRegisters()
	if err := f.build(o.ID); err != nil {
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
func (f *Function) build(id pci.ID) error {
	typ := f.dev.Type()
	if id == (pci.ID{}) {
		class, ok := classes[typ]
		if !ok {
			class = classOther
		}
		id = pci.ID{
			Vendor: vendorVirtio, Device: modernDevice + typ, Class: class, Revision: modernRevision,
			SubVendor: vendorVirtio, SubDevice: modernSubID + typ,
		}
	}
	f.pci = pci.NewFunction(f.host, id)
	f.pci.UseINTx()
	f.pci.Hooks = pci.Hooks{Reset: f.reset, Decode: f.decode, ReadConfig: f.readWindow, WriteConfig: f.writeWindow}

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

// decode follows the register BAR.
func (f *Function) decode(n int, addr uint64, on bool) {
	if n != regsBAR {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !on {
		f.decoded = false
		f.syncBells() // at the address they were added with
		return
	}
	f.base, f.decoded = addr, true
	f.syncBells()
}

// syncBells registers the doorbells of enabled queues with the machine while
// the BAR is decoded, and takes back all others. Where the machine refuses one,
// the guest's write reaches the registers instead, which is slower and no
// different.
func (f *Function) syncBells() {
	for i := range f.bells {
		want := f.decoded && f.core.Queue(i).Enabled
		if want == f.bells[i] {
			continue
		}
		d := pci.Doorbell{
			Addr: f.base + offNotify + notifyStride*uint64(i),
			Size: notifyWidth,
			FD:   f.core.Doorbell(i).FD(),
		}
		var err error
		if want {
			err = f.host.AddDoorbell(d)
		} else {
			err = f.host.RemoveDoorbell(d)
		}
		if err != nil {
			f.warn(fmt.Errorf("doorbell of queue %d: %w", i, err))
		}
		f.bells[i] = want && err == nil
	}
}

func (f *Function) setStatus(v uint8) {
	f.core.SetStatus(v)
	if v == 0 {
		f.resetRegisters()
		f.takeISR()
		f.syncBells()
	}
}

// NotifyQueue implements virtio.Notifier.
func (f *Function) NotifyQueue(i int) { f.interrupt(isrQueue, &f.queueVec[i]) }

// NotifyConfig implements virtio.Notifier.
func (f *Function) NotifyConfig() { f.interrupt(isrConfig, &f.configVec) }

func (f *Function) interrupt(bit uint8, vec *atomic.Uint32) {
	if m := f.pci.MSIX(); m.Enabled() {
		m.Signal(uint16(vec.Load()))
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
