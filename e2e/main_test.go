// Package e2e holds the tests of the whole program: a vmd with stock Linux
// guests, and the tests of other packages that want a stock kernel. TestMain
// runs them in the emulated machine of e2e/lab unless this host has a real
// KVM.
package e2e

import (
	"os"
	"testing"

	"vmd/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }
