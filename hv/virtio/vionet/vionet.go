// Package vionet is the virtio network device (virtio 1.3, 5.1) on Links, with
// a pair of queues for each, a control queue, mergeable receive buffers, and the
// checksum and segmentation offloads that the links have.
//
// Each queue has a goroutine of its own. Nothing in it waits for the guest: a
// ring without room leaves frames to the link.
package vionet

import (
	"encoding/binary"
	"errors"
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
	// LockMAC drops frames of the guest that have another source address, and
	// those for somebody else; the guest cannot change its address.
	LockMAC bool
	// MTU is told to the guest; 0 means the usual 1500, and says nothing.
	MTU uint16
	// Down starts the interface without a link; see SetLink.
	Down bool
	// Vhost are descriptors of /dev/vhost-net, one for each link, which stay the
	// caller's. With one, and a link that is a Lender, the kernel moves the
	// frames unless the address is locked. It knows nothing of Counters: those
	// stay as they are, and the tap's own tell. Where anything is missing we
	// move them.
	Vhost []int
	// Counters is where to count; nil means nowhere.
	Counters *Counters
}

// Device is a network device. It implements virtio.Device.
type Device struct {
	links    []Link
	mac      [6]byte
	locked   bool
	mtu      uint16
	sayMTU   bool
	counters *Counters
	down     atomic.Bool
	announce atomic.Bool // the driver shall tell the network where it is
	filter   atomic.Pointer[filter]

	mu        sync.Mutex
	transport virtio.Transport // while active
	features  uint64           // negotiated, while active
	lent      []*vhost         // that serve a pair
	paused    bool

	// Of the control queue's goroutine while there is one, else of whoever
	// calls Activate and Reset.
	active   int    // links that frames arrive on
	offloads uint32 // what the first link was told

	workers []*virtio.Worker // while active
	vhost   []vhost
}

// New makes a network device with a pair of queues for each of links, of which
// there are 1 to MaxPairs. They stay the caller's: close them after the device's
// last Reset. A further link must not be active yet.
func New(c Config, links ...Link) *Device {
	if c.Counters == nil {
		c.Counters = new(Counters)
	}
	links = links[:min(len(links), MaxPairs)]
	d := &Device{links: links, mac: c.MAC, locked: c.LockMAC, mtu: c.MTU, sayMTU: c.MTU != 0, counters: c.Counters, active: 1}
	if !d.sayMTU {
		d.mtu = defaultMTU
	}
	for _, fd := range c.Vhost {
		d.vhost = append(d.vhost, vhost{fd: fd})
	}
	d.down.Store(c.Down)
	d.filter.Store(d.open())
	return d
}

// open is the filter of a driver that has not said what it wants: it gets all.
func (d *Device) open() *filter { return &filter{mac: d.mac, locked: d.locked, promisc: true} }

// SetLink plugs the cable in or pulls it: without a link frames are dropped
// both ways. The driver is told. It may be called at any time.
func (d *Device) SetLink(up bool) {
	if d.down.Swap(!up) == !up {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transport == nil {
		return
	}
	if err := d.runLent(); err != nil {
		d.transport.Fail(err)
	}
	d.transport.ConfigChanged()
}

// Announce asks the driver to tell the network where it is, after the guest has
// moved. A driver that does not know how is not asked. It may be called at any
// time.
func (d *Device) Announce() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transport != nil && d.features&VIRTIO_NET_F_GUEST_ANNOUNCE != 0 {
		d.announce.Store(true)
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

// Features implements virtio.Device. A locked interface offers to change the
// address all the same: so the driver is told that it may not.
func (d *Device) Features() uint64 {
	f := VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX |
		VIRTIO_NET_F_CTRL_MAC_ADDR | VIRTIO_NET_F_GUEST_ANNOUNCE
	if d.sayMTU {
		f |= VIRTIO_NET_F_MTU
	}
	if len(d.links) > 1 {
		f |= VIRTIO_NET_F_MQ
	}
	can := d.links[0].Offloads()
	for _, o := range offloads {
		if can&o.link != 0 {
			f |= o.host | o.guest
		}
	}
	if f&guestOffloads != 0 {
		f |= VIRTIO_NET_F_CTRL_GUEST_OFFLOADS
	}
	return f
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	sizes := make([]uint16, controlQueue(len(d.links))+1)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var c configSpace
	mac := d.filter.Load().mac
	copy(c[:], mac[:])
	if d.linkUp() {
		c[6] |= VIRTIO_NET_S_LINK_UP
	}
	if d.announce.Load() {
		c[6] |= VIRTIO_NET_S_ANNOUNCE
	}
	binary.LittleEndian.PutUint16(c[8:], uint16(len(d.links)))
	binary.LittleEndian.PutUint16(c[10:], d.mtu)
	clear(p)
	if off < uint64(len(c)) {
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device. The address is not the driver's to
// write in a modern device (virtio 1.3, 5.1.4.2).
func (d *Device) WriteConfig(uint64, []byte) {}

// errShortHeader refuses a legacy driver that does not merge receive buffers:
// its header has two bytes less than a link's (virtio 1.3, 5.1.6.1).
var errShortHeader = errors.New("legacy driver without mergeable receive buffers")

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, qs []*virtio.Queue, t virtio.Transport) error {
	if features&(virtio.VIRTIO_F_VERSION_1|VIRTIO_NET_F_MRG_RXBUF) == 0 {
		return errShortHeader
	}
	pairs := 1
	if features&VIRTIO_NET_F_MQ != 0 {
		pairs = len(d.links)
	}
	if err := d.links[0].SetOffload(receivable(features)); err != nil {
		return err
	}
	d.offloads = receivable(features)
	d.mu.Lock()
	d.transport, d.features = t, features
	d.mu.Unlock()
	if q := qs[controlQueue(pairs)]; q != nil && features&VIRTIO_NET_F_CTRL_VQ != 0 {
		k := &controller{d: d, q: q, limits: limits{features, pairs, d.locked}}
		d.workers = append(d.workers, q.Start(k.serve, nil))
	}
	for i := range pairs {
		rx, tx := qs[rxQueue(i)], qs[txQueue(i)]
		if d.startVhost(i, features, rx, tx) != nil {
			d.startPair(features, d.links[i], rx, tx)
		}
	}
	return nil
}

// startPair has a pair of queues served by goroutines of ours. Either may be
// nil.
func (d *Device) startPair(features uint64, link Link, rx, tx *virtio.Queue) {
	if rx != nil {
		d.workers = append(d.workers, rx.Start(newReceiver(d, link, rx, features).serve, link.Wake))
	}
	if tx != nil {
		s := &sender{d: d, link: link, q: tx, rules: rules{features, d.locked, d.mac}}
		d.workers = append(d.workers, tx.Start(s.serve, nil))
	}
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
	for _, w := range d.workers {
		w.Stop()
	}
	d.workers = nil
	d.announce.Store(false)
	d.filter.Store(d.open())
	failed := d.filterLent(d.filter.Load())
	d.mu.Lock()
	t, lent := d.transport, d.lent
	d.transport, d.features, d.lent, d.paused = nil, 0, nil, false
	d.mu.Unlock()
	for _, v := range lent {
		failed = errors.Join(failed, v.stop())
	}
	if failed != nil {
		t.Fail(failed)
	}
	_ = d.setPairs(1) // a link that stays active costs frames and no more
}

// Pause implements virtio.Device.
func (d *Device) Pause() {
	d.setPaused(true)
	for _, w := range d.workers {
		w.Pause()
	}
}

// Resume implements virtio.Device.
func (d *Device) Resume() {
	d.setPaused(false)
	for _, w := range d.workers {
		w.Resume()
	}
}

func (d *Device) setPaused(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transport == nil {
		return
	}
	d.paused = on
	if err := d.runLent(); err != nil {
		d.transport.Fail(err)
	}
}
