package machine

import (
	"errors"
	"testing"

	"vmd/hv/pci"
	"vmd/hv/sev"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/viornd"
	"vmd/internal/testenv"
)

// TestStockKernelInMachineOfEncryptedGuests has Linux run on all that an
// encrypted guest's machine is, but for the encryption: devices that it must
// let the platform speak for, tables in memory of ACPI's, a launch that has
// sealed it.
func TestStockKernelInMachineOfEncryptedGuests(t *testing.T) {
	testenv.NeedRealKVM(t)
	blk, err := vioblk.New(smallDisk(t), vioblk.Config{Serial: "sealed"})
	if err != nil {
		t.Fatal(err)
	}
	s := &stock{ready: make(chan struct{}, 1)}
	p := &playKVM{t: t}
	s.Machine, s.tty = newMachine(t, func(c *Config) {
		s.config(2)(c)
		c.SEV = SEV{Kind: sev.SEV, FD: playFD, play: &sevPlay{cpu: playCPU, vm: p}}
	})
	// Linux looks at CPUID and then at a register that there is not.
	s.cfg.SEV.Kind = sev.None
	if err := s.setSignatures(kvmOnly); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		s.AddVirtio(pci.SlotDisk, "vioblk0", blk),
		s.AddVirtio(pci.SlotNIC, "vionet0", vionet.New(vionet.Config{MAC: [6]byte{2, 0, 0, 0, 0, 1}}, &noLink{wake: make(chan struct{}, 1)})),
		s.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()),
	)
	if err != nil {
		t.Fatal(err)
	}
	initrd := image(t, "initrd")
	if err := s.Load(Boot{Kernel: image(t, "vmlinux"), Initrd: &initrd, Cmdline: "console=ttyS0 quiet name=it"}); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Launch(); !ok || len(p.data) < 1<<20 {
		t.Fatalf("launched %v with %d bytes", ok, len(p.data))
	}
	start(t, s.Machine)
	s.wait(t, "guest ready it")
	for _, c := range []struct{ line, want string }{
		{"run echo accepted $(cat /sys/bus/virtio/devices/*/features | cut -c34 | sort | uniq -c)", "accepted 3 1"},
		{"run dd if=/dev/hwrng bs=48 count=1 2>/dev/null | wc -c", "48"},
		{"run head -n1 /dev/vda", "first"},
		{"run cat /sys/block/vda/serial", "sealed"},
		{"run echo new | dd of=/dev/vda bs=512 seek=1 conv=fsync 2>/dev/null; dd if=/dev/vda bs=512 skip=1 count=1 iflag=direct 2>/dev/null | head -n1", "new"},
		{"run echo regions $(grep -c 'ACPI Tables' /proc/iomem)", "regions 1"},
	} {
		s.say(c.line)
		s.wait(t, c.want)
	}
	s.say("poweroff")
	end(t, s.Machine, PowerOff)
}
