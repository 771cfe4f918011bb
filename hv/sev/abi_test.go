package sev

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// layout is where the kernel has what we encode: sizes and offsets in the
// headers of Linux 6.1, but for kvm_sev_init, which came with 6.10.
var layout = []struct {
	expr string
	want int
}{
	{"sizeof(struct kvm_sev_launch_start)", 40},
	{"offsetof(struct kvm_sev_launch_start, policy)", 4},
	{"offsetof(struct kvm_sev_launch_start, dh_uaddr)", 8},
	{"offsetof(struct kvm_sev_launch_start, dh_len)", 16},
	{"offsetof(struct kvm_sev_launch_start, session_uaddr)", 24},
	{"offsetof(struct kvm_sev_launch_start, session_len)", 32},
	{"sizeof(struct kvm_sev_launch_update_data)", 16},
	{"offsetof(struct kvm_sev_launch_update_data, len)", 8},
	{"sizeof(struct kvm_sev_launch_measure)", 16},
	{"offsetof(struct kvm_sev_launch_measure, len)", 8},
	{"sizeof(struct kvm_sev_guest_status)", 12},
	{"offsetof(struct kvm_sev_guest_status, state)", 8},
	{"sizeof(struct sev_user_data_status)", 12},
	{"offsetof(struct sev_user_data_status, flags)", 3},
	{"offsetof(struct sev_user_data_status, build)", 7},
	{"SEV_ISSUE_CMD", SEV_ISSUE_CMD},
	{"SEV_PLATFORM_STATUS", SEV_PLATFORM_STATUS},
	{"SEV_STATUS_FLAGS_CONFIG_ES", SEV_STATUS_FLAGS_CONFIG_ES},
	{"KVM_SEV_INIT", KVM_SEV_INIT}, {"KVM_SEV_ES_INIT", KVM_SEV_ES_INIT},
	{"KVM_SEV_LAUNCH_START", KVM_SEV_LAUNCH_START}, {"KVM_SEV_LAUNCH_UPDATE_DATA", KVM_SEV_LAUNCH_UPDATE_DATA},
	{"KVM_SEV_LAUNCH_UPDATE_VMSA", KVM_SEV_LAUNCH_UPDATE_VMSA}, {"KVM_SEV_LAUNCH_MEASURE", KVM_SEV_LAUNCH_MEASURE},
	{"KVM_SEV_LAUNCH_FINISH", KVM_SEV_LAUNCH_FINISH}, {"KVM_SEV_GUEST_STATUS", KVM_SEV_GUEST_STATUS},
	{"SEV_RET_SECURE_DATA_INVALID", 0x18}, {"SEV_RET_POLICY_FAILURE", 0x07}, {"SEV_RET_RESOURCE_LIMIT", 0x17},
}

// Each field has a value of its own, which must be at its offset.
func TestEncoding(t *testing.T) {
	encode := func(v any) []byte {
		b, err := binary.Append(nil, binary.LittleEndian, v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		got  []byte
		size int
		want map[int]byte
	}{
		{"init", encode(sevInit{VMSAFeatures: 1, Flags: 2, GHCBVersion: 3}), 48, map[int]byte{0: 1, 8: 2, 12: 3}},
		{"start", encode(launchStart{1, 2, 3, 4, 0, 5, 6, 0}), 40, map[int]byte{0: 1, 4: 2, 8: 3, 16: 4, 24: 5, 32: 6}},
		{"update", encode(launchUpdateData{1, 2, 0}), 16, map[int]byte{0: 1, 8: 2}},
		{"measure", encode(launchMeasure{1, 2, 0}), 16, map[int]byte{0: 1, 8: 2}},
		{"guest status", encode(guestStatus{1, 2, 3}), 12, map[int]byte{0: 1, 4: 2, 8: 3}},
		{"platform status", encode(platformStatus{1, 2, 3, 4, 5, 6}), 12, map[int]byte{0: 1, 1: 2, 2: 3, 3: 4, 7: 5, 8: 6}},
	} {
		if len(tt.got) != tt.size {
			t.Errorf("%s: %d bytes, want %d", tt.name, len(tt.got), tt.size)
			continue
		}
		for i, b := range tt.got {
			if b != tt.want[i] {
				t.Errorf("%s: %d at %d, want %d", tt.name, b, i, tt.want[i])
			}
		}
	}
}

// TestLayout holds the table against this machine's headers.
func TestLayout(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	var c strings.Builder
	c.WriteString("#include <stddef.h>\n#include <linux/kvm.h>\n#include <linux/psp-sev.h>\n")
	for _, l := range layout {
		fmt.Fprintf(&c, "_Static_assert((unsigned)(%s) == %du, %q);\n", l.expr, l.want, l.expr)
	}
	src := filepath.Join(t.TempDir(), "abi.c")
	if err := os.WriteFile(src, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(gcc, "-E", "-o", os.DevNull, src).Run(); err != nil {
		t.Skip("no kernel headers")
	}
	if out, err := exec.Command(gcc, "-fsyntax-only", src).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
