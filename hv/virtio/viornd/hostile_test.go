package viornd_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

var victim = virtiotest.Victim{
	Slot: pci.SlotRNG,
	New:  func(testing.TB, *virtiotest.Host) virtio.Device { return viornd.New() },
}

func TestHostileGuest(t *testing.T) {
	victim.Attack(t)
	v := victim
	v.Legacy, v.Options.Interface = true, virtiopci.Transitional
	t.Run("legacy", v.Attack)
}

func FuzzRestore(f *testing.F) { victim.FuzzRestore(f) }
