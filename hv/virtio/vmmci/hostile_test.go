package vmmci_test

import (
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
	"vmd/hv/virtio/vmmci"
)

func TestHostileGuest(t *testing.T) {
	virtiotest.Victim{
		Slot:    pci.SlotVMMCI,
		Options: virtiopci.Options{Interface: virtiopci.Legacy, ID: vmmci.ID},
		Legacy:  true,
		New:     func(*testing.T, *virtiotest.Host) virtio.Device { return vmmci.New(vmmci.Config{}) },
	}.Attack(t)
}
