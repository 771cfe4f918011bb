// Package vioscsi is a virtio SCSI host adapter (virtio 1.3, 5.6) with a CD-ROM
// drive on it, as target 0, unit 0. The medium is a disk.Image that is only read.
//
// The request queue has a goroutine that carries commands out one after the
// other, and so has the control queue. There are no events.
package vioscsi

import (
	"vmd/hv/disk"
	"vmd/hv/virtio"
)

// Device is the adapter with its drive. It implements virtio.Device.
type Device struct {
	image  disk.Image
	config configSpace
	drive  drive // of the request queue's goroutine while there is one

	workers []*virtio.Worker // while active
}

// New makes an adapter whose drive holds img, which stays the caller's: close
// it after the device's last Reset. An odd end of less than a block of 2048
// bytes cannot be read.
//
// A guest may eject the medium; a reset of the device puts it back.
func New(img disk.Image) *Device {
	d := &Device{image: img}
	d.config.set()
	d.drive = d.fresh()
	return d
}

// fresh is a drive as it is after power-on.
func (d *Device) fresh() drive { return drive{blocks: d.blocks(), loaded: true} }

func (d *Device) blocks() uint64 { return uint64(d.image.Size()) / blockSize }

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.VIRTIO_ID_SCSI }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	return []uint16{controlQueue: controlQueueSize, eventQueue: controlQueueSize, requestQueue: requestQueueSize}
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < uint64(len(d.config)) {
		copy(p, d.config[off:])
	}
}

// WriteConfig implements virtio.Device. The sizes of CDB and sense stay what
// they are: drivers write nothing else there.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(_ uint64, qs []*virtio.Queue, _ virtio.Transport) error {
	if q := qs[controlQueue]; q != nil {
		c := &control{q: q}
		d.workers = append(d.workers, q.Start(c.serve, nil))
	}
	if q := qs[requestQueue]; q != nil {
		s := &server{image: d.image, q: q, drive: &d.drive}
		d.workers = append(d.workers, q.Start(s.serve, nil))
	}
	return nil
}

// Reset implements virtio.Device. It waits for a command that is on its way.
func (d *Device) Reset() {
	for _, w := range d.workers {
		w.Stop()
	}
	d.workers = nil
	d.drive = d.fresh()
}

// Pause implements virtio.Device.
func (d *Device) Pause() {
	for _, w := range d.workers {
		w.Pause()
	}
}

// Resume implements virtio.Device.
func (d *Device) Resume() {
	for _, w := range d.workers {
		w.Resume()
	}
}
