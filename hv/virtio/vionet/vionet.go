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

	// lending is held while pairs are lent and taken back, and while the kernel
	// is told what to filter for those that are. It is taken before mu.
	lending sync.Mutex

	// Of the control queue's goroutine while there is one, else of whoever
	// calls Activate and Reset.
	active   int    // links that frames arrive on
	offloads uint32 // what the first link was told

	// Of whoever calls the methods of virtio.Device.
	control *virtio.Worker // while active
	pairs   []pair         // while active
	tracked bool           // see Track
	vhost   []vhost
}

// pair is a pair of queues and who serves it: the kernel or, else, workers. Each
// of the queues may be nil.
type pair struct {
	rx, tx  *virtio.Queue
	workers []*virtio.Worker
	lent    bool
	wasLent bool // before Track took it back
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
// moved, and says whether it did: a driver may not know how. It may be called at
// any time.
func (d *Device) Announce() (asked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transport == nil || d.features&VIRTIO_NET_F_GUEST_ANNOUNCE == 0 {
		return false
	}
	d.announce.Store(true)
	d.transport.ConfigChanged()
	return true
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

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, qs []*virtio.Queue, t virtio.Transport) error {
	n := d.pairsOf(features)
	if err := d.links[0].SetOffload(receivable(features)); err != nil {
		return err
	}
	d.offloads = receivable(features)
	d.mu.Lock()
	d.transport, d.features, d.paused = t, features, resting(qs)
	d.mu.Unlock()
	if q := qs[controlQueue(n)]; q != nil && features&VIRTIO_NET_F_CTRL_VQ != 0 {
		k := &controller{d: d, q: q, limits: limits{features, n, d.locked}}
		d.control = q.Start(k.serve, nil)
	}
	d.lending.Lock()
	defer d.lending.Unlock()
	for i := range n {
		d.pairs = append(d.pairs, pair{rx: qs[rxQueue(i)], tx: qs[txQueue(i)]})
		d.startPair(i)
	}
	return nil
}

// pairsOf is how many pairs of queues a driver has that negotiated features.
func (d *Device) pairsOf(features uint64) int {
	if features&VIRTIO_NET_F_MQ != 0 {
		return len(d.links)
	}
	return 1
}

// resting says whether the device is to stand still at first.
func resting(qs []*virtio.Queue) bool {
	for _, q := range qs {
		if q != nil && q.Resting() {
			return true
		}
	}
	return false
}

// startPair has the kernel serve pair i, or goroutines of ours where it cannot.
func (d *Device) startPair(i int) {
	p, link := &d.pairs[i], d.links[i]
	if p.lent = d.startVhost(i) == nil; p.lent {
		return
	}
	if p.rx != nil {
		p.workers = append(p.workers, p.rx.Start(newReceiver(d, link, p.rx, d.features).serve, link.Wake))
	}
	if p.tx != nil {
		s := &sender{d: d, link: link, q: p.tx, rules: rules{d.features, d.locked, d.mac, shortHeader(d.features)}}
		p.workers = append(p.workers, p.tx.Start(s.serve, nil))
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

// each calls f for every worker that there is.
func (d *Device) each(f func(*virtio.Worker)) {
	f(d.control)
	for i := range d.pairs {
		for _, w := range d.pairs[i].workers {
			f(w)
		}
	}
}

// Reset implements virtio.Device.
func (d *Device) Reset() {
	d.each((*virtio.Worker).Stop)
	d.control, d.pairs = nil, nil
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
	d.each((*virtio.Worker).Pause)
}

// Resume implements virtio.Device.
func (d *Device) Resume() {
	d.setPaused(false)
	d.each((*virtio.Worker).Resume)
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
