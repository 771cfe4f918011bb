package vioscsi_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vioscsi"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

var victim = virtiotest.Victim{
	Slot: pci.SlotCD,
	New: func(t testing.TB, _ *virtiotest.Host) virtio.Device {
		img, _ := medium(t)
		return vioscsi.New(img)
	},
	Idle: func(i int) bool { return i == 1 }, // events: there are none
}

func TestHostileGuest(t *testing.T) {
	victim.Attack(t)
	v := victim
	v.Legacy, v.Options.Interface = true, virtiopci.Transitional
	t.Run("legacy", v.Attack)
}

func FuzzRestore(f *testing.F) { victim.FuzzRestore(f) }
