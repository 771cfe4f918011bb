package viomb_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

func TestHostileGuest(t *testing.T) {
	v := virtiotest.Victim{
		Slot: pci.SlotBalloon,
		New:  func(_ *testing.T, h *virtiotest.Host) virtio.Device { return viomb.New(h.Mem, nil) },
	}
	v.Attack(t)
	v.Legacy, v.Options.Interface = true, virtiopci.Transitional
	t.Run("legacy", v.Attack)
}
