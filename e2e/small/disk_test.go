package small

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmd/e2e/diskload"
	"vmd/e2e/harness"
	"vmd/hv/disk"
	"vmd/hv/disk/qcow2"
	"vmd/internal/testenv"
)

// Each image below is written to by this many VM processes, one after the
// other, all of which are killed.
const diskKills = 10

// A VM process that is killed while its guest writes leaves an image without a
// contradiction, in which all is that the guest flushed; and the next process
// goes on with it.
func TestDiskSurvivesKills(t *testing.T) {
	dir := setUp(t)
	qemuImg := testenv.Tool(t, "qemu-img")
	base := filepath.Join(dir, "base.raw")
	// Of the blocks of the base some are empty.
	was := bytes.Repeat([]byte{0xa5}, diskload.Size/2)
	was = append(was, make([]byte, diskload.Size/2)...)
	if err := os.WriteFile(base, was, 0o644); err != nil {
		t.Fatal(err)
	}
	// vmctl status, by which a vmd is found to answer, wants a VM to show.
	d := harness.StartVMD(t, define("other", harness.Tiny(t, dir, "other", "x", harness.TinyHalt), "disable"))
	for k, options := range []string{"cluster_size=64k", "cluster_size=4k", "cluster_size=512,refcount_bits=64", "cluster_size=2M", "cluster_size=64k,compat=0.10"} {
		t.Run(options, func(t *testing.T) {
			defer d.Use(d.Use(t))
			v := &victim{t: t, d: d, dir: dir, qemuImg: qemuImg, was: bytes.NewReader(was), first: diskload.Batch,
				name: "victim" + strconv.Itoa(k), r: rand.New(rand.NewPCG(uint64(k), 1))}
			v.image = filepath.Join(dir, v.name+".qcow2")
			v.tool(0, "create", "-q", "-f", "qcow2", "-o", options, "-b", base, "-F", "raw", v.image)
			for range diskKills {
				v.live()
				v.check()
			}
			v.compare()
		})
	}
}

// victim is a VM that is killed again and again.
type victim struct {
	t                         *testing.T
	d                         *harness.Daemon
	dir, name, image, qemuImg string
	was                       *bytes.Reader // its base
	r                         *rand.Rand
	first                     uint32 // record of the next life
	history                   diskload.History
	// leaks is how many lives left clusters that are counted and not used (exit
	// status 3 of qemu-img check): harmless, and all that a crash may leave.
	leaks int
}

// tool runs qemu-img and returns its exit status, which must not be above most.
func (v *victim) tool(most int, args ...string) int {
	v.t.Helper()
	cmd := exec.Command(v.qemuImg, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		v.t.Fatal(err)
	}
	code := cmd.ProcessState.ExitCode()
	if code < 0 || code > most {
		v.t.Fatalf("qemu-img %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return code
}

// live starts the VM and kills its process at some moment, early or late.
func (v *victim) live() {
	v.t.Helper()
	kernel := harness.Tiny(v.t, v.dir, v.name, "writes\n", harness.TinyDisk(v.first))
	v.d.WriteConfig(define(v.name, kernel, "disable", fmt.Sprintf("disk %q format qcow2", v.image)))
	v.d.Vmctl("reload")
	v.d.Vmctl("start", v.name)
	row := v.d.Await(v.name, "running")
	c := v.d.Console(v.name)
	var synced uint32
	// Who comes late to its console sees the last 64 KiB, from within a line.
	for lines := 1 + v.r.IntN(30); lines > 0; {
		if line := c.Expect("\n") + "\n"; spoken.MatchString(line) {
			synced = v.number(line)
			lines--
		}
	}
	time.Sleep(time.Duration(v.r.IntN(3000)) * time.Microsecond)
	kill(v.t, row.PID)
	// What the guest got out before its end, and vmctl's word of it.
	for _, line := range spoken.FindAllString(c.Rest(), -1) {
		synced = v.number(line)
	}
	v.d.Await(v.name, "crashed")
	// The console may have lost lines with the process, each a batch, and one
	// batch was on its way.
	last := synced + lostLines*diskload.Batch
	v.history.Add(v.first, synced, last)
	v.first = last + 1
}

// spoken is a whole line of the guest's.
var spoken = regexp.MustCompile(`(?m)^[0-9a-f]{8}\r?\n`)

// lostLines is more than the console of a VM process keeps.
const lostLines = 10000

func (v *victim) number(line string) uint32 {
	v.t.Helper()
	n, err := strconv.ParseUint(strings.TrimSpace(line), 16, 32)
	if err != nil {
		v.t.Fatalf("the guest says %q: %v", line, err)
	}
	return uint32(n)
}

// check has QEMU judge the image, and reads what is in it.
func (v *victim) check() {
	v.t.Helper()
	if v.tool(3, "check", "-q", "-f", "qcow2", v.image) == 3 {
		v.leaks++
		v.tool(0, "check", "-q", "-f", "qcow2", "-r", "leaks", v.image)
	}
	img := v.open()
	defer img.Close()
	if err := v.history.Check(reader{img}, v.was); err != nil {
		v.t.Fatal(err)
	}
}

func (v *victim) open() disk.Image {
	v.t.Helper()
	var files []*os.File
	for _, name := range []string{v.image, filepath.Join(v.dir, "base.raw")} {
		f, err := os.Open(name)
		if err != nil {
			v.t.Fatal(err)
		}
		files = append(files, f)
	}
	img, err := qcow2.OpenChain(files, true)
	if err != nil {
		v.t.Fatal(err)
	}
	return img
}

// compare has QEMU say that it reads what we do.
func (v *victim) compare() {
	v.t.Helper()
	img := v.open()
	defer img.Close()
	all := make([]byte, img.Size())
	if err := img.ReadAtV([][]byte{all}, 0); err != nil {
		v.t.Fatal(err)
	}
	plain := filepath.Join(v.dir, v.name+".raw")
	if err := os.WriteFile(plain, all, 0o600); err != nil {
		v.t.Fatal(err)
	}
	v.tool(0, "compare", "-q", "-f", "qcow2", "-F", "raw", v.image, plain)
	v.t.Logf("%d kills, after %d of them clusters were counted and not used", diskKills, v.leaks)
}

// reader reads a disk.
type reader struct{ disk.Image }

func (r reader) ReadAt(p []byte, off int64) (int, error) {
	return len(p), r.ReadAtV([][]byte{p}, off)
}
