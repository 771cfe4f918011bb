package vmmci

import "vmd/hv/pci"

// ID is what OpenBSD's driver looks for: vendor OpenBSD, class communications.
// There is no virtio device type for it.
var ID = pci.ID{Vendor: 0x0b5d, Device: 0x0777, Class: 0x078000, SubVendor: 0x0b5d, SubDevice: deviceType}

const deviceType = 0xffff

// Feature bits (OpenBSD sys/dev/pv/vmmci.c).
const (
	VMMCI_F_TIMESYNC = 1 << 0 // the configuration shows the time
	VMMCI_F_ACK      = 1 << 1 // the driver writes back what it has read
	VMMCI_F_SYNCRTC  = 1 << 2 // the driver can be told to read the RTC
)

// Command is what the host wants of the guest, or the guest announces.
type Command uint32

// Commands (OpenBSD sys/dev/pv/vmmci.c).
const (
	None Command = iota
	Shutdown
	Reboot
	SyncRTC
)

// The configuration. The time is taken when the low half of the seconds is
// read.
//
//	0   command        u32
//	4   seconds        u64, since 1970
//	12  microseconds   u64
const (
	offCommand = 0
	offSeconds = 4
	offMicros  = 12
	configSize = 20
)
