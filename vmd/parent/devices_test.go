package parent

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDevicesThatAreMissing(t *testing.T) {
	dir := t.TempDir()
	err := checkTUN(filepath.Join(dir, "tun"))
	if err == nil || !strings.HasSuffix(err.Error(), "/tun: no such file or directory: is the module tun loaded?") {
		t.Errorf("no tun: %v", err)
	}
	if err := checkTUN(dir); err != nil {
		t.Errorf("it is there: %v", err)
	}
	missing := &fs.PathError{Op: "open", Path: "/dev/kvm", Err: unix.ENOENT}
	if got := noKVM(missing).Error(); !strings.HasPrefix(got, missing.Error()+": is kvm_amd or kvm_intel loaded") {
		t.Errorf("no KVM: %s", got)
	}
	if err := noKVM(os.ErrPermission); err != os.ErrPermission {
		t.Errorf("another error became %v", err)
	}
}
