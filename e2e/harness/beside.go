package harness

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"vmd/e2e/lab"
)

// StartBeside starts a second vmd, as if on another host: with its own paths,
// network namespace and control groups, but the same file system. It is ended
// before the first, which has to be there.
func StartBeside(t testing.TB, conf string) *Daemon {
	t.Helper()
	dir := Dir(t)
	d := &Daemon{t: t, Config: filepath.Join(dir, "vm.conf"), env: []string{
		"VMD_SOCKET=" + filepath.Join(dir, "sock"), "VMD_RUN_DIR=" + filepath.Join(dir, "run"), "VMD_STATE_DIR=" + filepath.Join(dir, "state"),
	}}
	d.attr = func(cmd *exec.Cmd) error {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		return d.ownGroup(cmd)
	}
	d.WriteConfig(conf)
	t.Cleanup(func() {
		d.hurry()
		d.Stop()
		if t.Failed() {
			t.Logf("the second vmd:\n%s", d.Log())
		}
	})
	d.Start()
	return d
}

// ownGroup has the second vmd start in a control group of its own, if there are
// any.
func (d *Daemon) ownGroup(cmd *exec.Cmd) error {
	root := lab.Groups()
	if root == "" {
		return nil
	}
	group := filepath.Join(root, "beside")
	if err := os.MkdirAll(group, 0o755); err != nil {
		return err
	}
	f, err := os.Open(group)
	if err != nil {
		return err
	}
	d.t.Cleanup(func() { f.Close() })
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	return nil
}

// BesideRemains is Remains for the second vmd, but for processes, which Remains
// has all of.
func (d *Daemon) BesideRemains() (found []string) {
	d.t.Helper()
	for _, e := range d.env {
		if run, ok := strings.CutPrefix(e, "VMD_RUN_DIR="); ok {
			found, _ = filepath.Glob(filepath.Join(run, "vm", "*"))
		}
	}
	dev, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", d.PID()))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(dev)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && strings.HasPrefix(name, "tap") {
			found = append(found, name)
		}
	}
	return found
}

// Parent is the parent process of pid.
func Parent(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // it has just gone
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "PPid:"); ok {
			ppid, _ := strconv.Atoi(strings.TrimSpace(n))
			return ppid
		}
	}
	return 0
}

// Move is a send and a receive with a pipe between them, which may be cut.
type Move struct {
	Sent, Received Result
	Bytes          int64 // that went through the pipe
}

// MoveOptions say how a Move goes. Cut, if not 0, is after how many bytes the
// pipe breaks. After Stall bytes, if not 0, nothing moves until Begun has
// returned; it is called when both programs run. CutBack, if not 0, is after how
// many bytes the way back breaks. Flip, if not 0, is where a bit is not what it
// was.
type MoveOptions struct {
	VM, As  string
	Confirm bool
	Cut     int64
	Stall   int64
	CutBack int64
	Flip    int64
	Send    []string // further arguments
	Receive []string
	Begun   func(send, receive *os.Process)
}

// MoveTo sends a VM of d to another vmd.
func (d *Daemon) MoveTo(to *Daemon, o MoveOptions) Move {
	d.t.Helper()
	if o.As == "" {
		o.As = o.VM
	}
	send, receive := []string{"send"}, []string{"receive"}
	if o.Confirm {
		send, receive = append(send, "--confirm"), append(receive, "--confirm")
	}
	s := d.Command(append(append(send, o.Send...), o.VM)...)
	r := to.Command(append(append(receive, o.Receive...), o.As)...)
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			d.t.Fatal(err)
		}
		return r, w
	}
	fromSend, sendOut := pipe()
	receiveIn, toReceive := pipe()
	s.Stdout, r.Stdin = sendOut, receiveIn
	back, forth := (*os.File)(nil), (*os.File)(nil)
	if o.Confirm {
		back, forth = pipe()
		s.Stdin, r.Stdout = back, forth
	}
	if o.CutBack > 0 {
		from, to := pipe()
		go carry(to, back, o.CutBack)
		s.Stdin, back = from, from
	}
	var m Move
	var serr, rerr strings.Builder
	s.Stderr, r.Stderr = &serr, &rerr
	for _, cmd := range []*exec.Cmd{s, r} {
		if err := cmd.Start(); err != nil {
			d.t.Fatal(err)
		}
	}
	for _, f := range []*os.File{sendOut, receiveIn, back, forth} {
		if f != nil {
			f.Close()
		}
	}
	stalled := make(chan struct{})
	carried := make(chan int64)
	go func() {
		n := carryPart(toReceive, fromSend, o.Stall)
		<-stalled
		if o.Flip > 0 {
			n += carryPart(toReceive, fromSend, o.Flip)
			n += flip(toReceive, fromSend)
		}
		carried <- n + carry(toReceive, fromSend, o.Cut)
	}()
	if o.Begun != nil {
		o.Begun(s.Process, r.Process)
	}
	close(stalled)
	m.Bytes = <-carried
	m.Sent, m.Received = finish(d.t, s, &serr), finish(d.t, r, &rerr)
	return m
}

// carry copies from one pipe to another, all or only the first n bytes, and
// closes both.
func carry(to, from *os.File, n int64) int64 {
	defer to.Close()
	defer from.Close()
	if n == 0 {
		n = math.MaxInt64
	}
	return carryPart(to, from, n)
}

// flip carries a byte, and not as it was.
func flip(to, from *os.File) int64 {
	var b [1]byte
	n, _ := from.Read(b[:])
	b[0] ^= 0x10
	n, _ = to.Write(b[:n])
	return int64(n)
}

// carryPart is carry that closes nothing.
func carryPart(to, from *os.File, n int64) (done int64) {
	b := make([]byte, 64<<10)
	for done < n {
		p := b[:min(int64(len(b)), n-done)]
		k, err := from.Read(p)
		if k > 0 {
			w, werr := to.Write(p[:k])
			done += int64(w)
			if werr != nil {
				return done
			}
		}
		if err != nil {
			return done
		}
	}
	return done
}

func finish(t testing.TB, cmd *exec.Cmd, stderr *strings.Builder) Result {
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	WaitFor(t, cmd.String(), func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	return Result{Stderr: stderr.String(), Status: cmd.ProcessState.ExitCode()}
}
