package virtiopci

import "vmd/hv/virtio"

// Ids of a modern device (virtio 1.3, 4.1.2).
const (
	vendorVirtio   = 0x1af4
	modernDevice   = 0x1040 // + device type
	modernSubID    = 0x40   // + device type: any value from 0x40 up will do
	modernRevision = 1
)

// transitional are the device ids of types that have a legacy interface
// (virtio 1.3, 4.1.2.1). Such a function has revision 0, and the type as its
// subsystem id.
var transitional = map[uint16]uint16{
	virtio.VIRTIO_ID_NET:     0x1000,
	virtio.VIRTIO_ID_BLOCK:   0x1001,
	virtio.VIRTIO_ID_BALLOON: 0x1002,
	virtio.VIRTIO_ID_CONSOLE: 0x1003,
	virtio.VIRTIO_ID_SCSI:    0x1004,
	virtio.VIRTIO_ID_RNG:     0x1005,
}

// classes are the PCI class codes of device types. Drivers go by vendor and
// device id; the class is for people and firmware.
var classes = map[uint16]uint32{
	virtio.VIRTIO_ID_NET:     0x020000,
	virtio.VIRTIO_ID_BLOCK:   0x010000,
	virtio.VIRTIO_ID_CONSOLE: 0x078000,
	virtio.VIRTIO_ID_SCSI:    0x010000,
	virtio.VIRTIO_ID_VSOCK:   0x028000,
}

// classOther is "unclassified, other".
const classOther = 0x00ff00

// Types of a vendor capability (virtio 1.3, 4.1.4).
const (
	VIRTIO_PCI_CAP_COMMON_CFG = 1
	VIRTIO_PCI_CAP_NOTIFY_CFG = 2
	VIRTIO_PCI_CAP_ISR_CFG    = 3
	VIRTIO_PCI_CAP_DEVICE_CFG = 4
	VIRTIO_PCI_CAP_PCI_CFG    = 5
)

// The register BAR, which is part of the machine version:
//
//	0x0000  common configuration
//	0x1000  ISR
//	0x2000  device configuration
//	0x3000  doorbells, 4 bytes apart
const (
	msixBAR = 1
	regsBAR = 4

	regsSize     = 0x4000
	offCommon    = 0x0000
	offISR       = 0x1000
	offDevice    = 0x2000
	offNotify    = 0x3000
	sizeCommon   = 0x40
	sizeISR      = 4
	sizeDevice   = 0x100
	notifyStride = 4
	notifyWidth  = 2 // bytes that a driver writes
)

// The legacy BAR, in I/O space. The largest configuration of a device type
// that has one is that of a disk, 60 bytes.
const (
	legacyBAR  = 0
	legacySize = 0x80
)

// Where the capabilities are. MSI-X is first in the list: OpenBSD's driver
// takes everything behind the first vendor capability for one too.
const (
	capCommon = 0x40
	capISR    = 0x50
	capDevice = 0x60
	capNotify = 0x70
	capWindow = 0x84
	capMSIX   = 0x98
)

// Fields of the PCI_CFG capability, relative to it (virtio 1.3, 4.1.4.9).
const (
	windowBAR    = 4
	windowOffset = 8
	windowLength = 12
	windowData   = 16
)

// Common configuration (virtio 1.3, 4.1.4.3).
const (
	devFeatureSelect = 0
	devFeature       = 4
	drvFeatureSelect = 8
	drvFeature       = 12
	configVector     = 16
	numQueues        = 18
	deviceStatus     = 20
	configGeneration = 21
	queueSelect      = 22
	queueSize        = 24
	queueVector      = 26
	queueEnable      = 28
	queueNotifyOff   = 30
	queueDesc        = 32
	queueDriver      = 40
	queueDevice      = 48
	queueAddrEnd     = 56
)

// Legacy registers (virtio 1.3, 4.1.4.10). The two vectors are there only
// while MSI-X is on; the device's configuration follows what is there.
const (
	legacyDevFeature   = 0
	legacyDrvFeature   = 4
	legacyQueuePage    = 8
	legacyQueueSize    = 12
	legacyQueueSelect  = 14
	legacyQueueNotify  = 16
	legacyStatus       = 18
	legacyISR          = 19
	legacyConfigVector = 20
	legacyQueueVector  = 22
	legacyDevice       = 20
	legacyDeviceMSIX   = 24
)

// Bits of the ISR (virtio 1.3, 4.1.4.5).
const (
	isrQueue  = 1
	isrConfig = 2
)
