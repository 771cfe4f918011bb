package vm

import (
	"sync/atomic"

	"vmd/hv/pci"
	"vmd/hv/virtio/viomb"
	"vmd/internal/counters"
)

// memoryEvery is how many samples there are to one look at memory: it costs the
// host a walk through page tables, and the guest an interrupt.
const memoryEvery = 10

// addBalloon gives the guest the device by which it gives memory back.
// One with encrypted memory keeps all of it.
func (v *vm) addBalloon() error {
	if v.spec.SEV {
		return nil
	}
	v.balloon = viomb.New(v.machine.Memory(), (*viomb.Counters)(&v.page.Guest))
	return v.addVirtio(pci.SlotBalloon, "viomb0", v.balloon)
}

// sampler returns what keeps the counter page fresh, called once a second.
func (v *vm) sampler() func() {
	n := 0
	return func() {
		if n++; n%memoryEvery == 1 {
			if used, err := v.machine.Memory().Resident(); err == nil {
				atomic.StoreUint64(&v.page.Memory, used)
			}
			if v.balloon != nil {
				v.balloon.Refresh()
			}
		}
		atomic.StoreUint64(&v.page.Updated, uint64(counters.Monotonic()))
	}
}
