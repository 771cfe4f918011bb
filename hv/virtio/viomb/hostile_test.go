package viomb_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

var victim = virtiotest.Victim{
	Slot: pci.SlotBalloon,
	New:  func(_ testing.TB, h *virtiotest.Host) virtio.Device { return viomb.New(h.Mem, nil) },
}

func TestHostileGuest(t *testing.T) {
	victim.Attack(t)
	v := victim
	v.Legacy, v.Options.Interface = true, virtiopci.Transitional
	t.Run("legacy", v.Attack)
}

func FuzzRestore(f *testing.F) { victim.FuzzRestore(f) }
