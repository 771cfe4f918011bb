// Package viornd is the virtio entropy device (virtio 1.3, 5.4): the host
// kernel's random numbers, written into the guest's buffers.
package viornd

import (
	"golang.org/x/sys/unix"

	"vmd/hv/virtio"
)

const (
	queueSize = 64
	// maxRequest bounds what one buffer is given, and so how long the host
	// kernel works for it. A driver takes a short answer and asks again.
	maxRequest = 64 << 10
	// chunk is what one getrandom(2) is asked for.
	chunk = 4 << 10
)

// Device is an entropy device. It implements virtio.Device.
type Device struct {
	worker *virtio.Worker // while active
	q      *virtio.Queue  // owned by worker
	chain  virtio.Chain   // owned by worker
}

// New makes an entropy device.
func New() *Device { return &Device{} }

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.VIRTIO_ID_RNG }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize} }

// ReadConfig implements virtio.Device. There is no configuration.
func (d *Device) ReadConfig(_ uint64, p []byte) { clear(p) }

// WriteConfig implements virtio.Device.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(_ uint64, qs []*virtio.Queue, _ virtio.Transport) error {
	if d.q = qs[0]; d.q != nil {
		d.worker = d.q.Start(d.serve, nil)
	}
	return nil
}

// Reset implements virtio.Device.
func (d *Device) Reset() {
	d.worker.Stop()
	d.worker = nil
}

// Pause implements virtio.Device.
func (d *Device) Pause() { d.worker.Pause() }

// Resume implements virtio.Device.
func (d *Device) Resume() { d.worker.Resume() }

func (d *Device) serve() {
	for d.q.Next(&d.chain) {
		n, err := fill(d.chain.Writable)
		if err != nil {
			d.q.Fail(err)
			return
		}
		d.q.Done(&d.chain, n)
	}
}

// fill writes random bytes into bufs and returns how many, at most maxRequest.
func fill(bufs [][]byte) (uint32, error) {
	var n int
	for _, b := range bufs {
		b = b[:min(len(b), maxRequest-n)]
		for len(b) > 0 {
			k, err := unix.Getrandom(b[:min(len(b), chunk)], 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return uint32(n), err
			}
			b = b[k:]
			n += k
		}
	}
	return uint32(n), nil
}
