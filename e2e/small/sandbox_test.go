package small

import (
	"fmt"
	"strings"
	"testing"

	"vmd/e2e/harness"
)

// The filter of a VM process is in force for all that it does: without one of
// its entries the guest's run ends where the call is made. The calls are those
// that no other role makes.
func TestFilterIsInForce(t *testing.T) {
	dir := setUp(t)
	disk := harness.NewDisk(t, dir, "disk.img", 1)
	conf := define("a", harness.Tiny(t, dir, "k", "x", harness.TinyEcho), "disable", fmt.Sprintf("disk %q", disk), "interface tap")
	for _, c := range []struct{ name, entry string }{
		{"open KVM", "ioctl=0xae01"},         // KVM_CREATE_VM
		{"guest memory", "ioctl=0x4020ae46"}, // KVM_SET_USER_MEMORY_REGION
		{"a vCPU", "ioctl=0xae41"},           // KVM_CREATE_VCPU
		{"run it", "ioctl=0xae80"},           // KVM_RUN
		{"a disk's header or size", "fstat"}, // of a file that came as a descriptor
		{"interrupts", "ioctl=0x4020ae76"},   // KVM_IRQFD
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("VMD_SECCOMP_WITHOUT", c.entry)
			d := harness.StartVMD(t, conf)
			d.VmctlAs("root", "start", "a") // which may have run for a moment
			harness.WaitFor(t, "the end of the run", func() bool { return strings.Contains(d.Log(), "SIGSYS") })
			if row := d.Row("a"); row.PID != 0 {
				t.Errorf("without %s the guest runs: %+v", c.entry, row)
			}
		})
	}
}
