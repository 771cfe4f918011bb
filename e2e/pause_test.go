package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
)

// A guest that is paused again and again while it writes loses nothing and
// writes nothing twice.
func TestPauseUnderIO(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	const mib = 32
	disk := harness.NewDisk(t, harness.Dir(t), "disk.img", mib)
	d := harness.StartVMD(t, netGuest(t, "a", "", fmt.Sprintf("disk %q format raw", disk)))
	d.Await("a", "running")
	c := d.Console("a")
	c.Expect("guest ready a")
	c.Say(fmt.Sprintf("fill /dev/vda word %d", mib))
	for range 8 {
		d.Vmctl("pause", "a")
		d.Await("a", "paused")
		d.Vmctl("unpause", "a")
		d.Await("a", "running")
	}
	c.Expect("status 0")
	sum := sha256.Sum256(bytes.Repeat([]byte("word"), mib<<18))
	if got, want := c.Command(fmt.Sprintf("sum /dev/vda %d", mib)), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("the disk's sum is %s, want %s", got, want)
	}
}
