package virtiotest

import (
	"encoding/binary"

	"vmd/hv/mem"
	"vmd/hv/virtio"
)

// Legacy registers, relative to Driver.IO (virtio 1.3, 4.1.4.10).
const (
	LegacyDeviceFeature = 0
	LegacyDriverFeature = 4
	LegacyQueuePage     = 8
	LegacyQueueSize     = 12
	LegacyQueueSelect   = 14
	LegacyQueueNotify   = 16
	LegacyStatus        = 18
	LegacyISR           = 19
	LegacyConfigVector  = 20
	LegacyQueueVector   = 22
)

// NewLegacy is NewDriver for a driver that knows only the legacy interface.
func NewLegacy(h *Host, slot int) *Driver {
	h.t.Helper()
	d := &Driver{Host: h, Slot: slot, Legacy: true}
	for ptr := d.Config(0x34, 1); ptr != 0; ptr = d.Config(int(ptr)+1, 1) {
		d.capability(int(ptr))
	}
	bar := d.Config(0x10, 4)
	if bar&1 == 0 || bar == 1 {
		h.t.Fatalf("slot %d: BAR 0 is %#x, not of ports", slot, bar)
	}
	d.IO = uint64(bar &^ 3)
	d.INTx = d.msixTable == 0
	d.line = h.Line(d.Config(0x3c, 1)).(*Line)
	return d
}

// In reads size bytes of the legacy registers at off.
func (d *Driver) In(off uint64, size int) uint32 {
	var b [4]byte
	d.Host.ports.Read(d.IO+off, b[:size])
	return binary.LittleEndian.Uint32(b[:])
}

// Out writes size bytes of the legacy registers at off.
func (d *Driver) Out(off uint64, size int, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	d.Host.PokePort(d.IO+off, b[:size])
}

// ConfigBase is where a legacy device's configuration begins.
func (d *Driver) ConfigBase() uint64 {
	if d.INTx {
		return 20
	}
	return 24
}

func (d *Driver) initLegacy(features uint64) {
	d.Features = features
	d.SetStatus(0)
	if s := d.Status(); s != 0 {
		d.Host.t.Fatalf("status after a reset: %#x", s)
	}
	d.SetStatus(virtio.VIRTIO_CONFIG_S_ACKNOWLEDGE)
	d.SetStatus(virtio.VIRTIO_CONFIG_S_ACKNOWLEDGE | virtio.VIRTIO_CONFIG_S_DRIVER)
	d.Out(LegacyDriverFeature, 4, uint32(features))
	if !d.INTx {
		d.enableMSIX()
	}
}

// legacyQueue sets queue i up with as many descriptors as the device says.
func (d *Driver) legacyQueue(i int) *Queue {
	h := d.Host
	h.t.Helper()
	d.Out(LegacyQueueSelect, 2, uint32(i))
	n := int(d.In(LegacyQueueSize, 2))
	if n == 0 {
		h.t.Fatalf("there is no queue %d", i)
	}
	used := (16*n + 6 + 2*n + 4095) &^ 4095
	at := h.Alloc(used + 6 + 8*n)
	q := &Queue{
		d: d, index: i, size: uint16(n),
		Desc: at, Avail: at + mem.GPA(16*n), Used: at + mem.GPA(used),
		bell: d.IO + LegacyQueueNotify,
		irq:  &d.line.event,
	}
	q.view()
	d.Out(LegacyQueuePage, 4, uint32(at/4096))
	if got := d.In(LegacyQueuePage, 4); got != uint32(at/4096) {
		h.t.Fatalf("queue %d did not come up at page %#x: %#x, status %#x", i, at/4096, got, d.Status())
	}
	if !d.INTx {
		d.Out(LegacyQueueVector, 2, uint32(1+i))
		q.irq = &d.msis[1+i].event
	}
	return q
}
