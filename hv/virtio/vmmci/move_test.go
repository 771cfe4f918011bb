package vmmci_test

import (
	"slices"
	"testing"

	"vmd/hv/pci"
	"vmd/hv/virtio/virtiopci"
	"vmd/hv/virtio/virtiotest"
	"vmd/hv/virtio/vmmci"
)

// A command that the guest has not heard is there for it to hear where it is
// now, and its interrupt still up.
func TestMoveWithACommandPending(t *testing.T) {
	opts := virtiopci.Options{Interface: virtiopci.Legacy, ID: vmmci.ID}
	h, got := virtiotest.NewHost(t, 1<<20), &heard{}
	dev := func() *vmmci.Device {
		return vmmci.New(vmmci.Config{Acked: func(c vmmci.Command) { got.acks = append(got.acks, c) }})
	}
	first := dev()
	fn := h.PlugWith(pci.SlotVMMCI, first, opts)
	d := virtiotest.NewLegacy(h, pci.SlotVMMCI)
	bind(d, all)
	if !first.Send(vmmci.Reboot) {
		t.Fatal("not sent")
	}
	second := dev()
	d.Move(fn, h.Twin(), second, opts)
	d.WaitConfig()
	if isr := d.TakeISR(); isr != 2 || d.Line().High() {
		t.Errorf("ISR %d, line %v", isr, d.Line().High())
	}
	if got := d.In(command, 4); got != uint32(vmmci.Reboot) {
		t.Errorf("command %d", got)
	}
	d.Out(command, 4, uint32(vmmci.Reboot))
	if !slices.Equal(got.acks, []vmmci.Command{vmmci.Reboot}) {
		t.Errorf("acknowledged %v", got.acks)
	}
	if !second.Send(vmmci.SyncRTC) {
		t.Error("the driver is not known here")
	}
}

func TestRestoreRefusesCommands(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":    nil,
		"unknown":    {0xa2, 1, 4, 2, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"no driver":  {0xa2, 1, 1, 2, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"other type": {0xa1, 1, 0x61, 'x'},
	} {
		if vmmci.New(vmmci.Config{}).RestoreState(b) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := vmmci.New(vmmci.Config{}).RestoreState([]byte{0xa2, 1, 0, 2, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Error(err)
	}
}
