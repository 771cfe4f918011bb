package small

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"vmd/e2e/harness"
)

// tally is a tiny guest's code that answers each key with the next letter, from
// A, which it keeps in memory.
var tally = []byte{
	0xc6, 0x05, 0x00, 0x00, 0x30, 0x00, 'A', // mov byte [3 MiB], 'A'
	0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
	0xec,       // in al, dx
	0xa8, 0x01, // test al, 1
	0x74, 0xf7, // jz to the second
	0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xec,                         // in al, dx
	0xa0, 0x00, 0x00, 0x30, 0x00, // mov al, [3 MiB]
	0xee,                               // out dx, al
	0xfe, 0x05, 0x00, 0x00, 0x30, 0x00, // inc byte [3 MiB]
	0xeb, 0xe4, // jmp to the second
}

// travel is two hosts, and a VM called a that can go from one to the other.
type travel struct {
	t     *testing.T
	a, b  *harness.Daemon
	here  *harness.Daemon // where it is
	next  byte            // what it will say next
	tty   *harness.Console
	disk  string
	guest string // its kernel
}

// newTravel starts the VM at a. Of b's configuration it is no part.
func newTravel(t *testing.T, confB string) *travel {
	t.Helper()
	dir := setUp(t)
	w := &travel{t: t, next: 'A'}
	w.disk = harness.NewDisk(t, dir, "disk.img", 1)
	w.guest = harness.Tiny(t, dir, "k", "tiny a\n", tally)
	w.a = harness.StartVMD(t, w.define("a"))
	w.b = harness.StartBeside(t, confB)
	w.here = w.a
	w.a.Await("a", "running")
	w.counts()
	return w
}

func (w *travel) define(name string, lines ...string) string {
	return define(name, w.guest, append([]string{fmt.Sprintf("disk %q", w.disk), "interface tap"}, lines...)...)
}

func (w *travel) other() *harness.Daemon {
	if w.here == w.a {
		return w.b
	}
	return w.a
}

// counts has the guest go on counting, and where it has just come wants
// everything that it has said on its console.
func (w *travel) counts() {
	w.t.Helper()
	if w.tty == nil {
		w.tty = w.here.Console("a")
		w.tty.Expect("tiny a\n")
		for l := byte('A'); l < w.next; l++ {
			w.tty.Expect(string(l))
		}
	}
	for range 2 {
		w.tty.Type("x")
		w.tty.Expect(string(w.next))
		w.next++
	}
}

// move moves the VM, and fails the test unless it arrives.
func (w *travel) move(o harness.MoveOptions) {
	w.t.Helper()
	o.VM = "a"
	from, to := w.here, w.other()
	before := from.Row("a")
	m := from.MoveTo(to, o)
	if m.Sent.Status != 0 || m.Received.Status != 0 {
		w.t.Fatalf("send: status %d, %sreceive: status %d, %s", m.Sent.Status, m.Sent.Stderr, m.Received.Status, m.Received.Stderr)
	}
	if !strings.HasPrefix(m.Sent.Stderr, "vmctl: sent vm a successfully, ") {
		w.t.Errorf("send said %q", m.Sent.Stderr)
	}
	w.here, w.tty = to, nil
	after := to.Row("a")
	if after.UUID != before.UUID || after.Interfaces[0].MAC != before.Interfaces[0].MAC || after.State != before.State {
		w.t.Errorf("it was %+v, is %+v", before, after)
	}
	if gone, ok := from.Rows()["a"]; ok && (gone.State != "stopped" || gone.LastExit != "sent to another host" || gone.PID != 0) {
		w.t.Errorf("where it comes from it is %+v", gone)
	}
}

// stays fails the test unless the VM runs on where it is, and nothing of it is
// at the other host.
func (w *travel) stays(m harness.Move) {
	w.t.Helper()
	if m.Sent.Status == 0 {
		w.t.Errorf("send: %s", m.Sent.Stderr)
	}
	if m.Received.Status == 0 {
		w.t.Errorf("receive: %s", m.Received.Stderr)
	}
	w.here.Await("a", "running")
	w.counts()
	harness.WaitFor(w.t, "nothing at the other host", func() bool {
		row, ok := w.other().Rows()["a"]
		return (!ok || row.PID == 0) && len(w.otherRemains()) == 0
	})
}

func (w *travel) otherRemains() []string {
	if w.here == w.a {
		return w.b.BesideRemains()
	}
	return nil
}

func TestMoveThereAndBack(t *testing.T) {
	for _, confirm := range []bool{false, true} {
		t.Run(fmt.Sprintf("confirm %v", confirm), func(t *testing.T) {
			w := newTravel(t, "")
			for range 4 {
				w.move(harness.MoveOptions{Confirm: confirm})
				w.counts()
			}
			if left := w.b.BesideRemains(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			w.here.Vmctl("stop", "-fw", "a")
			harness.NothingRemains(t)
		})
	}
}

// A stream that breaks anywhere leaves the guest where it is.
func TestMoveCut(t *testing.T) {
	w := newTravel(t, "")
	var size int64
	for i := range 20 {
		if i == 0 { // how long a whole one is, from one that is refused at the end
			f, err := os.CreateTemp(t.TempDir(), "stream")
			if err != nil {
				t.Fatal(err)
			}
			w.move(harness.MoveOptions{})
			cmd := w.here.Command("send", "a")
			cmd.Stdout = f
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			size = st.Size()
			f.Seek(0, 0)
			cmd = w.a.Command("receive", "a")
			cmd.Stdin = f
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			w.here, w.tty = w.a, nil
			w.counts()
		}
		cut := 1 + rand.Int64N(size-1)
		if i < 3 {
			cut = size - int64(i) - 1 // in the last word
		}
		t.Logf("cut after %d of %d bytes", cut, size)
		w.stays(w.here.MoveTo(w.other(), harness.MoveOptions{VM: "a", Cut: cut, Confirm: i%2 == 1}))
	}
	w.here.Vmctl("stop", "-fw", "a")
	harness.NothingRemains(t)
}

// A stream that is not what was sent is not used.
func TestMoveDamaged(t *testing.T) {
	w := newTravel(t, "")
	size := w.here.MoveTo(w.other(), harness.MoveOptions{VM: "a", Cut: 1 << 20}).Bytes
	w.here, w.tty = w.b, nil
	w.counts()
	for range 10 {
		flip := rand.Int64N(size - 100) // but for Go: then it is too late
		t.Logf("a bit of byte %d of %d", flip, size)
		w.stays(w.here.MoveTo(w.other(), harness.MoveOptions{VM: "a", Flip: 1 + flip, Confirm: true}))
	}
}

func TestMovePaused(t *testing.T) {
	w := newTravel(t, "")
	w.a.Vmctl("pause", "a")
	w.move(harness.MoveOptions{})
	if row := w.b.Row("a"); row.State != "paused" {
		t.Errorf("it is %s", row.State)
	}
	w.move(harness.MoveOptions{Confirm: true})
	w.a.Vmctl("unpause", "a")
	w.counts()
}

// The receiving host knows the VM already, by another name, or as another one.
func TestMoveDefined(t *testing.T) {
	dir := setUp(t)
	kernel := harness.Tiny(t, dir, "other", "tiny other\n", harness.TinyHalt)
	busy := define("busy", kernel)
	w := newTravel(t, busy)
	for _, c := range []struct{ name, conf, as, want string }{
		{"runs", busy, "busy", "receive vm command failed: Operation already in progress"},
		{"memory", busy + strings.Replace(w.define("a", "disable"), "8M", "16M", 1), "a", "it is defined with 16 MiB of memory, the guest has 8 MiB"},
		{"cpus", busy + w.define("a", "disable", "cpus 2"), "a", "it is defined with 2 CPUs, the guest has 1"},
		{"disks", busy + define("a", w.guest, "disable", "interface tap"), "a", "it is defined with 0 disks, the guest has 1"},
		{"interfaces", busy + w.define("a", "disable", "interface tap"), "a", "it is defined with 2 interfaces, the guest has 1"},
		{"missing disk", busy, "gone", `could not open disk image(s): open disk "/tmp/no-such-disk": `},
		{"other disk", busy + strings.Replace(w.define("a", "disable"), w.disk, harness.NewDisk(t, dir, "two.img", 2), 1), "a", "2097152 bytes, and the guest's has 1048576"},
		{"its disk in use", busy + strings.Replace(w.define("a", "disable"), w.disk, harness.NewDisk(t, dir, "used.img", 1), 1) +
			define("user", kernel, fmt.Sprintf("disk %q", dir+"/used.img")), "a", "could not open disk image(s)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.b.WriteConfig(c.conf)
			w.b.Vmctl("reload")
			if c.name == "its disk in use" {
				w.b.Await("user", "running")
			}
			defer func(before testing.TB) { w.t = before.(*testing.T) }(w.t)
			o := harness.MoveOptions{VM: "a", As: c.as, Confirm: true}
			if c.as == "gone" {
				o.Receive = []string{"-d", "/tmp/no-such-disk"}
			}
			m := w.a.MoveTo(w.b, o)
			if m.Received.Status == 0 || !strings.Contains(m.Received.Stderr, c.want) {
				t.Errorf("receive: status %d, %s; want %q", m.Received.Status, m.Received.Stderr, c.want)
			}
			if m.Sent.Status == 0 || !strings.Contains(m.Sent.Stderr, "vmctl: vm a is running here") {
				t.Errorf("send: status %d, %s", m.Sent.Status, m.Sent.Stderr)
			}
			w.counts()
		})
	}
	// And once it fits.
	w.b.WriteConfig(busy + w.define("a", "disable"))
	w.b.Vmctl("reload")
	w.move(harness.MoveOptions{})
	w.counts()
	if row := w.b.Row("a"); row.Changed {
		t.Errorf("it is %+v", row)
	}
}

// Whoever dies while the guest is on its way, it is at one of the two hosts, and
// goes on there.
func TestMoveAndDeaths(t *testing.T) {
	for _, c := range []struct {
		name string
		die  func(w *travel, send, receive *os.Process)
		sent bool // vmctl send is not the one that dies
	}{
		{"vmctl send", func(_ *travel, send, _ *os.Process) { send.Kill() }, false},
		{"vmctl receive", func(_ *travel, _, receive *os.Process) { receive.Kill() }, true},
		{"the receiving process", func(w *travel, _, _ *os.Process) {
			kill(w.t, harness.Role(w.t, "vm/a", w.a.Row("a").PID))
		}, true},
		{"vmm", func(w *travel, _, _ *os.Process) { kill(w.t, roleOf(w.t, "vmm", w.a)) }, true},
		{"control", func(w *travel, _, _ *os.Process) { kill(w.t, roleOf(w.t, "control", w.a)) }, true},
		{"parent", func(w *travel, _, _ *os.Process) { w.a.Kill(); w.a.Start() }, true},
		{"the receiver's vmm", func(w *travel, _, _ *os.Process) { kill(w.t, roleOf(w.t, "vmm", w.b)) }, true},
		{"the receiver's parent", func(w *travel, _, _ *os.Process) { w.b.Kill(); w.b.Start() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTravel(t, "")
			pid := w.a.Row("a").PID
			m := w.a.MoveTo(w.b, harness.MoveOptions{VM: "a", Confirm: true, Stall: 6000, Begun: func(send, receive *os.Process) {
				harness.WaitFor(t, "the receiver to have begun", func() bool { return w.b.Rows()["a"].State == "starting" })
				harness.Role(t, "vm/a", pid)
				if row := w.a.Row("a"); row.State != "migrating" {
					t.Errorf("it is %s", row.State)
				}
				c.die(w, send, receive)
				// Whose death it is does not know that it is late.
				harness.WaitFor(t, "one of both to notice", func() bool {
					row, ok := w.b.Rows()["a"]
					return w.a.Row("a").State == "running" || !ok || row.State != "starting"
				})
			}})
			w.stays(m)
			if c.sent && m.Sent.Stderr == "" {
				t.Error("send said nothing")
			}
			if row := w.a.Row("a"); row.PID != pid {
				t.Errorf("it had process %d, has %d", pid, row.PID)
			}
			w.move(harness.MoveOptions{})
			w.counts()
		})
	}
}

// roleOf is the process of a role of d.
func roleOf(t *testing.T, name string, d *harness.Daemon) int {
	t.Helper()
	for _, p := range harness.Processes(t) {
		if p.Name == name && harness.Parent(t, p.PID) == d.PID() {
			return p.PID
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

// What is asked of a VM that is on its way is refused, but for its end.
func TestAskedWhileMoving(t *testing.T) {
	w := newTravel(t, "")
	m := w.a.MoveTo(w.b, harness.MoveOptions{VM: "a", Stall: 6000, Begun: func(_, _ *os.Process) {
		harness.WaitFor(t, "the receiver to have begun", func() bool { return w.b.Rows()["a"].State == "starting" })
		for _, words := range [][]string{{"pause", "a"}, {"unpause", "a"}, {"start", "a"}, {"send", "a"}} {
			cmd := w.a.Command(words...)
			if out, err := cmd.Output(); err == nil {
				t.Errorf("vmctl %s: %s", strings.Join(words, " "), out)
			}
		}
		w.a.Vmctl("stop", "-f", "a")
	}})
	if m.Sent.Status == 0 || m.Received.Status == 0 {
		t.Errorf("it was sent: %+v", m)
	}
	if row := w.a.Row("a"); row.State != "stopped" || row.LastExit != "stopped by force" {
		t.Errorf("it is %+v", row)
	}
	harness.NothingRemains(t)
}

// A VM can bring its disks along.
func TestMoveWithDisks(t *testing.T) {
	w := newTravel(t, "")
	b := []byte("what is on the disk")
	f, err := os.OpenFile(w.disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteAt(b, 700_000)
	far := harness.Dir(t) + "/far.img"
	o := harness.MoveOptions{VM: "a", Cut: 8000, Send: []string{"--with-disks"}, Receive: []string{"-d", far}}
	w.stays(w.a.MoveTo(w.b, o))
	if exists(far) {
		t.Errorf("%s was left", far)
	}
	o.Cut = 0
	w.move(o)
	w.counts()
	got := make([]byte, len(b))
	g, err := os.Open(far)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if st, err := g.Stat(); err != nil || st.Size() != 1<<20 {
		t.Errorf("the disk has %d bytes, %v", st.Size(), err)
	}
	if _, err := g.ReadAt(got, 700_000); err != nil || string(got) != string(b) {
		t.Errorf("the disk has %q, %v", got, err)
	}
	// It is not written over.
	m := w.b.MoveTo(w.a, harness.MoveOptions{VM: "a", As: "again", Send: []string{"--with-disks"}, Confirm: true})
	if !strings.Contains(m.Received.Stderr, "file exists") {
		t.Errorf("receive: %s", m.Received.Stderr)
	}
	w.counts()
}

// A VM that was sent is not started again by anything but an operator.
func TestSentStaysAway(t *testing.T) {
	w := newTravel(t, "")
	w.move(harness.MoveOptions{})
	w.a.Vmctl("reload")
	w.a.Stop()
	w.a.Start()
	if row := w.a.Row("a"); row.State != "stopped" {
		t.Errorf("it is %+v", row)
	}
	// Its disk is in use, where it is.
	refused(t, w.a.VmctlAs("root", "start", "a"), fmt.Sprintf("vmctl: could not open disk image(s): disk %q: it is in use by another VM or program\nvmctl: see vmctl status -v for who has it", w.disk))
	w.counts()
}

// The way back breaks when the receiver has been told to run the guest: nobody
// can know whether it does. The guest stays here, too, but does not run.
func TestMoveUnsure(t *testing.T) {
	w := newTravel(t, "")
	m := w.a.MoveTo(w.b, harness.MoveOptions{VM: "a", Confirm: true, CutBack: 8})
	if m.Received.Status != 0 {
		t.Fatalf("receive: %s", m.Received.Stderr)
	}
	if m.Sent.Status != 1 || !strings.Contains(m.Sent.Stderr, "vmctl: vm a is paused here") {
		t.Errorf("send: status %d, %s", m.Sent.Status, m.Sent.Stderr)
	}
	w.a.Await("a", "paused")
	w.b.Await("a", "running")
	if r := w.a.VmctlAs("root", "unpause", "a"); r.Status == 0 || !strings.Contains(r.Stderr, "runs on another host") {
		t.Errorf("unpause: status %d, %s", r.Status, r.Stderr)
	}
	if r := w.a.VmctlAs("root", "send", "a"); r.Status == 0 {
		t.Error("it was sent once more")
	}
	w.b.Vmctl("stop", "-fw", "a")
	w.a.Vmctl("unpause", "a")
	w.counts()
	w.move(harness.MoveOptions{Confirm: true})
	w.counts()
}

// A VM can go to another name on the same host, through a file too.
func TestMoveToItself(t *testing.T) {
	w := newTravel(t, "")
	m := w.a.MoveTo(w.a, harness.MoveOptions{VM: "a", As: "twin", Confirm: true})
	if m.Sent.Status != 0 || m.Received.Status != 0 {
		t.Fatalf("send: %sreceive: %s", m.Sent.Stderr, m.Received.Stderr)
	}
	twin := w.a.Await("twin", "running")
	if row := w.a.Row("a"); row.State != "stopped" || row.UUID != twin.UUID || row.Interfaces[0].MAC != twin.Interfaces[0].MAC {
		t.Errorf("a is %+v, its twin %+v", row, twin)
	}
	f, err := os.CreateTemp(t.TempDir(), "stream")
	if err != nil {
		t.Fatal(err)
	}
	send := w.a.Command("send", "twin")
	send.Stdout = f
	if err := send.Run(); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.a.Rows()["twin"]; ok {
		t.Error("a VM that no configuration has is still known")
	}
	for _, want := range []bool{true, false} { // but once only
		f.Seek(0, 0)
		receive := w.a.Command("receive", "a")
		receive.Stdin = f
		if out, err := receive.CombinedOutput(); (err == nil) != want {
			t.Errorf("receive: %v: %s", err, out)
		}
	}
	w.tty = nil
	w.counts()
}

// A manager hears of a guest that leaves, and of one that comes.
func TestSNMPMoves(t *testing.T) {
	dir := setUp(t)
	h := newSNMPHost(t, "notifications per-vm", define("vm", harness.Tiny(t, dir, "k", "x", harness.TinyHalt), "disable"))
	h.await("1.2.0", int64(1))
	h.vmd.Vmctl("start", "vm")
	f, err := os.CreateTemp(t.TempDir(), "stream")
	if err != nil {
		t.Fatal(err)
	}
	send := h.vmd.Command("send", "vm")
	send.Stdout = f
	if err := send.Run(); err != nil {
		t.Fatal(err)
	}
	f.Seek(0, 0)
	receive := h.vmd.Command("receive", "vm")
	receive.Stdin = f
	if out, err := receive.CombinedOutput(); err != nil {
		t.Fatalf("receive: %v: %s", err, out)
	}
	const running, shutdown, migrating = 1, 3, 8
	want := []int{running, migrating, shutdown, migrating, running}
	harness.WaitFor(t, "the notifications", func() bool { return len(kinds(h.traps.Text())) >= len(want) })
	if got := kinds(h.traps.Text()); !slices.Equal(got, want) {
		t.Errorf("notifications %v, want %v", got, want)
	}
}
