package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/diskload"
	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/hv/disk"
	"vmd/hv/disk/qcow2"
	"vmd/internal/testenv"
)

// fillMiB is how much TestDiskFilled writes.
const fillMiB = 1024

// baseMiB is how much the base has behind that, which stays.
const baseMiB = 8

// A guest writes 1 GiB to an image over a base, syncs, and finds it there past
// its cache; then QEMU does too.
func TestDiskFilled(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	// Two file systems in memory: none of them has room for both files.
	dir, other := harness.Dir(t), folderIn(t, "/dev/shm")
	base, image := filepath.Join(dir, "base.raw"), filepath.Join(dir, "disk.qcow2")
	tail := bytes.Repeat([]byte("what the base has "), baseMiB<<20/18)
	writeAt(t, base, tail, fillMiB<<20)
	hostTool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", image, strconv.Itoa(fillMiB+baseMiB)+"M")
	d := harness.StartVMD(t, diskGuest(t, dir, "filled", image))
	d.Vmctl("start", "filled")
	c := d.Console("filled")
	c.Expect("guest ready filled")
	start := time.Now()
	all := func(what string) {
		c.Say(fmt.Sprintf("run diskload %s /dev/vda %d 1", what, fillMiB))
		for n := diskload.Said; n <= fillMiB; n += diskload.Said {
			c.Expect(fmt.Sprintf("done %d", n))
			c.Expect("\n")
		}
		if s := c.Expect("status 0"); strings.TrimSpace(s) != "" {
			t.Fatalf("%s: %s", what, s)
		}
	}
	all("fill")
	filled := time.Now()
	all("verify")
	t.Logf("%d MiB: written in %v, verified in %v", fillMiB, filled.Sub(start), time.Since(filled))
	c.Say("poweroff")
	d.Await("filled", "stopped")
	hostTool(t, "qemu-img", "check", "-q", "-f", "qcow2", image)
	want := filepath.Join(other, "want.raw")
	writeFilled(t, want)
	writeAt(t, want, tail, fillMiB<<20)
	hostTool(t, "qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", image, want)
}

// folderIn is a folder below another one, until the test ends.
func folderIn(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// writeAt writes b to a place in a file, which it makes if it is not there.
func writeAt(t *testing.T, name string, b []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// As long as disks are: whole sectors.
	if err := f.Truncate((fillMiB + baseMiB) << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// writeFilled writes what diskload fill does.
func writeFilled(t *testing.T, name string) {
	t.Helper()
	b := make([]byte, 1<<20)
	for off := int64(0); off < fillMiB<<20; off += int64(len(b)) {
		diskload.FillAt(b, off, 1)
		writeAt(t, name, b, off)
	}
}

// diskGuest is the configuration of a guest with diskload and one disk.
func diskGuest(t *testing.T, dir, name, image string) string {
	t.Helper()
	b, err := os.ReadFile(harness.Guest(t, lab.GuestInitrd))
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(harness.Program(t, "diskload"))
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(dir, name+".initrd")
	if err := os.WriteFile(initrd, lab.AppendFile(b, "bin/diskload", program), 0o644); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`vm %q {
	disable
	memory 192M
	boot %q
	initrd %q
	cmdline "console=ttyS0 quiet panic=-1 name=%s"
	disk %q format qcow2
}
`, name, harness.Guest(t, lab.GuestVMLinux), initrd, name, image)
}

// linuxKills is how often a guest with a stock kernel dies at work. Fifty such
// deaths, of a guest of a few bytes, are in package small.
const linuxKills = 5

// The VM process of a guest that writes and syncs dies; what was synced is
// there, and QEMU finds nothing wrong.
func TestDiskKilled(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	dir := harness.Dir(t)
	base, image := filepath.Join(dir, "base.raw"), filepath.Join(dir, "disk.qcow2")
	was := bytes.Repeat([]byte{0xa5}, diskload.Size)
	if err := os.WriteFile(base, was, 0o644); err != nil {
		t.Fatal(err)
	}
	hostTool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", image)
	d := harness.StartVMD(t, diskGuest(t, dir, "killed", image))
	r := rand.New(rand.NewPCG(1, 1))
	var h diskload.History
	first := uint32(diskload.Batch)
	for range linuxKills {
		d.Vmctl("start", "killed")
		pid := d.Await("killed", "running").PID
		c := d.Console("killed")
		c.Expect("guest ready killed")
		c.Say(fmt.Sprintf("run diskload records /dev/vda %d", first))
		synced := first - 1
		for range 5 + r.IntN(40) {
			c.Expect("synced ")
			synced = number(t, c.Expect("\n"))
		}
		time.Sleep(time.Duration(r.IntN(20000)) * time.Microsecond)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d.Await("killed", "crashed")
		// The console keeps fewer lines than this, and may be that far behind.
		last := synced + 10000*diskload.Batch
		h.Add(first, synced, last)
		first = last + 1
		checkImage(t, image)
		img := openChain(t, image, base)
		if err := h.Check(reader{img}, bytes.NewReader(was)); err != nil {
			t.Fatal(err)
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func number(t *testing.T, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// checkImage has QEMU look for contradictions. Status 3 is clusters that are
// counted and not used, which do no harm and are all that a crash may leave.
func checkImage(t *testing.T, image string) {
	t.Helper()
	cmd := exec.Command(testenv.Tool(t, "qemu-img"), "check", "-f", "qcow2", image)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 3 {
		t.Fatalf("qemu-img check: %v: %s", err, out)
	}
}

func openChain(t *testing.T, names ...string) disk.Image {
	t.Helper()
	var files []*os.File
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	img, err := qcow2.OpenChain(files, true)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// reader reads a disk.
type reader struct{ disk.Image }

func (r reader) ReadAt(p []byte, off int64) (int, error) {
	return len(p), r.ReadAtV([][]byte{p}, off)
}
