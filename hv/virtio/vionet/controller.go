package vionet

import (
	"errors"
	"time"

	"vmd/hv/virtio"
)

var errAnswer = errors.New("command without room for an answer")

// controller owns the control queue.
type controller struct {
	d      *Device
	q      *virtio.Queue
	limits limits
	chain  virtio.Chain
	buf    [maxControl]byte
	ack    [1]byte
	pace   pace
}

// pace spreads commands out: most of them change the host's interface, which
// takes a lock that the whole host's network shares (rtnl). A driver sends a few
// at a time, and a guest that sends them without end waits for itself only.
type pace struct {
	spent time.Duration // what recent commands count for
	last  time.Time
}

const (
	commandCost  = 10 * time.Millisecond
	commandBurst = 64 * commandCost
)

// next is how long the command that comes at now has to wait.
func (p *pace) next(now time.Time) time.Duration {
	p.spent = max(0, p.spent-now.Sub(p.last)) + commandCost
	p.last = now
	return max(0, p.spent-commandBurst)
}

func (k *controller) serve() {
	for k.q.Next(&k.chain) {
		if wait := k.pace.next(time.Now()); wait > 0 {
			time.Sleep(wait)
		}
		k.ack[0] = VIRTIO_NET_ERR
		if n := k.chain.ReadableLen(); n <= maxControl && k.chain.Take(k.buf[:n]) {
			if c, err := parseControl(k.buf[:n], &k.limits); err == nil && k.d.obey(&c) == nil {
				k.ack[0] = VIRTIO_NET_OK
			}
		}
		if k.chain.Put(0, k.ack[:]) != 1 {
			k.q.Fail(errAnswer)
			return
		}
		k.q.Done(&k.chain, 1)
	}
}

// obey carries a command out. Only the goroutine of the control queue calls it.
func (d *Device) obey(c *command) error {
	switch {
	case c.announced:
		d.announce.Store(false)
	case c.pairs != 0:
		return d.setPairs(c.pairs)
	case c.offloads != nil:
		return d.setOffloads(*c.offloads)
	default:
		f := *d.filter.Load()
		f.change(c)
		d.filter.Store(&f)
		return d.filterLent(&f)
	}
	return nil
}

// change makes f what c says.
func (f *filter) change(c *command) {
	if c.promisc != nil {
		f.promisc = *c.promisc
	}
	if c.allmulti != nil {
		f.allmulti = *c.allmulti
	}
	if c.tables != nil {
		f.unicast, f.multi = c.tables[0], c.tables[1]
	}
	if c.mac != nil {
		f.mac = *c.mac
	}
}

// setPairs has frames arrive on the first n links only. The kernel is asked for
// what changes and no more: it stops the interface for each.
func (d *Device) setPairs(n int) error {
	for d.active < n {
		if err := d.links[d.active].SetActive(true); err != nil {
			return err
		}
		d.active++
	}
	for d.active > n {
		if err := d.links[d.active-1].SetActive(false); err != nil {
			return err
		}
		d.active--
	}
	return nil
}

// setOffloads tells the link what the driver receives now. It is asked for
// changes only, as above.
func (d *Device) setOffloads(features uint64) error {
	return d.offload(receivable(features))
}

func (d *Device) offload(bits uint32) error {
	if d.offloads == bits {
		return nil
	}
	if err := d.links[0].SetOffload(bits); err != nil {
		return err
	}
	d.offloads = bits
	return nil
}
