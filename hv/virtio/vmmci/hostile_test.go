package vmmci_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
	"vmd/hv/virtio/vmmci"
)

var victim = virtiotest.Victim{
	Slot:    pci.SlotVMMCI,
	Options: virtiopci.Options{Interface: virtiopci.Legacy, ID: vmmci.ID},
	Legacy:  true,
	New:     func(testing.TB, *virtiotest.Host) virtio.Device { return vmmci.New(vmmci.Config{}) },
}

func TestHostileGuest(t *testing.T) { victim.Attack(t) }

func FuzzRestore(f *testing.F) { victim.FuzzRestore(f) }
