package vioblk_test

import (
	"os"
	"testing"

	"vmd/hv/disk"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
)

var victim = virtiotest.Victim{
	Slot: pci.SlotDisk,
	New: func(t testing.TB, _ *virtiotest.Host) virtio.Device {
		f, err := os.CreateTemp(t.TempDir(), "disk")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		img, err := disk.NewRaw(f, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { img.Close() })
		dev, err := vioblk.New(img, vioblk.Config{Queues: 2})
		if err != nil {
			t.Fatal(err)
		}
		return dev
	},
}

func TestHostileGuest(t *testing.T) {
	victim.Attack(t)
	v := victim
	v.Legacy, v.Options.Interface = true, virtiopci.Transitional
	t.Run("legacy", v.Attack)
}

func FuzzRestore(f *testing.F) { victim.FuzzRestore(f) }

func FuzzRestoreLegacy(f *testing.F) {
	v := victim
	v.Legacy, v.Options.Interface = true, virtiopci.Transitional
	v.FuzzRestore(f)
}
