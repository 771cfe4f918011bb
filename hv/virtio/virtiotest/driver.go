package virtiotest

import (
	"encoding/binary"

	"vmd/hv/mem"
	"vmd/hv/virtio"
)

// Offsets in common configuration (virtio 1.3, 4.1.4.3).
const (
	DeviceFeatureSelect = 0
	DeviceFeature       = 4
	DriverFeatureSelect = 8
	DriverFeature       = 12
	ConfigVector        = 16
	NumQueues           = 18
	DeviceStatus        = 20
	ConfigGeneration    = 21
	QueueSelect         = 22
	QueueSize           = 24
	QueueVector         = 26
	QueueEnable         = 28
	QueueNotifyOff      = 30
	QueueDesc           = 32
	QueueDriver         = 40
	QueueDevice         = 48
)

// Modern is what every driver accepts.
const Modern = virtio.VIRTIO_F_VERSION_1

// Driver drives the device in one slot.
type Driver struct {
	Host *Host
	Slot int
	// Features are what Init negotiated.
	Features uint64
	// INTx uses the pin instead of MSI-X; set it before Init.
	INTx bool
	// Legacy is set for a driver of the legacy interface, at port IO.
	Legacy bool
	IO     uint64

	// Addresses of the four structures, found in the capabilities.
	Common, ISR, Device, Notify uint64
	notifyStride                uint64
	msixTable                   uint64
	msis                        []*MSI
	line                        *Line
}

// NewDriver finds the device in slot by its capabilities.
func NewDriver(h *Host, slot int) *Driver {
	h.t.Helper()
	d := &Driver{Host: h, Slot: slot}
	for ptr := d.Config(0x34, 1); ptr != 0; ptr = d.Config(int(ptr)+1, 1) {
		d.capability(int(ptr))
	}
	if d.Common == 0 || d.ISR == 0 || d.Device == 0 || d.Notify == 0 || d.msixTable == 0 {
		h.t.Fatalf("slot %d: not all capabilities found: %+v", slot, d)
	}
	line := d.Config(0x3c, 1)
	d.line = h.Line(uint32(line)).(*Line)
	return d
}

// capability takes note of the capability at a register. The vectors of MSI-X are
// the interrupts that the machine made last.
func (d *Driver) capability(at int) {
	if d.Config(at, 1) == 0x11 {
		table := d.Config(at+4, 4)
		d.msixTable = d.bar(int(table&7)) + uint64(table&^7)
		n := int(d.Config(at+2, 2)&0x7ff) + 1
		d.msis = d.Host.msis[len(d.Host.msis)-n:]
		return
	}
	addr := d.bar(int(d.Config(at+4, 1))) + uint64(d.Config(at+8, 4))
	switch d.Config(at+3, 1) {
	case 1:
		d.Common = addr
	case 2:
		d.Notify, d.notifyStride = addr, uint64(d.Config(at+16, 4))
	case 3:
		d.ISR = addr
	case 4:
		d.Device = addr
	}
}

func (d *Driver) bar(n int) uint64 {
	lo := uint64(d.Config(0x10+4*n, 4))
	if lo&4 != 0 {
		lo |= uint64(d.Config(0x14+4*n, 4)) << 32
	}
	return lo &^ 0xf
}

// Config reads size bytes of configuration space.
func (d *Driver) Config(reg, size int) uint32 {
	var b [4]byte
	d.latch(reg)
	d.Host.ports.Read(0xcfc+uint64(reg&3), b[:size])
	return binary.LittleEndian.Uint32(b[:])
}

// SetConfig writes size bytes of configuration space.
func (d *Driver) SetConfig(reg, size int, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	d.latch(reg)
	d.Host.ports.Write(0xcfc+uint64(reg&3), b[:size])
}

func (d *Driver) latch(reg int) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], 1<<31|uint32(d.Slot)<<11|uint32(reg&0xfc))
	d.Host.ports.Write(0xcf8, b[:])
}

// Read reads size bytes of memory-mapped registers.
func (d *Driver) Read(addr uint64, size int) uint64 {
	var b [8]byte
	d.Host.mmio.Read(addr, b[:size])
	return binary.LittleEndian.Uint64(b[:])
}

// Write writes size bytes of memory-mapped registers.
func (d *Driver) Write(addr uint64, size int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	d.Host.Poke(addr, b[:size])
}

// Status reads device_status.
func (d *Driver) Status() uint8 {
	if d.Legacy {
		return uint8(d.In(LegacyStatus, 1))
	}
	return uint8(d.Read(d.Common+DeviceStatus, 1))
}

// SetStatus writes device_status.
func (d *Driver) SetStatus(v uint8) {
	if d.Legacy {
		d.Out(LegacyStatus, 1, uint32(v))
		return
	}
	d.Write(d.Common+DeviceStatus, 1, uint64(v))
}

// Offered reads the feature bits that the device offers.
func (d *Driver) Offered() uint64 {
	if d.Legacy {
		return uint64(d.In(LegacyDeviceFeature, 4))
	}
	d.Write(d.Common+DeviceFeatureSelect, 4, 0)
	lo := d.Read(d.Common+DeviceFeature, 4)
	d.Write(d.Common+DeviceFeatureSelect, 4, 1)
	return d.Read(d.Common+DeviceFeature, 4)<<32 | lo
}

// Init resets the device and negotiates features, to which it adds VERSION_1
// unless the driver is a legacy one.
func (d *Driver) Init(features uint64) {
	t := d.Host.t
	t.Helper()
	if d.Legacy {
		d.initLegacy(features)
		return
	}
	d.Features = features | Modern
	d.SetStatus(0)
	if s := d.Status(); s != 0 {
		t.Fatalf("status after a reset: %#x", s)
	}
	d.SetStatus(virtio.VIRTIO_CONFIG_S_ACKNOWLEDGE)
	d.SetStatus(virtio.VIRTIO_CONFIG_S_ACKNOWLEDGE | virtio.VIRTIO_CONFIG_S_DRIVER)
	d.SetFeatures(d.Features)
	const ok = virtio.VIRTIO_CONFIG_S_ACKNOWLEDGE | virtio.VIRTIO_CONFIG_S_DRIVER | virtio.VIRTIO_CONFIG_S_FEATURES_OK
	d.SetStatus(ok)
	if s := d.Status(); s != ok {
		t.Fatalf("status %#x after features %#x of %#x", s, d.Features, d.Offered())
	}
	if !d.INTx {
		d.enableMSIX()
	}
}

// SetFeatures writes the driver's feature bits.
func (d *Driver) SetFeatures(v uint64) {
	d.Write(d.Common+DriverFeatureSelect, 4, 0)
	d.Write(d.Common+DriverFeature, 4, v&0xffffffff)
	d.Write(d.Common+DriverFeatureSelect, 4, 1)
	d.Write(d.Common+DriverFeature, 4, v>>32)
}

// enableMSIX gives each vector a message of its own and unmasks it.
func (d *Driver) enableMSIX() {
	for i := range d.msis {
		e := d.msixTable + 16*uint64(i)
		d.Write(e, 4, 0xfee00000)
		d.Write(e+4, 4, 0)
		d.Write(e+8, 4, uint64(0x40+i))
		d.Write(e+12, 4, 0)
	}
	at := d.find(0x11)
	d.SetConfig(at+2, 2, 1<<15)
	if d.Legacy {
		d.Out(LegacyConfigVector, 2, 0)
		return
	}
	d.Write(d.Common+ConfigVector, 2, 0)
}

// MSIXTable is where the vector table is.
func (d *Driver) MSIXTable() uint64 { return d.msixTable }

// MSI is the interrupt behind vector i.
func (d *Driver) MSI(i int) *MSI { return d.msis[i] }

// Line is the interrupt line of the device's pin.
func (d *Driver) Line() *Line { return d.line }

// find returns where the capability with id is.
func (d *Driver) find(id uint32) int {
	ptr := d.Config(0x34, 1)
	for ptr != 0 && d.Config(int(ptr), 1) != id {
		ptr = d.Config(int(ptr)+1, 1)
	}
	return int(ptr)
}

// Start sets DRIVER_OK.
func (d *Driver) Start() { d.SetStatus(d.Status() | virtio.VIRTIO_CONFIG_S_DRIVER_OK) }

// Queue sets queue i up with size descriptors and enables it. A legacy driver
// has no say in the size.
func (d *Driver) Queue(i int, size uint16) *Queue {
	d.Host.t.Helper()
	if d.Legacy {
		return d.legacyQueue(i)
	}
	h := d.Host
	q := &Queue{
		d: d, index: i, size: size,
		Desc:  h.Alloc(16 * int(size)),
		Avail: h.Alloc(6 + 2*int(size)),
		Used:  h.Alloc(6 + 8*int(size)),
		bell:  d.Notify + d.notifyStride*uint64(i),
		irq:   &d.line.event,
	}
	q.view()
	d.Write(d.Common+QueueSelect, 2, uint64(i))
	d.Write(d.Common+QueueSize, 2, uint64(size))
	for reg, gpa := range map[uint64]mem.GPA{QueueDesc: q.Desc, QueueDriver: q.Avail, QueueDevice: q.Used} {
		d.Write(d.Common+reg, 4, uint64(gpa)&0xffffffff)
		d.Write(d.Common+reg+4, 4, uint64(gpa)>>32)
	}
	if !d.INTx {
		d.Write(d.Common+QueueVector, 2, uint64(1+i))
		q.irq = &d.msis[1+i].event
	}
	d.Write(d.Common+QueueEnable, 2, 1)
	if d.Read(d.Common+QueueEnable, 2) != 1 {
		h.t.Fatalf("queue %d did not come up, status %#x", i, d.Status())
	}
	return q
}

// TakeISR reads the ISR, which lowers the line.
func (d *Driver) TakeISR() uint8 {
	if d.Legacy {
		return uint8(d.In(LegacyISR, 1))
	}
	return uint8(d.Read(d.ISR, 1))
}

// WaitConfig waits for a configuration interrupt.
func (d *Driver) WaitConfig() {
	if d.INTx {
		d.line.wait("configuration interrupt")
		return
	}
	d.msis[0].wait("configuration interrupt")
}
