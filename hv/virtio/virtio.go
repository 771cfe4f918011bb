// Package virtio is the part of a virtio 1.x device that every device and every
// transport share: feature negotiation and the status machine (Core), the split
// virtqueue (Queue), descriptor chains (Chain), and the goroutine that serves a
// queue (Worker).
//
// A transport (virtiopci) turns register accesses into calls of Core; a device
// (vioblk, vionet, …) implements Device. One goroutine owns a queue from
// Activate until Reset returns, so a queue has no lock.
//
// Everything a guest writes is copied once, checked, then used. A guest that
// breaks the specification gets DEVICE_NEEDS_RESET (virtio 1.3, 2.1.2) and its
// device stands still until it resets it.
package virtio

// Device types (virtio 1.3, 5).
const (
	VIRTIO_ID_NET     = 1
	VIRTIO_ID_BLOCK   = 2
	VIRTIO_ID_CONSOLE = 3
	VIRTIO_ID_RNG     = 4
	VIRTIO_ID_BALLOON = 5
	VIRTIO_ID_SCSI    = 8
	VIRTIO_ID_VSOCK   = 19
)

// Bits of device_status (virtio 1.3, 2.1).
const (
	VIRTIO_CONFIG_S_ACKNOWLEDGE = 1
	VIRTIO_CONFIG_S_DRIVER      = 2
	VIRTIO_CONFIG_S_DRIVER_OK   = 4
	VIRTIO_CONFIG_S_FEATURES_OK = 8
	VIRTIO_CONFIG_S_NEEDS_RESET = 64
	VIRTIO_CONFIG_S_FAILED      = 128
)

// Feature bits that belong to no device type (virtio 1.3, 6), as masks.
const (
	VIRTIO_RING_F_INDIRECT_DESC uint64 = 1 << 28
	VIRTIO_RING_F_EVENT_IDX     uint64 = 1 << 29
	VIRTIO_F_VERSION_1          uint64 = 1 << 32
	VIRTIO_F_ACCESS_PLATFORM    uint64 = 1 << 33
)

// ringFeatures is what Core offers beside the device's own features.
const ringFeatures = VIRTIO_RING_F_INDIRECT_DESC | VIRTIO_RING_F_EVENT_IDX | VIRTIO_F_VERSION_1

// Device is one virtio device, whatever the transport. The transport calls its
// methods one at a time.
type Device interface {
	// Type is the virtio device id.
	Type() uint16
	// Features are the feature bits of the device's own that it offers.
	Features() uint64
	// QueueSizes gives each queue's largest size, a power of two.
	QueueSizes() []uint16
	// ReadConfig fills p from the device's configuration at off. What lies
	// beyond the end reads as zero.
	ReadConfig(off uint64, p []byte)
	// WriteConfig takes a guest's write to the device's configuration.
	WriteConfig(off uint64, p []byte)
	// Activate starts the device with the features that were negotiated. qs has
	// one entry per queue; a queue that the driver has not enabled is nil. The
	// device owns the queues and may use t until Reset returns.
	Activate(features uint64, qs []*Queue, t Transport) error
	// Reset stops the device. When it returns no I/O is in flight, and neither
	// queues, guest memory nor the Transport are used any more. Without a
	// preceding Activate it does nothing.
	Reset()
	// Pause returns when no I/O is in flight and none will start before Resume.
	// Both do nothing while the device is not active.
	Pause()
	Resume()
}

// Transport is what an active device may ask of its transport. Its methods may
// be called from any goroutine, and do not block.
type Transport interface {
	// ConfigChanged tells the driver that the device's configuration differs
	// from what it last read.
	ConfigChanged()
	// Fail says that the guest broke the specification: the device needs a
	// reset and its queues stand still until then.
	Fail(err error)
}

// Notifier sends a transport's interrupts. Its methods may be called from any
// goroutine, do not block and do not allocate.
type Notifier interface {
	// NotifyQueue says that queue i has used buffers.
	NotifyQueue(i int)
	// NotifyConfig says that configuration or status changed.
	NotifyConfig()
}
