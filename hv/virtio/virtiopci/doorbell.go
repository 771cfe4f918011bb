package virtiopci

import (
	"fmt"

	"vmd/hv/pci"
)

// doorbells are the ioeventfds of the queues in one BAR.
type doorbells struct {
	bar     int
	at      func(i int) pci.Doorbell // relative to the BAR
	decoded bool                     // the BAR answers at base
	base    uint64
	set     []bool // registered with the machine
}

func (f *Function) modernBell(i int) pci.Doorbell {
	return pci.Doorbell{Addr: offNotify + notifyStride*uint64(i), Size: notifyWidth}
}

func (f *Function) legacyBell(i int) pci.Doorbell {
	return pci.Doorbell{Addr: legacyQueueNotify, Port: true, Size: notifyWidth, Match: true, Data: uint64(i)}
}

// decode follows the BARs that doorbells are in.
func (f *Function) decode(n int, addr uint64, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range []*doorbells{&f.modern, &f.legacy} {
		if d.bar != n {
			continue
		}
		if d.decoded = on; on {
			d.base = addr // what goes is taken back at the address it was added with
		}
	}
	f.syncBells()
}

// syncBells registers the doorbells of enabled queues with the machine while
// their BAR is decoded, and takes back all others. Those of a legacy device
// that is not active yet must be seen: they start it.
func (f *Function) syncBells() {
	legacy := f.core.Legacy()
	for i := range f.modern.set {
		on := f.core.Queue(i).Enabled
		f.syncBell(&f.modern, i, on && !legacy)
		f.syncBell(&f.legacy, i, on && legacy && f.core.Active())
	}
}

// syncBell adds or removes one doorbell. Where the machine refuses it, the
// guest's write reaches the registers instead, which is slower and no
// different.
func (f *Function) syncBell(d *doorbells, i int, want bool) {
	if want = want && d.decoded; want == d.set[i] {
		return
	}
	bell := d.at(i)
	bell.Addr += d.base
	bell.FD = f.core.Doorbell(i).FD()
	var err error
	if want {
		err = f.host.AddDoorbell(bell)
	} else {
		err = f.host.RemoveDoorbell(bell)
	}
	if err != nil {
		f.warn(fmt.Errorf("doorbell of queue %d: %w", i, err))
	}
	d.set[i] = want && err == nil
}
