package viornd_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

func TestHostileGuest(t *testing.T) {
	v := virtiotest.Victim{
		Slot: pci.SlotRNG,
		New:  func(*testing.T, *virtiotest.Host) virtio.Device { return viornd.New() },
	}
	v.Attack(t)
	v.Legacy, v.Options.Interface = true, virtiopci.Transitional
	t.Run("legacy", v.Attack)
}
