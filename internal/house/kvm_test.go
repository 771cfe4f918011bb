package house

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every request that hv/kvm can make is in the filter of the process that makes
// it: one that is not ends a guest.
func TestFilterKnowsEveryKVMRequest(t *testing.T) {
	src, err := os.ReadFile("../../hv/kvm/numbers.go")
	if err != nil {
		t.Fatal(err)
	}
	var allowed []byte
	for _, promise := range []string{"kvm", "kvm-receive", "kvm-encrypt"} {
		b, err := os.ReadFile("../sandbox/testdata/" + promise + ".ok")
		if err != nil {
			t.Fatal(err)
		}
		allowed = append(allowed, b...)
	}
	const kvmio = 0xae // linux/kvm.h, KVMIO
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^\s+(KVM_\w+)\s*=\s*(0x[0-9a-f]+)`).FindAllStringSubmatch(string(src), -1) {
		n, err := strconv.ParseUint(m[2], 0, 32)
		if err != nil || n>>8&0xff != kvmio {
			continue
		}
		found++
		if !strings.Contains(string(allowed)+" ", m[2]+" ") && !strings.Contains(string(allowed), m[2]+"\n") {
			t.Errorf("%s (%s) is not in internal/sandbox/kvm.go", m[1], m[2])
		}
	}
	if found < 20 {
		t.Errorf("found %d requests in hv/kvm/numbers.go: is the pattern still right?", found)
	}
}
