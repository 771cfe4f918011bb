package sandbox

// vhostRequests are the request numbers of vhost that hv/virtio/vionet makes
// (linux/vhost.h). The kernel checks what comes with them against the memory
// of this process, and reaches no other.
var vhostRequests = []uint32{
	0xaf01,     // VHOST_SET_OWNER
	0x8008af00, // VHOST_GET_FEATURES
	0x4008af00, // VHOST_SET_FEATURES
	0x4008af03, // VHOST_SET_MEM_TABLE
	0x4008af10, // VHOST_SET_VRING_NUM
	0x4028af11, // VHOST_SET_VRING_ADDR
	0x4008af12, // VHOST_SET_VRING_BASE
	0xc008af12, // VHOST_GET_VRING_BASE, where a queue is taken back
	0x4008af20, // VHOST_SET_VRING_KICK
	0x4008af21, // VHOST_SET_VRING_CALL
	0x4008af22, // VHOST_SET_VRING_ERR
	0x4008af30, // VHOST_NET_SET_BACKEND
}
