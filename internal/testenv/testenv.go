// Package testenv says what the machine under a test can do. A test names the
// lowest tier it needs by calling one of its functions first:
//
//	T0   nothing, and tools of the host: Tool
//	T1   root, network namespaces, a real snmpd: Root, NetNS, Snmpd
//	T1L  a stock Linux kernel with all its modules (VRF, VLANs, vhost): StockKernel
//	T2   /dev/kvm of any kind, also one that emulates kernel-mode code: KVM
//	T3   a KVM that runs stock kernels: RealKVM, NeedRealKVM
//
// What is missing skips the test with the reason. The environment variable
// VMD_TEST_REQUIRE, a comma separated list of tiers, "root", "kvm" and names
// of tools, says what the machine is known to have: what it names fails the
// test instead of skipping it.
//
// T1L and T3 may be reached through the emulated machine of e2e/lab. A test
// that needs them skips outside of it, and package e2e fails if the machine
// was required and could not run.
package testenv

import (
	"os"
	"strings"
	"testing"
)

// LabVar is the environment variable that is set to 1 in the emulated machine
// of e2e/lab.
const LabVar = "VMD_TEST_LAB"

// RequireVar is the environment variable that lists what must not be skipped.
const RequireVar = "VMD_TEST_REQUIRE"

// aliases are the names of RequireVar that stand for a tier.
var aliases = map[string]string{
	"kvm":  "t2",
	"root": "t1",
}

// Required reports whether RequireVar names one of names. Tiers and tools are
// compared without regard to case.
func Required(names ...string) bool {
	return required(os.Getenv(RequireVar), names...)
}

func required(list string, names ...string) bool {
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.ToLower(strings.TrimSpace(entry))
		if entry == "" {
			continue
		}
		for _, name := range names {
			name = strings.ToLower(name)
			if entry == name || aliases[entry] == name {
				return true
			}
		}
	}
	return false
}

// InLab reports whether the test runs in the emulated machine of e2e/lab.
func InLab() bool { return os.Getenv(LabVar) == "1" }

// TierAttr is the attribute (testing.T.Attr) by which a test says which tier
// it has found; e2e/tally counts them.
const TierAttr = "tier"

// found notes that the machine has what a test of this tier needs.
func found(t testing.TB, tier string) {
	t.Helper()
	t.Attr(TierAttr, tier)
}

// missing ends a test whose machine lacks something: with a failure if
// RequireVar names one of names, else with a skip.
func missing(t testing.TB, names []string, format string, args ...any) {
	t.Helper()
	if Required(names...) {
		t.Fatalf("%s requires %s: "+format,
			append([]any{RequireVar, strings.Join(names, "/")}, args...)...)
	}
	t.Skipf(format, args...)
}

// Root needs uid 0 (T1).
func Root(t testing.TB) {
	t.Helper()
	if uid := os.Geteuid(); uid != 0 {
		missing(t, []string{"T1"}, "needs root, runs as uid %d", uid)
	}
	found(t, "T1")
}
