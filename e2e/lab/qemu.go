package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machineMiB is the memory of the lab machine.
const machineMiB = 3072

// arguments is the command line of QEMU. One processor: with two, guests are
// slower and the machine falls into soft lockups. nohz=off highres=off: its
// one-shot timer interrupt is sometimes lost while a guest runs, and nothing
// but a periodic one brings it back.
func (h *host) arguments(base, work string, o Options) []string {
	accel := []string{"-accel", "tcg,thread=multi"}
	if o.Virtual {
		// 2 ns an instruction, and never asleep: times read in the
		// machine do not depend on the load of the host.
		accel = []string{"-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off"}
	}
	serial := "file:" + o.Console
	if o.Shell {
		serial = "stdio"
	}
	args := []string{
		"-machine", "q35", "-cpu", "EPYC,+svm,+npt", "-smp", "1", "-m", strconv.Itoa(machineMiB),
		"-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot",
		"-kernel", h.kernel.image, "-initrd", filepath.Join(base, baseInitrd),
		"-append", "console=ttyS0 quiet mitigations=off panic=-1 nohz=off highres=off",
		"-serial", serial,
		"-device", "virtio-serial-pci",
		// Descriptor 3 is the pipe that boot reads. Not stdio: a port
		// whose input has ended blocks its writers for ever.
		"-add-fd", "fd=3,set=1", "-chardev", "file,id=out,path=/dev/fdset/1,append=on",
		"-device", "virtserialport,chardev=out,name=out",
		"-chardev", "file,id=results,path=" + filepath.Join(work, "results.tar"),
		"-device", "virtserialport,chardev=results,name=results",
		"-chardev", "file,id=status,path=" + filepath.Join(work, "status"),
		"-device", "virtserialport,chardev=status,name=status",
	}
	for i, file := range []string{filepath.Join(base, baseImage), filepath.Join(work, "payload.tar")} {
		id := "d" + strconv.Itoa(i)
		args = append(args, "-drive", "file="+file+",format=raw,if=none,read-only=on,id="+id,
			"-device", "virtio-blk-pci,drive="+id)
	}
	return append(args, accel...)
}

// boot runs the machine until it resets.
func (h *host) boot(ctx context.Context, base, work string, o Options) (int, error) {
	if o.Console == "" {
		o.Console = filepath.Join(work, "console")
	}
	// A parent that is killed takes the machine with it; the signal comes
	// when the thread ends that started it (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, h.qemu, h.arguments(base, work, o)...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if o.Shell {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	var mended error
	err := runPiped(cmd, o.Stdout, func() { mended = mend(cmd.Process.Pid, h.qemu) })
	if ctx.Err() != nil {
		err = fmt.Errorf("the machine did not end in time: %w", errors.Join(ctx.Err(), mended))
	}
	status, statusErr := readStatus(filepath.Join(work, "status"))
	if err = errors.Join(err, statusErr); err != nil {
		console, _ := os.ReadFile(o.Console)
		return 0, fmt.Errorf("lab: %w\n%s%s", err, complaints.Bytes(), tail(console, 4<<10))
	}
	if o.Results != "" {
		return status, readResults(filepath.Join(work, "results.tar"), o.Results)
	}
	return status, nil
}

// runPiped runs cmd with a pipe as its descriptor 3 and copies what comes
// through it to w. It calls started as soon as cmd runs.
func runPiped(cmd *exec.Cmd, w io.Writer, started func()) error {
	if w == nil {
		w = io.Discard
	}
	r, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{pw}
	err = cmd.Start()
	pw.Close()
	if err != nil {
		return err
	}
	started()
	if _, err := io.Copy(w, r); err != nil {
		cmd.Process.Kill() // nobody reads: it would stand still
	}
	return cmd.Wait()
}

func readStatus(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, errors.New("the machine went down without an exit status")
	}
	return n, nil
}

func readResults(path, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unpack(f, dir)
}

func tail(b []byte, n int) []byte {
	return b[max(0, len(b)-n):]
}
