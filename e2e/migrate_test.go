package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"vmd/e2e/diskload"
	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

// moves is how often a guest goes to the other host while it works, and breaks
// how many streams break on the way; e2e/small breaks many more, which is faster
// there.
const (
	moves  = 20
	breaks = 6
)

// migrant is a stock guest that writes records to a disk which both hosts have,
// and says after each batch which are safe.
type migrant struct {
	t      *testing.T
	a, b   *harness.Daemon
	here   *harness.Daemon
	tty    *harness.Console
	synced uint32 // the last record that it has said is
	said   string // of a line that has not ended
	mark   int
}

// withDiskload is the guests' initramfs with e2e/diskload in it.
func withDiskload(t *testing.T) string {
	t.Helper()
	initrd, err := os.ReadFile(harness.Guest(t, lab.GuestInitrd))
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(harness.Program(t, "diskload"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(harness.Dir(t), "initrd")
	if err := os.WriteFile(path, lab.AppendFile(initrd, "bin/diskload", program), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMigrate moves a stock Linux between two vmds, in a network namespace each,
// while it works: nothing that it has written is lost, and it counts on.
func TestMigrate(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	disk := harness.NewDisk(t, harness.Dir(t), "disk.img", diskload.Size>>20)
	conf := fmt.Sprintf("vm \"web\" {\n\tmemory 96M\n\tcpus 2\n\tboot %q\n\tinitrd %q\n\tcmdline \"console=ttyS0 quiet name=web\"\n\tdisk %q\n\tinterface tap\n}\n",
		harness.Guest(t, lab.GuestVMLinux), withDiskload(t), disk)
	g := &migrant{t: t, a: harness.StartVMD(t, conf), b: harness.StartBeside(t, ""), synced: diskload.Batch - 1}
	g.here = g.a
	g.a.Await("web", "running")
	g.tty = g.a.Console("web")
	g.tty.Expect("guest ready web")
	g.tty.Command(fmt.Sprintf("run diskload records /dev/vda %d &", diskload.Batch))
	g.works()
	g.thereAndBack()
	g.brokenStreams()
	g.idleMoves()
	g.ends()
	var h diskload.History
	h.Add(diskload.Batch, g.synced, g.synced+1000*diskload.Batch)
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := h.Check(f, bytes.NewReader(make([]byte, diskload.Size))); err != nil {
		t.Errorf("after record %d: %v", g.synced, err)
	}
	t.Logf("%d records", g.synced)
}

var syncedLine = regexp.MustCompile(`synced (\d+)\r?\n`)

// works has the guest answer, and checks what it has said meanwhile: no number
// is left out, and none comes twice.
func (g *migrant) works() {
	g.t.Helper()
	for range 2 {
		g.mark++
		g.tty.Say(fmt.Sprintf("mark %d", g.mark))
		g.listen(g.tty.Expect(fmt.Sprintf("echo: mark %d", g.mark)))
	}
}

func (g *migrant) listen(text string) {
	g.t.Helper()
	g.said += text
	for _, m := range syncedLine.FindAllStringSubmatch(g.said, -1) {
		n, err := strconv.ParseUint(m[1], 10, 32)
		if err != nil {
			g.t.Fatal(err)
		}
		if uint32(n) <= g.synced {
			continue // it was said where it came from
		}
		if uint32(n) != g.synced+diskload.Batch {
			g.t.Fatalf("record %d is synced after %d", n, g.synced)
		}
		g.synced = uint32(n)
	}
	g.said = g.said[strings.LastIndexByte(g.said, '\n')+1:]
}

func (g *migrant) other() *harness.Daemon {
	if g.here == g.a {
		return g.b
	}
	return g.a
}

// move moves the guest, and returns how many bytes went.
func (g *migrant) move(confirm bool) int64 {
	g.t.Helper()
	from, to := g.here, g.other()
	before := from.Row("web")
	m := from.MoveTo(to, harness.MoveOptions{VM: "web", Confirm: confirm})
	if m.Sent.Status != 0 || m.Received.Status != 0 {
		g.t.Fatalf("send: status %d, %sreceive: status %d, %s", m.Sent.Status, m.Sent.Stderr, m.Received.Status, m.Received.Stderr)
	}
	g.t.Logf("%s", strings.TrimSpace(m.Sent.Stderr))
	g.arrived(to)
	row := to.Row("web")
	if row.State != "running" || row.UUID != before.UUID || row.Interfaces[0].MAC != before.Interfaces[0].MAC {
		g.t.Fatalf("it was %+v, is %+v", before, row)
	}
	g.works()
	return m.Bytes
}

func (g *migrant) arrived(at *harness.Daemon) {
	g.here, g.tty, g.said = at, at.Console("web"), ""
}

// thereAndBack moves the guest while it works.
func (g *migrant) thereAndBack() {
	for i := range moves {
		before := g.synced
		g.move(i%2 == 1)
		harness.WaitFor(g.t, "the guest to write on", func() bool {
			g.works()
			return g.synced > before
		})
	}
}

// brokenStreams breaks streams anywhere: the guest goes on, and the receiver
// keeps nothing.
func (g *migrant) brokenStreams() {
	size := g.move(false)
	for i := range breaks {
		cut := 1 + rand.Int64N(size-1)
		m := g.here.MoveTo(g.other(), harness.MoveOptions{VM: "web", Cut: cut, Confirm: i%2 == 1})
		if m.Sent.Status == 0 && m.Received.Status == 0 && m.Bytes < cut { // it was shorter than that
			g.arrived(g.other())
			g.works()
			continue
		}
		if m.Sent.Status == 0 || m.Received.Status == 0 {
			g.t.Fatalf("cut after %d bytes: send: %sreceive: %s", cut, m.Sent.Stderr, m.Received.Stderr)
		}
		if row := g.here.Row("web"); row.State != "running" {
			g.t.Fatalf("cut after %d bytes: it is %+v", cut, row)
		}
		g.works()
		harness.WaitFor(g.t, "nothing at the other host", func() bool {
			row, ok := g.other().Rows()["web"]
			return (!ok || row.PID == 0) && len(g.remains()) == 0
		})
	}
}

// remains is what there is of the VM where it is not, but for the one process.
func (g *migrant) remains() (found []string) {
	g.t.Helper()
	if g.here == g.a {
		found = g.b.BesideRemains()
	}
	vms := 0
	for _, p := range harness.Processes(g.t) {
		if strings.HasPrefix(p.Name, "vm/") {
			vms++
		}
	}
	if vms > 1 {
		found = append(found, fmt.Sprintf("%d processes", vms))
	}
	return found
}

// idleMoves moves the guest when it has nothing to do.
func (g *migrant) idleMoves() {
	g.tty.Say("run kill $(pidof diskload)")
	g.listen(g.tty.Expect("status 0"))
	g.move(false)
	g.move(true)
}

// ends stops the guest: nothing is left of it anywhere.
func (g *migrant) ends() {
	g.here.Vmctl("stop", "-w", "web")
	harness.NothingRemains(g.t)
	if left := g.b.BesideRemains(); len(left) > 0 {
		g.t.Errorf("left behind: %v", left)
	}
}
