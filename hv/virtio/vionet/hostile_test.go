package vionet_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

// quietWire counts what the guest sends.
func quietWire() *wire {
	w := newWire()
	w.setQuiet()
	return w
}

var victim = virtiotest.Victim{
	Slot: pci.SlotNIC,
	New: func(testing.TB, *virtiotest.Host) virtio.Device {
		return vionet.New(vionet.Config{MAC: mac}, quietWire(), quietWire())
	},
	// A receive queue is looked into when a frame comes, the second pair
	// when the guest has asked for it.
	Idle: func(i int) bool { return i == 0 || i == 2 },
}

func TestHostileGuest(t *testing.T) {
	victim.Attack(t)
	v := victim
	v.Legacy, v.Options.Interface = true, virtiopci.Transitional
	t.Run("legacy", v.Attack)
}

func FuzzRestore(f *testing.F) { victim.FuzzRestore(f) }
