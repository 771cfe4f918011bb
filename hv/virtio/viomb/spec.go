package viomb

// Feature bits (virtio 1.3, 5.5.3).
const (
	VIRTIO_BALLOON_F_STATS_VQ       = 1 << 1
	VIRTIO_BALLOON_F_DEFLATE_ON_OOM = 1 << 2
	VIRTIO_BALLOON_F_REPORTING      = 1 << 5
)

// Tags of statistics (virtio 1.3, 5.5.6.3). There are others, and will be more.
const (
	VIRTIO_BALLOON_S_MEMFREE = 4
	VIRTIO_BALLOON_S_MEMTOT  = 5
	VIRTIO_BALLOON_S_AVAIL   = 6
	statSize                 = 10 // u16 tag, u64 value, packed
	maxStats                 = 64 // of one buffer that are looked at
)

// Queues. Where the others are depends on what was negotiated: the statistics
// queue is number 2 if it is there. The reporting queue is 4 by the
// specification (virtio 1.3, 5.5.2); Linux leaves no gaps and has it at 3, or
// at 2 without statistics. So it is whatever else the driver enables.
const (
	queueInflate = 0
	queueDeflate = 1
	queueStats   = 2
	queueCount   = 5
	queueSize    = 128
)

// The configuration (virtio 1.3, 5.5.4), as far as the features need it.
const (
	offTarget  = 0 // num_pages, u32
	offActual  = 4 // u32, the driver's to write
	configSize = 16
)

// pageSize is the unit of the balloon, whatever the guest's pages are.
const (
	pageShift = 12
	pageSize  = 1 << pageShift
)
