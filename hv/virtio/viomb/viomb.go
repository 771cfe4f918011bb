// Package viomb is the virtio memory balloon (virtio 1.3, 5.5), after OpenBSD's
// name for it. What the guest says is free goes back to the host: at once where
// its driver reports free pages, and as far as SetTarget wants otherwise. The
// driver also says how much memory the guest has left.
package viomb

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"vmd/hv/mem"
	"vmd/hv/virtio"
)

// Counters are what the driver has said, in bytes. They may lie in memory that
// is shared with others: fields are written with sync/atomic only.
type Counters struct {
	Total     uint64 // memory that the guest's kernel manages; 0 while unknown
	Free      uint64 // of it, not used for anything
	Available uint64 // of it, could be had without swapping
	Balloon   uint64 // in the balloon
	Reported  uint64 // given back as free, ever
}

// Device is a balloon. It implements virtio.Device.
type Device struct {
	mem      *mem.Memory
	counters *Counters

	mu          sync.Mutex // a leaf, but for Worker.Stop: no worker takes it
	driver      virtio.Transport
	target      uint32 // pages
	actual      uint32
	workers     []*virtio.Worker
	stats       *statsServer
	statsWorker *virtio.Worker
}

// New makes a balloon of the guest memory m. It counts in c; nil means nowhere.
func New(m *mem.Memory, c *Counters) *Device {
	if c == nil {
		c = new(Counters)
	}
	return &Device{mem: m, counters: c}
}

// SetTarget asks the driver to keep bytes of the guest's memory in the balloon.
// It does so when and as far as it can. All of it cannot be meant: a target is
// cut to what a guest can live without.
func (d *Device) SetTarget(bytes uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = uint32(min(bytes, d.limit()) >> pageShift)
	if d.driver != nil {
		d.driver.ConfigChanged()
	}
}

// limit is the most that can be meant by a target.
func (d *Device) limit() uint64 { return d.mem.Size() - d.mem.Size()/16 }

// Refresh asks the driver how much memory the guest has; it answers in the
// counters. Each call costs the guest an interrupt.
func (d *Device) Refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stats != nil {
		d.stats.wanted.Store(true)
		d.statsWorker.Poke()
	}
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.VIRTIO_ID_BALLOON }

// Features implements virtio.Device. MUST_TELL_HOST is not among them: a page
// comes back by being touched.
func (d *Device) Features() uint64 {
	return VIRTIO_BALLOON_F_STATS_VQ | VIRTIO_BALLOON_F_DEFLATE_ON_OOM | VIRTIO_BALLOON_F_REPORTING
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	s := make([]uint16, queueCount)
	for i := range s {
		s[i] = queueSize
	}
	return s
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var c [configSize]byte
	binary.LittleEndian.PutUint32(c[offTarget:], d.target)
	binary.LittleEndian.PutUint32(c[offActual:], d.actual)
	clear(p)
	if off < configSize {
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device. The driver writes how many pages are in
// the balloon.
func (d *Device) WriteConfig(off uint64, p []byte) {
	if off != offActual || len(p) != 4 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.setActual(binary.LittleEndian.Uint32(p))
}

func (d *Device) setActual(pages uint32) {
	d.actual = pages
	atomic.StoreUint64(&d.counters.Balloon, min(uint64(pages)<<pageShift, d.mem.Size()))
}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, qs []*virtio.Queue, t virtio.Transport) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.driver = t
	for i, q := range qs {
		if q == nil {
			continue
		}
		switch {
		case i == queueInflate || i == queueDeflate:
			s := &pageServer{d: d, q: q, discard: i == queueInflate}
			d.workers = append(d.workers, q.Start(s.serve, nil))
		case i == queueStats && features&VIRTIO_BALLOON_F_STATS_VQ != 0:
			d.stats = &statsServer{d: d, q: q}
			d.statsWorker = q.Start(d.stats.serve, nil)
			d.workers = append(d.workers, d.statsWorker)
		case features&VIRTIO_BALLOON_F_REPORTING != 0:
			s := &reportServer{d: d, q: q}
			d.workers = append(d.workers, q.Start(s.serve, nil))
		}
	}
	return nil
}

// Reset implements virtio.Device. The balloon is empty after it: the guest has
// all its memory again.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.workers {
		w.Stop()
	}
	d.driver, d.workers, d.stats, d.statsWorker = nil, nil, nil, nil
	d.setActual(0)
	for _, p := range []*uint64{&d.counters.Total, &d.counters.Free, &d.counters.Available} {
		atomic.StoreUint64(p, 0)
	}
}

// Pause implements virtio.Device.
func (d *Device) Pause() { d.each((*virtio.Worker).Pause) }

// Resume implements virtio.Device.
func (d *Device) Resume() { d.each((*virtio.Worker).Resume) }

func (d *Device) each(f func(*virtio.Worker)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.workers {
		f(w)
	}
}
