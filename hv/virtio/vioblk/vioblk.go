// Package vioblk is the virtio block device (virtio 1.3, 5.2) on a disk.Image.
//
// Each queue has a goroutine of its own. It carries requests out straight from
// and into guest memory, one after the other as long as the host has what they
// want in its cache, and with the help of others when storage is slow. A slow
// disk delays its own guest's requests and nothing else.
package vioblk

import (
	"fmt"
	"time"

	"vmd/hv/disk"
	"vmd/hv/virtio"
)

// maxQueues bounds Config.Queues.
const maxQueues = 16

// Counters are what a disk counts, for ever. They may lie in memory that is
// shared with others: fields are written with sync/atomic only.
type Counters struct {
	ReadOps, WriteOps, FlushOps uint64 // requests completed, also those that failed
	ReadBytes, WriteBytes       uint64 // bytes of those that did not fail
	ReadNS, WriteNS             uint64 // summed time from receipt to completion
	Errors                      uint64 // requests answered with VIRTIO_BLK_S_IOERR
}

// Config is what New needs beside the image. The zero value will do.
type Config struct {
	// Serial is the disk's id, of which the guest sees the first 20 bytes.
	Serial string
	// ReadOnly disks refuse every change.
	ReadOnly bool
	// Queues is how many the driver may use; 0 means 1.
	Queues int
	// Counters is where to count; nil means nowhere.
	Counters *Counters
}

// Device is a block device. It implements virtio.Device.
type Device struct {
	image    disk.Image
	readOnly bool
	queues   int
	serial   [idSize]byte
	config   configSpace
	counters *Counters
	epoch    time.Time

	workers []*virtio.Worker // while active
	servers []*server
}

// New makes a block device of img, which stays the caller's: close it after the
// device's last Reset.
func New(img disk.Image, c Config) (*Device, error) {
	if c.Queues == 0 {
		c.Queues = 1
	}
	if c.Queues < 1 || c.Queues > maxQueues {
		return nil, fmt.Errorf("disk with %d queues: want 1 to %d", c.Queues, maxQueues)
	}
	if c.Counters == nil {
		c.Counters = new(Counters)
	}
	d := &Device{image: img, readOnly: c.ReadOnly, queues: c.Queues, counters: c.Counters, epoch: time.Now()}
	copy(d.serial[:], c.Serial)
	d.config.set(d.sectors(), c.Queues)
	return d, nil
}

func (d *Device) sectors() uint64 { return uint64(d.image.Size()) / sectorSize }

// now is a clock for durations; reading it does not allocate.
func (d *Device) now() time.Duration { return time.Since(d.epoch) }

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.VIRTIO_ID_BLOCK }

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	f := VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY
	if d.readOnly {
		f |= VIRTIO_BLK_F_RO
	} else {
		f |= VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES
	}
	if d.queues > 1 {
		f |= VIRTIO_BLK_F_MQ
	}
	return f
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	s := make([]uint16, d.queues)
	for i := range s {
		s[i] = queueSize
	}
	return s
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < uint64(len(d.config)) {
		copy(p, d.config[off:])
	}
}

// WriteConfig implements virtio.Device. Nothing in it is the driver's to write.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, qs []*virtio.Queue, _ virtio.Transport) error {
	for _, q := range qs {
		if q != nil {
			s := newServer(d, q, features)
			d.servers = append(d.servers, s)
			d.workers = append(d.workers, q.Start(s.serve, nil))
		}
	}
	return nil
}

// Reset implements virtio.Device. It waits for requests that are on their way.
func (d *Device) Reset() {
	for k, w := range d.workers {
		w.Stop()
		d.servers[k].crew.end()
	}
	d.workers, d.servers = nil, nil
}

// Pause implements virtio.Device.
func (d *Device) Pause() {
	for k, w := range d.workers {
		w.Pause()
		d.servers[k].crew.settle() // it is settled, unless the queue is broken
	}
}

// Resume implements virtio.Device.
func (d *Device) Resume() {
	for _, w := range d.workers {
		w.Resume()
	}
}
