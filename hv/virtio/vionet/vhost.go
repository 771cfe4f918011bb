package vionet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vmd/hv/virtio"
)

// Lender is a Link whose frames the kernel can move itself, between the guest's
// rings and the descriptor that it lends. A link that looks at frames is none.
type Lender interface {
	Link
	// Lend returns the descriptor. Nothing is read or written, and nobody
	// woken, before Return.
	Lend() (int, error)
	Return() error
	// SetFilter has the kernel keep back what is for none of addrs, unless
	// there are none. With allMulti, what is for any group passes.
	SetFilter(addrs [][6]byte, allMulti bool) error
}

var (
	errNoVhost  = errors.New("interface cannot be left to the kernel")
	errFeatures = errors.New("vhost lacks a feature that the driver was promised")
	errRing     = errors.New("the kernel cannot make sense of a ring")
)

// vhostFeatures are those that the data path must know of.
const vhostFeatures = VIRTIO_NET_F_MRG_RXBUF | virtio.VIRTIO_RING_F_INDIRECT_DESC | virtio.VIRTIO_RING_F_EVENT_IDX | virtio.VIRTIO_F_VERSION_1

// vhost is a pair of queues that the kernel serves (linux/vhost.h): the guest's
// doorbells and interrupts go to and from it, and we are not asked.
type vhost struct {
	fd    int
	owned bool // VHOST_SET_OWNER was done

	// While it serves a pair.
	lender  Lender
	tap     int
	queues  [2]*virtio.Queue
	running bool
	errs    *os.File // eventfd: a ring is broken
	watch   sync.WaitGroup
}

func (v *vhost) call(what string, req uintptr, b []byte) error {
	if err := vhostCall(v.fd, req, b); err != nil {
		return fmt.Errorf("vhost: %s: %w", what, err)
	}
	return nil
}

// start takes a pair over; run moves frames from then on. If it fails the pair
// is as it was.
func (v *vhost) start(features uint64, l Lender, rx, tx *virtio.Queue) (err error) {
	var loans [2]virtio.Loan
	v.queues = [2]*virtio.Queue{rx, tx}
	for i, q := range v.queues {
		if loans[i], err = q.Lend(); err != nil {
			return err
		}
	}
	if err := v.negotiate(features); err != nil {
		return err
	}
	var regions []vhostRegion
	for _, r := range loans[0].Memory.Regions() {
		regions = append(regions, vhostRegion{uint64(r.Base), uint64(len(r.Bytes)), addressOf(r.Bytes)})
	}
	if err := v.call("guest memory", VHOST_SET_MEM_TABLE, vhostMemory(regions)); err != nil {
		return err
	}
	if v.tap, err = l.Lend(); err != nil {
		return err
	}
	v.lender = l
	if err := v.listen(); err != nil {
		return errors.Join(err, v.stop())
	}
	for i := range loans {
		if err := v.ring(i, &loans[i]); err != nil {
			return errors.Join(err, v.stop())
		}
	}
	return nil
}

func (v *vhost) negotiate(features uint64) error {
	if !v.owned {
		if err := v.call("own it", VHOST_SET_OWNER, nil); err != nil {
			return err
		}
		v.owned = true
	}
	b := make([]byte, 8)
	if err := v.call("features", VHOST_GET_FEATURES, b); err != nil {
		return err
	}
	features &= vhostFeatures
	if features&^binary.LittleEndian.Uint64(b) != 0 {
		return errFeatures
	}
	binary.LittleEndian.PutUint64(b, features)
	return v.call("features", VHOST_SET_FEATURES, b)
}

// listen has broken rings of the pair fail the device.
func (v *vhost) listen() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("vhost: make an eventfd: %w", err)
	}
	f, q := os.NewFile(uintptr(fd), "vhost"), v.queues[0]
	v.errs = f
	v.watch.Go(func() {
		if _, err := f.Read(make([]byte, 8)); err == nil { // closed otherwise
			q.Fail(errRing)
		}
	})
	for i := range v.queues {
		if err := v.call("errors", VHOST_SET_VRING_ERR, vhostState(i, uint32(fd))); err != nil {
			return err
		}
	}
	return nil
}

// ring describes ring i of the pair.
func (v *vhost) ring(i int, l *virtio.Loan) error {
	return errors.Join(
		v.call("ring size", VHOST_SET_VRING_NUM, vhostState(i, uint32(l.Size))),
		v.call("ring position", VHOST_SET_VRING_BASE, vhostState(i, uint32(l.Next))),
		v.call("ring", VHOST_SET_VRING_ADDR, vhostAddr(i, addressOf(l.Desc), addressOf(l.Used), addressOf(l.Avail))),
		v.call("interrupt", VHOST_SET_VRING_CALL, vhostState(i, uint32(l.Call))),
		v.call("doorbell", VHOST_SET_VRING_KICK, vhostState(i, uint32(l.Kick))),
	)
}

// none is no descriptor.
const none = ^uint32(0)

// run starts and stops the traffic. When it has stopped the kernel has no frame
// in its hands (vhost_net_set_backend).
func (v *vhost) run(on bool) error {
	if on == v.running {
		return nil
	}
	v.running = on
	fd := none
	if on {
		fd = uint32(v.tap)
	}
	var err error
	for i, q := range v.queues {
		err = errors.Join(err, v.call("tap", VHOST_NET_SET_BACKEND, vhostState(i, fd)))
		if on {
			q.Ring() // for what came in the meantime
		} else {
			err = errors.Join(err, v.settle(i))
		}
	}
	return err
}

// settle takes over from the kernel how far it has come with ring i. It has
// returned all that it took, in order, so that both rings are as far.
func (v *vhost) settle(i int) error {
	b := vhostState(i, 0)
	if err := v.call("ring position", VHOST_GET_VRING_BASE, b); err != nil {
		return err
	}
	v.queues[i].Reclaim(uint16(binary.LittleEndian.Uint32(b[4:])))
	return nil
}

// stop gives the pair back.
func (v *vhost) stop() error {
	err := v.run(false)
	for i := range v.queues {
		for _, req := range []uintptr{VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR} {
			err = errors.Join(err, v.call("let go", req, vhostState(i, none)))
		}
	}
	if v.errs != nil {
		err = errors.Join(err, v.errs.Close())
		v.watch.Wait()
		v.errs = nil
	}
	if v.lender != nil {
		err = errors.Join(err, v.lender.Return())
		v.lender = nil
	}
	return err
}

// startVhost leaves pair i to the kernel. d.lending is held.
func (d *Device) startVhost(i int) error {
	p := &d.pairs[i]
	l, ok := d.links[i].(Lender)
	if !ok || i >= len(d.vhost) || d.locked || d.tracked || p.rx == nil || p.tx == nil || shortHeader(d.features) {
		return errNoVhost
	}
	v := &d.vhost[i]
	if err := v.start(d.features, l, p.rx, p.tx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := v.run(d.linkUp() && !d.paused); err != nil {
		return errors.Join(err, v.stop())
	}
	d.lent = append(d.lent, v)
	return nil
}

// Track implements virtio.Tracker. The kernel would write to guest memory
// without a word, so while pages are marked every pair is served by goroutines
// of ours. The guest notices nothing.
func (d *Device) Track(on bool) error {
	if on == d.tracked {
		return nil
	}
	d.tracked = on
	d.lending.Lock()
	defer d.lending.Unlock()
	d.mu.Lock()
	t, lent := d.transport, d.lent
	if on {
		d.lent = nil
	}
	d.mu.Unlock()
	if t == nil {
		return nil
	}
	if !on {
		return d.lendAgain()
	}
	if len(lent) == 0 {
		return nil
	}
	err := d.links[0].(Lender).SetFilter(nil, false) // we filter ourselves
	for _, v := range lent {
		err = errors.Join(err, v.stop())
	}
	if err != nil {
		t.Fail(err)
		return err
	}
	for i := range d.pairs {
		if d.pairs[i].lent {
			d.startPair(i)
			d.pairs[i].wasLent = true
		}
	}
	return nil
}

// lendAgain gives the kernel back what Track has taken from it.
func (d *Device) lendAgain() error {
	for i := range d.pairs {
		p := &d.pairs[i]
		if !p.wasLent {
			continue
		}
		for _, w := range p.workers {
			w.Stop()
		}
		p.workers, p.wasLent = nil, false
		d.startPair(i)
	}
	return d.filterTaps(d.filter.Load())
}

// filterLent has the kernel filter what it moves itself. Only the goroutine of
// the control queue calls it, Reset and RestoreState.
func (d *Device) filterLent(f *filter) error {
	d.lending.Lock()
	defer d.lending.Unlock()
	return d.filterTaps(f)
}

// filterTaps is filterLent with d.lending held.
func (d *Device) filterTaps(f *filter) error {
	d.mu.Lock()
	lent := len(d.lent) > 0
	d.mu.Unlock()
	if !lent {
		return nil
	}
	return d.links[0].(Lender).SetFilter(f.addresses(), f.allmulti || f.multi.all)
}

// runLent has the pairs that are lent run while they should. d.mu is held.
func (d *Device) runLent() error {
	var err error
	for _, v := range d.lent {
		err = errors.Join(err, v.run(d.linkUp() && !d.paused))
	}
	return err
}
