package vionet

import "encoding/binary"

// Requests of vhost (linux/vhost.h).
const (
	VHOST_GET_FEATURES    = 0x8008af00
	VHOST_SET_FEATURES    = 0x4008af00
	VHOST_SET_OWNER       = 0xaf01
	VHOST_SET_MEM_TABLE   = 0x4008af03
	VHOST_SET_VRING_NUM   = 0x4008af10
	VHOST_SET_VRING_ADDR  = 0x4028af11
	VHOST_SET_VRING_BASE  = 0x4008af12
	VHOST_GET_VRING_BASE  = 0xc008af12
	VHOST_SET_VRING_KICK  = 0x4008af20
	VHOST_SET_VRING_CALL  = 0x4008af21
	VHOST_SET_VRING_ERR   = 0x4008af22
	VHOST_NET_SET_BACKEND = 0x4008af30
)

// vhostState is struct vhost_vring_state and, with a descriptor as its value,
// struct vhost_vring_file.
func vhostState(ring int, value uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(ring))
	return binary.LittleEndian.AppendUint32(b, value)
}

// vhostAddr is struct vhost_vring_addr: a ring in this process's memory, with
// nothing logged.
func vhostAddr(ring int, desc, used, avail uint64) []byte {
	b := vhostState(ring, 0) // index, flags
	for _, v := range []uint64{desc, used, avail, 0} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// vhostRegion is where a piece of guest memory is in this process.
type vhostRegion struct{ gpa, size, host uint64 }

// vhostMemory is struct vhost_memory.
func vhostMemory(regions []vhostRegion) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(regions))) // nregions, padding
	for _, r := range regions {
		for _, v := range []uint64{r.gpa, r.size, r.host, 0} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	return b
}
