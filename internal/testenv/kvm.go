package testenv

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// kvmGetAPIVersion is KVM_GET_API_VERSION, _IO(0xAE, 0x00) of <linux/kvm.h>;
// its only answer is 12 (api.rst, 4.1). Package hv/kvm owns every other ioctl.
const (
	kvmGetAPIVersion = 0xae00
	kvmAPIVersion    = 12
)

// KVM needs a /dev/kvm that opens and answers (T2). It may be one that
// emulates kernel-mode code: raw guests run there, stock kernels do not.
func KVM(t testing.TB) {
	t.Helper()
	if err := probeKVM("/dev/kvm"); err != nil {
		missing(t, []string{"T2"}, "needs KVM: %v", err)
	}
	found(t, "T2")
}

func probeKVM(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", path, err)
	}
	if v != kvmAPIVersion {
		return fmt.Errorf("%s has version %d, want %d", path, v, kvmAPIVersion)
	}
	return nil
}

// RealKVM reports whether /dev/kvm stands on the processor's own
// virtualization, AMD-V or VT-x, so that stock kernels run (T3).
func RealKVM() bool {
	return realKVM("/sys/module") && probeKVM("/dev/kvm") == nil
}

func realKVM(modules string) bool {
	for _, name := range []string{"kvm_amd", "kvm_intel"} {
		if _, err := os.Stat(modules + "/" + name); err == nil {
			return true
		}
	}
	return false
}

// NeedRealKVM needs a KVM that runs stock kernels (T3): on such a machine, or
// in the emulated one of e2e/lab. Its package must be in lab.Packages.
func NeedRealKVM(t testing.TB) {
	t.Helper()
	switch {
	case RealKVM():
		found(t, "T3")
	case InLab():
		missing(t, []string{"T3"}, "needs kvm_amd or kvm_intel")
	default:
		t.Skip("needs kvm_amd or kvm_intel: runs in the lab (go test ./e2e)")
	}
}

// StockKernel needs a distribution's kernel with its modules (T1L): VRF, VLAN
// filtering, 802.1Q, vhost. Its package must be in lab.Packages.
func StockKernel(t testing.TB) {
	t.Helper()
	if hasModule("vrf") && hasModule("8021q") {
		found(t, "T1L")
		return
	}
	if InLab() {
		missing(t, []string{"T1L"}, "needs a kernel with vrf and 8021q")
	}
	t.Skip("needs a stock kernel with vrf and 8021q: runs in the lab (go test ./e2e)")
}
