// Package vionet is the virtio network device (virtio 1.3, 5.1) on a Link, with
// one pair of queues, mergeable receive buffers, and the checksum and
// segmentation offloads that the link has.
//
// Each queue has a goroutine of its own. Nothing in it waits for the guest: a
// ring without room leaves frames to the link.
package vionet

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"vmd/hv/virtio"
)

// Counters are what an interface counts, for ever. They may lie in memory that
// is shared with others: fields are written with sync/atomic only. Bytes are
// those of Ethernet frames.
type Counters struct {
	RxPackets, RxBytes, RxDrops uint64 // towards the guest
	TxPackets, TxBytes, TxDrops uint64 // from the guest
}

// Config is what New needs beside the link.
type Config struct {
	// MAC is the interface's address.
	MAC [6]byte
	// LockMAC drops frames of the guest that have another source address.
	LockMAC bool
	// MTU is told to the guest; 0 means the usual 1500, and says nothing.
	MTU uint16
	// Down starts the interface without a link; see SetLink.
	Down bool
	// Counters is where to count; nil means nowhere.
	Counters *Counters
}

// Device is a network device. It implements virtio.Device.
type Device struct {
	link     Link
	mac      [6]byte
	lock     bool
	mtu      uint16
	sayMTU   bool
	counters *Counters
	down     atomic.Bool

	mu        sync.Mutex
	transport virtio.Transport // while active

	rx, tx *virtio.Worker // while active
}

// New makes a network device on link, which stays the caller's: close it after
// the device's last Reset.
func New(link Link, c Config) *Device {
	if c.Counters == nil {
		c.Counters = new(Counters)
	}
	d := &Device{link: link, mac: c.MAC, lock: c.LockMAC, mtu: c.MTU, sayMTU: c.MTU != 0, counters: c.Counters}
	if !d.sayMTU {
		d.mtu = defaultMTU
	}
	d.down.Store(c.Down)
	return d
}

// SetLink plugs the cable in or pulls it: without a link frames are dropped
// both ways. The driver is told. It may be called at any time.
func (d *Device) SetLink(up bool) {
	if d.down.Swap(!up) == !up {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transport != nil {
		d.transport.ConfigChanged()
	}
}

func (d *Device) linkUp() bool { return !d.down.Load() }

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.VIRTIO_ID_NET }

// offloads pairs what a link can do with what the driver may then be offered:
// host features let the guest send such frames, guest features receive them.
var offloads = []struct {
	link        uint32
	host, guest uint64
}{
	{TUN_F_CSUM, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM},
	{TUN_F_TSO4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4},
	{TUN_F_TSO6, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6},
}

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	f := VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF
	if d.sayMTU {
		f |= VIRTIO_NET_F_MTU
	}
	can := d.link.Offloads()
	for _, o := range offloads {
		if can&o.link != 0 {
			f |= o.host | o.guest
		}
	}
	return f
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{rxQueue: queueSize, txQueue: queueSize} }

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var c configSpace
	copy(c[:], d.mac[:])
	if d.linkUp() {
		c[6] = VIRTIO_NET_S_LINK_UP
	}
	binary.LittleEndian.PutUint16(c[8:], 1) // pairs
	binary.LittleEndian.PutUint16(c[10:], d.mtu)
	clear(p)
	if off < uint64(len(c)) {
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device. The address is not the driver's to
// write in a modern device (virtio 1.3, 5.1.4.2).
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, qs []*virtio.Queue, t virtio.Transport) error {
	if err := d.link.SetOffload(receivable(features)); err != nil {
		return err
	}
	d.mu.Lock()
	d.transport = t
	d.mu.Unlock()
	if q := qs[rxQueue]; q != nil {
		d.rx = q.Start(newReceiver(d, q, features).serve, d.link.Wake)
	}
	if q := qs[txQueue]; q != nil {
		s := &sender{d: d, q: q, rules: rules{features, d.lock, d.mac}}
		d.tx = q.Start(s.serve, nil)
	}
	return nil
}

// receivable is what the driver can receive, as offloads of the link. None is
// of use without checksums (virtio 1.3, 5.1.3.1).
func receivable(features uint64) uint32 {
	if features&VIRTIO_NET_F_GUEST_CSUM == 0 {
		return 0
	}
	var bits uint32
	for _, o := range offloads {
		if features&o.guest != 0 {
			bits |= o.link
		}
	}
	return bits
}

// Reset implements virtio.Device.
func (d *Device) Reset() {
	d.mu.Lock()
	d.transport = nil
	d.mu.Unlock()
	d.rx.Stop()
	d.tx.Stop()
	d.rx, d.tx = nil, nil
}

// Pause implements virtio.Device.
func (d *Device) Pause() {
	d.rx.Pause()
	d.tx.Pause()
}

// Resume implements virtio.Device.
func (d *Device) Resume() {
	d.rx.Resume()
	d.tx.Resume()
}
